# The seed dataset becomes version `seed`.


rule import_seed:
    input:
        config["dataset"]["path"],
    output:
        dataset="<results>/seed/dataset.jsonl",
        extras="<results>/seed/extras.jsonl",
        rejects="<results>/seed/rejects.jsonl",
        manifest="<results>/seed/manifest.json",
    log:
        "<results>/seed/logs/import_seed.log",
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        method=METHOD["import_seed"],
        format=config["dataset"]["format"],
        on_invalid=config["dataset"]["on_invalid"],
    shell:
        "{resources.python:q} scripts/import_seed.py --source {input:q} --format {params.format}"
        " --on-invalid {params.on_invalid} --dataset {output.dataset} --extras {output.extras}"
        " --rejects {output.rejects} --manifest {output.manifest} --log {log}"
