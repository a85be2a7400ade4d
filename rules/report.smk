# The experiment at a glance.


rule summary:
    input:
        manifests=expand("<results>/{version}/manifest.json", version=versions()),
        selections=expand("<results>/{version}/selection.json", version=versions()[1:]),
        evals=expand("<results>/{version}/eval.json", version=versions()),
    output:
        "<results>/summary.csv",
    log:
        "<results>/logs/summary.log",
    params:
        method=METHOD["summary"],
        versions=versions(),
    conda:
        env_file("driver")
    shell:
        "{python[driver]} scripts/summary.py --results $(dirname {output}) --versions {params.versions}"
        " --out {output} --log {log}"
