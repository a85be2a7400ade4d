# The three signals of a version under its own model: losses, neighbourhoods, self-ratings.

from middo.llamafactory import ENCODING_OPTIONS

# The base model never changes: rows that the predecessor has measured are taken from there.
known_base_losses = branch(
    lambda wildcards: wildcards.version != "seed",
    then=of_predecessor("base_losses.parquet"),
)


# What gives the measurements their meaning. The shards have it, and the rules that gather them too: nothing is recorded
# of shards that there were never so many of, so that a change of both would go unseen.
BASE_LOSSES = dict(
    method=METHOD["losses"],
    files=MODEL_NAMES,
    base_model=lambda wildcards: config["base_model"]["path"],
    revision=REVISION,
    training=lambda wildcards: pick(config["training"], *ENCODING_OPTIONS),
)
LOSSES = dict(
    method=METHOD["losses"],
    training=lambda wildcards: pick(config["training"], *ENCODING_OPTIONS),
)
SCORES = dict(
    method=METHOD["scores"],
    prompts=texts(RATINGS),
    reading=config["quality"]["reading"],
)


BASE_LOSSES_SHARD = shard("base_losses", BASE_LOSSES)
LOSSES_SHARD = shard("losses", LOSSES)
SCORES_SHARD = shard("scores", SCORES)


# Every step that measures rows does so in shards; execution.shards of them.
scattergather:
    shards=config["execution"]["shards"],


rule base_losses_shard:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        base_model=MODEL_FILES,
        known=known_base_losses,
    output:
        temp(BASE_LOSSES_SHARD),
    log:
        "<results>/{version}/logs/base_losses_{scatteritem}.log",
    conda:
        env_file("train")
    threads: 1
    resources:
        python=python["train"],
        device=DEVICE,
        token_budget=config["execution"]["token_budget"],
        gpu=one_gpu,
    params:
        **BASE_LOSSES,
    shell:
        "{resources.python:q} scripts/base_losses_shard.py --dataset {input.dataset} --base-model {params.base_model:q}"
        " --revision {params.revision} --training {params.training:q} --known {input.known:q}"
        " --shard {wildcards.scatteritem} --out {output} --device {resources.device}"
        " --token-budget {resources.token_budget} --log {log}"


rule base_losses:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        known=known_base_losses,
        shards=gather.shards(BASE_LOSSES_SHARD.replace("{version}", "{{version}}")),
    output:
        "<results>/{version}/base_losses.parquet",
    log:
        "<results>/{version}/logs/base_losses.log",
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        **BASE_LOSSES,
    shell:
        "{resources.python:q} scripts/base_losses.py --dataset {input.dataset} --known {input.known:q}"
        " --shards {input.shards} --out {output} --log {log}"


rule losses_shard:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        checkpoint=ancient("<results>/{version}/checkpoint"),
        sha256="<results>/{version}/checkpoint.sha256",
    output:
        temp(LOSSES_SHARD),
    log:
        "<results>/{version}/logs/losses_{scatteritem}.log",
    conda:
        env_file("train")
    threads: 1
    resources:
        python=python["train"],
        device=DEVICE,
        token_budget=config["execution"]["token_budget"],
        gpu=one_gpu,
    params:
        **LOSSES,
    shell:
        "{resources.python:q} scripts/losses_shard.py --dataset {input.dataset} --checkpoint {input.checkpoint}"
        " --training {params.training:q} --shard {wildcards.scatteritem} --out {output} --device {resources.device}"
        " --token-budget {resources.token_budget} --log {log}"


rule losses:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        base_losses="<results>/{version}/base_losses.parquet",
        shards=gather.shards(LOSSES_SHARD.replace("{version}", "{{version}}")),
    output:
        losses="<results>/{version}/losses.parquet",
        embeddings="<results>/{version}/embeddings.npy",
    log:
        "<results>/{version}/logs/losses.log",
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        **LOSSES,
    shell:
        "{resources.python:q} scripts/losses.py --dataset {input.dataset} --base-losses {input.base_losses}"
        " --shards {input.shards} --losses {output.losses} --embeddings {output.embeddings} --log {log}"


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
        gpu=one_gpu,
    params:
        method=METHOD["neighbors"],
        k=config["diversity"]["k"],
    shell:
        "{resources.python:q} scripts/neighbors.py --dataset {input.dataset} --embeddings {input.embeddings}"
        " --k {params.k} --out {output} --device {resources.device} --log {log}"


rule scores_shard:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        checkpoint=ancient("<results>/{version}/checkpoint"),
        sha256="<results>/{version}/checkpoint.sha256",
        prompts=ancient(RATING_PROMPTS),
    output:
        temp(SCORES_SHARD),
    log:
        "<results>/{version}/logs/scores_{scatteritem}.log",
    conda:
        env_file("score")
    threads: 1
    resources:
        python=python["score"],
        device=DEVICE,
        max_num_seqs=config["execution"]["max_num_seqs"],
        gpu=one_gpu,
    params:
        **SCORES,
    shell:
        "{resources.python:q} scripts/scores_shard.py --dataset {input.dataset} --checkpoint {input.checkpoint}"
        " --sha256 {input.sha256} --prompts {input.prompts:q} --reading {params.reading}"
        " --shard {wildcards.scatteritem} --out {output} --device {resources.device}"
        " --max-num-seqs {resources.max_num_seqs} --log {log}"


rule scores:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        shards=gather.shards(SCORES_SHARD.replace("{version}", "{{version}}")),
    output:
        "<results>/{version}/scores.parquet",
    log:
        "<results>/{version}/logs/scores.log",
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        **SCORES,
    shell:
        "{resources.python:q} scripts/scores.py --dataset {input.dataset} --shards {input.shards} --out {output}"
        " --log {log}"
