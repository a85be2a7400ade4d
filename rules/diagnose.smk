# The three signals of a version under its own model: losses, neighbourhoods, self-ratings.

from middo.llamafactory import ENCODING_OPTIONS


rule base_losses:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        base_model=model_files(config["base_model"]["path"]),
        # The base model never changes: rows that the predecessor has measured are taken from there.
        known=branch(
            lambda wildcards: wildcards.version != "seed",
            then=of_predecessor("base_losses.parquet"),
        ),
    output:
        "<results>/{version}/base_losses.parquet",
    log:
        "<results>/{version}/logs/base_losses.log",
    conda:
        env_file("train")
    threads: 1
    resources:
        python=python["train"],
        device=DEVICE,
        token_budget=config["execution"]["token_budget"],
        gpu=ONE_GPU,
    params:
        method=METHOD["losses"],
        base_model=lambda wildcards: config["base_model"]["path"],
        revision=REVISION,
        training=lambda wildcards: pick(config["training"], *ENCODING_OPTIONS),
    shell:
        "{resources.python:q} scripts/base_losses.py --dataset {input.dataset} --base-model {params.base_model:q}"
        " --revision {params.revision} --training {params.training:q} --known {input.known:q} --out {output}"
        " --device {resources.device} --token-budget {resources.token_budget} --log {log}"


rule losses:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        base_losses="<results>/{version}/base_losses.parquet",
        checkpoint=ancient("<results>/{version}/checkpoint"),
        sha256="<results>/{version}/checkpoint.sha256",
    output:
        losses="<results>/{version}/losses.parquet",
        embeddings="<results>/{version}/embeddings.npy",
    log:
        "<results>/{version}/logs/losses.log",
    conda:
        env_file("train")
    threads: 1
    resources:
        python=python["train"],
        device=DEVICE,
        token_budget=config["execution"]["token_budget"],
        gpu=ONE_GPU,
    params:
        method=METHOD["losses"],
        training=lambda wildcards: pick(config["training"], *ENCODING_OPTIONS),
    shell:
        "{resources.python:q} scripts/losses.py --dataset {input.dataset} --checkpoint {input.checkpoint}"
        " --training {params.training:q} --base-losses {input.base_losses} --losses {output.losses}"
        " --embeddings {output.embeddings} --device {resources.device} --token-budget {resources.token_budget}"
        " --log {log}"


rule neighbors:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        embeddings="<results>/{version}/embeddings.npy",
    output:
        "<results>/{version}/neighbors.parquet",
    log:
        "<results>/{version}/logs/neighbors.log",
    conda:
        env_file("neighbors")
    threads: 1
    resources:
        python=python["neighbors"],
        device=DEVICE,
        gpu=ONE_GPU,
    params:
        method=METHOD["neighbors"],
        k=config["diversity"]["k"],
    shell:
        "{resources.python:q} scripts/neighbors.py --dataset {input.dataset} --embeddings {input.embeddings}"
        " --k {params.k} --out {output} --device {resources.device} --log {log}"


rule scores:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        checkpoint=ancient("<results>/{version}/checkpoint"),
        sha256="<results>/{version}/checkpoint.sha256",
        prompts=RATING_PROMPTS,
    output:
        "<results>/{version}/scores.parquet",
    log:
        "<results>/{version}/logs/scores.log",
    conda:
        env_file("score")
    threads: 1
    resources:
        python=python["score"],
        device=DEVICE,
        max_num_seqs=config["execution"]["max_num_seqs"],
        gpu=ONE_GPU,
    params:
        method=METHOD["scores"],
        reading=config["quality"]["reading"],
    shell:
        "{resources.python:q} scripts/scores.py --dataset {input.dataset} --checkpoint {input.checkpoint}"
        " --sha256 {input.sha256} --prompts {input.prompts:q} --reading {params.reading} --out {output}"
        " --device {resources.device} --max-num-seqs {resources.max_num_seqs} --log {log}"
