# The next version: select by the predecessor's signals, let the teacher rewrite, put it together.


rule select_rows:
    input:
        dataset=of_predecessor("dataset.jsonl"),
        losses=signal("complexity", "losses.parquet"),
        neighbors=signal("diversity", "neighbors.parquet"),
        scores=signal("quality", "scores.parquet"),
        # Where m is `auto`, iteration 1 chooses it for all.
        first=branch(
            lambda wildcards: iteration(wildcards) > 1,
            then=lambda wildcards: f"results/{config['experiment']}/{strategy(wildcards)['name']}/iter1/selection.json",
        ),
    output:
        selection="<results>/{version}/selection.parquet",
        report="<results>/{version}/selection.json",
    log:
        "<results>/{version}/logs/select_rows.log",
    wildcard_constraints:
        version=MADE,
    params:
        method=METHOD["select_rows"],
        axes=lambda wildcards: strategy(wildcards)["axes"],
        complexity=config["complexity"]["m"],
        diversity=config["diversity"]["m"],
        quality=config["quality"]["m"],
    conda:
        env_file("driver")
    shell:
        "{python[driver]} scripts/select_rows.py --dataset {input.dataset} --losses {input.losses:q}"
        " --neighbors {input.neighbors:q} --scores {input.scores:q} --axes {params.axes} --complexity {params.complexity}"
        " --diversity {params.diversity} --quality {params.quality} --first {input.first:q}"
        " --selection {output.selection} --report {output.report} --log {log}"


rule refine:
    input:
        dataset=of_predecessor("dataset.jsonl"),
        selection="<results>/{version}/selection.parquet",
        neighbors=of_predecessor("neighbors.parquet"),
        prompts=expand("<prompts>/{step}.md", step=["simplify", "improve", "extend", "answer"]),
    output:
        refined="<results>/{version}/refined.jsonl",
        rejected="<results>/{version}/rejected.jsonl",
        report="<results>/{version}/refine.json",
    log:
        "<results>/{version}/logs/refine.log",
    wildcard_constraints:
        version=MADE,
    params:
        method=METHOD["refine"],
        overlap=config["overlap"],
        teacher=lambda wildcards: pick(config["teacher"], "model", "base_url", "temperature", "top_p", "max_tokens", "attempts"),
        iteration=iteration,
        # Answers outlive the results that they were asked for, and serve every experiment.
        answers=lambda wildcards: f"results/teacher_answers/{config['experiment']}/{wildcards.version}.jsonl",
    conda:
        env_file("refine")
    shell:
        "{python[refine]} scripts/refine.py --dataset {input.dataset} --selection {input.selection}"
        " --neighbors {input.neighbors} --prompts {input.prompts} --overlap {params.overlap}"
        " --teacher {params.teacher:q} --iteration {params.iteration} --answers {params.answers}"
        " --refined {output.refined} --rejected {output.rejected} --report {output.report}"
        " --access {teacher_access:q} --log {log}"


# How the teacher is reached, which changes none of its answers.
teacher_access = pick(config["teacher"], "api_key_env", "max_concurrency", "timeout", "max_retries", "command")


rule assemble:
    input:
        dataset=of_predecessor("dataset.jsonl"),
        selection="<results>/{version}/selection.parquet",
        selected="<results>/{version}/selection.json",
        refined="<results>/{version}/refined.jsonl",
        rejected="<results>/{version}/rejected.jsonl",
        refine="<results>/{version}/refine.json",
    output:
        dataset="<results>/{version}/dataset.jsonl",
        manifest="<results>/{version}/manifest.json",
    log:
        "<results>/{version}/logs/assemble.log",
    wildcard_constraints:
        version=MADE,
    params:
        method=METHOD["assemble"],
        overlap=config["overlap"],
        iteration=iteration,
    conda:
        env_file("driver")
    shell:
        "{python[driver]} scripts/assemble.py --predecessor {input.dataset}"
        " --selection {input.selection} --selection-report {input.selected} --refined {input.refined}"
        " --rejected {input.rejected} --refine-report {input.refine} --overlap {params.overlap}"
        " --iteration {params.iteration} --dataset {output.dataset} --manifest {output.manifest} --log {log}"
