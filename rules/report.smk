# The experiment at a glance, and the proof of it.


rule summary:
    input:
        manifests=expand("<results>/{version}/manifest.json", version=VERSIONS),
        selections=expand("<results>/{version}/selection.json", version=VERSIONS[1:]),
        evals=expand("<results>/{version}/eval.json", version=VERSIONS),
    output:
        "<results>/summary.csv",
    log:
        "<results>/logs/summary.log",
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        method=METHOD["summary"],
        versions=VERSIONS,
    shell:
        "{resources.python:q} scripts/summary.py --results $(dirname {output}) --versions {params.versions}"
        " --out {output} --log {log}"


# Asks for nothing to be made first: it says what is true of the results as they lie there.
rule audit:
    log:
        "<results>/logs/audit.log",
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        results=RESULTS,
    shell:
        "{resources.python:q} scripts/audit.py {params.results} 2>&1 | tee {log}"
