# What others need who get the data: a folder per version, and the record of the whole run. Only on request:
# snakemake describe.


rule release:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        manifest="<results>/{version}/manifest.json",
        near_copies=branch(
            lambda wildcards: wildcards.version != "seed",
            then="<results>/{version}/near_copies.jsonl",
        ),
        leaks=branch(
            lambda wildcards: wildcards.version != "seed",
            then="<results>/{version}/leaks.jsonl",
        ),
    output:
        directory("<results>/{version}/release"),
    log:
        "<results>/{version}/logs/release.log",
    localrule: True
    conda:
        env_file("describe")
    resources:
        python=python["describe"],
    params:
        method=METHOD["release"],
        experiment=config["experiment"],
        licenses=lambda wildcards: pick(config["licenses"]),
    shell:
        "{resources.python:q} scripts/release.py --experiment {params.experiment} --version {wildcards.version}"
        " --dataset {input.dataset} --manifest {input.manifest} --licenses {params.licenses:q}"
        " --near-copies {input.near_copies:q} --leaks {input.leaks:q} --out {output} --log {log}"


rule crate:
    input:
        "<results>/summary.csv",
        expand("<results>/{version}/release", version=VERSIONS),
    output:
        crate="<results>/ro-crate-metadata.json",
        workflow=directory("<results>/workflow"),
    log:
        "<results>/logs/crate.log",
    localrule: True
    conda:
        env_file("describe")
    resources:
        python=python["describe"],
    params:
        method=METHOD["crate"],
        config=lambda wildcards: pick(config),
    shell:
        "{resources.python:q} scripts/crate.py --results $(dirname {output.crate}) --records .snakemake/metadata"
        " --workflow . --config {params.config:q} --log {log}"


rule describe:
    input:
        rules.crate.output,
