# What comes from outside: the seed dataset becomes version `seed`; `fetch` gets the rest from the net. The base
# model is named by its hashes.


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
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        method=METHOD["import_seed"],
        source=lambda wildcards: config["dataset"]["path"],
        format=config["dataset"]["format"],
        on_invalid=config["dataset"]["on_invalid"],
    shell:
        "{resources.python:q} scripts/import_seed.py --source {input:q} --format {params.format}"
        " --on-invalid {params.on_invalid} --dataset {output.dataset} --extras {output.extras}"
        " --rejects {output.rejects} --manifest {output.manifest} --log {log}"


rule hash_base_model:
    input:
        model_files(config["base_model"]["path"]),
    output:
        "<results>/base_model.sha256",
    log:
        "<results>/logs/hash_base_model.log",
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        base_model=lambda wildcards: config["base_model"]["path"],
        revision=REVISION,
    shell:
        "{resources.python:q} scripts/hash_base_model.py --base-model {params.base_model:q}"
        " --revision {params.revision} --out {output} --log {log}"


rule fetch:
    log:
        "<results>/logs/fetch.log",
    localrule: True
    conda:
        env_file("evaluate")
    resources:
        python=python["evaluate"],
    params:
        base_model=lambda wildcards: config["base_model"]["path"],
        revision=config["base_model"]["revision"] or "main",
        benchmarks=config["evaluation"]["benchmarks"],
        data=config["evaluation"]["data"] or "",
    shell:
        "{resources.python:q} scripts/fetch.py --base-model {params.base_model:q} --revision {params.revision}"
        " --benchmarks {params.benchmarks} --data {params.data:q} --log {log}"
