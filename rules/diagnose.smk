# The three signals of a version under its own model: losses, neighbourhoods, self-ratings.


rule base_losses:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        base_model=model_files(config["base_model"]["path"]),
        # The base model never changes: rows that the predecessor has measured are taken from there.
        known=branch(lambda wildcards: wildcards.version != "seed", then=of_predecessor("base_losses.parquet")),
    output:
        "<results>/{version}/base_losses.parquet",
    log:
        "<results>/{version}/logs/base_losses.log",
    params:
        method=METHOD["losses"],
        base_model=config["base_model"]["path"],
        revision=config["base_model"]["revision"] or "main",
        training=lambda wildcards: pick(config["training"], "template", "cutoff_len"),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        env_file("train")
    shell:
        "{python[train]} scripts/base_losses.py --dataset {input.dataset} --base-model {params.base_model}"
        " --revision {params.revision} --training {params.training:q} --known {input.known:q} --out {output}"
        " --device {device} --token-budget {config[execution][token_budget]} --log {log}"


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
    params:
        method=METHOD["losses"],
        training=lambda wildcards: pick(config["training"], "template", "cutoff_len"),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        env_file("train")
    shell:
        "{python[train]} scripts/losses.py --dataset {input.dataset} --checkpoint {input.checkpoint}"
        " --training {params.training:q} --base-losses {input.base_losses} --losses {output.losses}"
        " --embeddings {output.embeddings} --device {device} --token-budget {config[execution][token_budget]}"
        " --log {log}"


rule neighbors:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        embeddings="<results>/{version}/embeddings.npy",
    output:
        "<results>/{version}/neighbors.parquet",
    log:
        "<results>/{version}/logs/neighbors.log",
    params:
        method=METHOD["neighbors"],
        k=config["diversity"]["k"],
    threads: 1
    resources:
        gpu=GPU,
    conda:
        env_file("neighbors")
    shell:
        "{python[neighbors]} scripts/neighbors.py --dataset {input.dataset} --embeddings {input.embeddings}"
        " --k {params.k} --out {output} --device {device} --log {log}"


rule scores:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        checkpoint=ancient("<results>/{version}/checkpoint"),
        sha256="<results>/{version}/checkpoint.sha256",
        prompts=expand(
            "<prompts>/{aspect}_{part}.md",
            aspect=["clarity", "completeness", "factuality"],
            part=["instruction", "response"],
        ),
    output:
        "<results>/{version}/scores.parquet",
    log:
        "<results>/{version}/logs/scores.log",
    params:
        method=METHOD["scores"],
        reading=config["quality"]["reading"],
    threads: 1
    resources:
        gpu=GPU,
    conda:
        env_file("score")
    shell:
        "{python[score]} scripts/scores.py --dataset {input.dataset} --checkpoint {input.checkpoint}"
        " --prompts {input.prompts} --reading {params.reading} --out {output} --device {device}"
        " --max-num-seqs {config[execution][max_num_seqs]} --log {log}"
