# The next version: select by the predecessor's signals, let the teacher rewrite, put it together.

from middo.benchmark_texts import question_files

TEACHER_PROMPTS = ["simplify", "improve", "extend", "answer"]
# The lists of new rows that are left out of a version.
ON_HIT = dict(near_copies="on_near_copy", leaks="on_leak")
DROPPED_BY = [f"{name}.jsonl" for name, key in ON_HIT.items() if config["new_rows"][key] == "drop"]


rule select_rows:
    input:
        dataset=of_predecessor("dataset.jsonl"),
        losses=selecting("complexity", "losses.parquet"),
        neighbors=selecting("diversity", "neighbors.parquet"),
        scores=selecting("quality", "scores.parquet"),
        like=selection_like,
        # Where m is `auto`, iteration 1 chooses it for all.
        first=branch(
            lambda wildcards: iteration(wildcards) > 1,
            then=of_first("selection.json"),
        ),
    output:
        selection="<results>/{version}/selection.parquet",
        report="<results>/{version}/selection.json",
    log:
        "<results>/{version}/logs/select_rows.log",
    wildcard_constraints:
        version=MADE,
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        method=METHOD["select_rows"],
        axes=lambda wildcards: strategy(wildcards)["axes"],
        draw=lambda wildcards: f"{config['seed']} {wildcards.version}",
        # One param: Snakemake compares the values of all as a set, so that two could trade places unseen.
        thresholds=" ".join(f"--{axis} {config[axis]['m']}" for axis in ("complexity", "diversity", "quality")),
    shell:
        "{resources.python:q} scripts/select_rows.py --dataset {input.dataset} --losses {input.losses:q}"
        " --neighbors {input.neighbors:q} --scores {input.scores:q} --axes {params.axes} {params.thresholds}"
        " --first {input.first:q} --like {input.like:q} --draw {params.draw:q}"
        " --selection {output.selection} --report {output.report} --log {log}"


rule refine:
    input:
        dataset=of_predecessor("dataset.jsonl"),
        selection="<results>/{version}/selection.parquet",
        neighbors=signal("diversity", "neighbors.parquet"),
        prompts=expand("<prompts>/{step}.md", step=TEACHER_PROMPTS),
    output:
        refined="<results>/{version}/refined.jsonl",
        rejected="<results>/{version}/rejected.jsonl",
        report="<results>/{version}/refine.json",
    log:
        "<results>/{version}/logs/refine.log",
    wildcard_constraints:
        version=MADE,
    conda:
        env_file("refine")
    resources:
        python=python["refine"],
        access=TEACHER_ACCESS,
    params:
        method=METHOD["refine"],
        prompts=texts(TEACHER_PROMPTS),
        overlap=config["overlap"],
        teacher=lambda wildcards: pick(config["teacher"], *TEACHER_IDENTITY),
        iteration=iteration,
        # Answers outlive the results that they were asked for, and serve every experiment.
        answers=lambda wildcards: f"results/teacher_answers/{config['experiment']}/{wildcards.version}.jsonl",
    shell:
        "{resources.python:q} scripts/refine.py --dataset {input.dataset} --selection {input.selection}"
        " --neighbors {input.neighbors:q} --prompts {input.prompts:q} --overlap {params.overlap}"
        " --teacher {params.teacher:q} --iteration {params.iteration} --answers {params.answers}"
        " --answers-root results/teacher_answers"
        " --refined {output.refined} --rejected {output.rejected} --report {output.report}"
        " --access {resources.access:q} --log {log}"


rule near_copies:
    input:
        refined="<results>/{version}/refined.jsonl",
        earlier=of_earlier("dataset.jsonl"),
    output:
        "<results>/{version}/near_copies.jsonl",
    log:
        "<results>/{version}/logs/near_copies.log",
    wildcard_constraints:
        version=MADE,
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        method=METHOD["near_copies"],
    shell:
        "{resources.python:q} scripts/near_copies.py --refined {input.refined} --earlier {input.earlier}"
        " --out {output} --log {log}"


rule leaks:
    input:
        refined="<results>/{version}/refined.jsonl",
        questions=question_files(config["evaluation"]),
    output:
        "<results>/{version}/leaks.jsonl",
    log:
        "<results>/{version}/logs/leaks.log",
    wildcard_constraints:
        version=MADE,
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
    params:
        method=METHOD["leaks"],
        evaluation=lambda wildcards: pick(config["evaluation"], "benchmarks", "custom", "data"),
    shell:
        "{resources.python:q} scripts/leaks.py --refined {input.refined} --evaluation {params.evaluation:q}"
        " --out {output} --log {log}"


rule assemble:
    input:
        # Nothing where hits are only listed: then no dataset depends on what evaluation asks.
        drop=[f"<results>/{{version}}/{file}" for file in DROPPED_BY],
        dataset=of_predecessor("dataset.jsonl"),
        selection="<results>/{version}/selection.parquet",
        selected="<results>/{version}/selection.json",
        refined="<results>/{version}/refined.jsonl",
        rejected="<results>/{version}/rejected.jsonl",
        refine="<results>/{version}/refine.json",
        # What only the manifest tells. Nothing here changes without the steps before this one running again.
        manifest=of_predecessor("manifest.json"),
        checkpoint=of_predecessor("checkpoint.sha256"),
        base_model=rules.hash_base_model.output,
        prompts=prompts_in_use,
    output:
        dataset="<results>/{version}/dataset.jsonl",
        manifest="<results>/{version}/manifest.json",
    log:
        "<results>/{version}/logs/assemble.log",
    wildcard_constraints:
        version=MADE,
    localrule: True
    conda:
        env_file("driver")
    resources:
        python=python["driver"],
        environments=environments_in_use,
        rest=REST,
    params:
        method=METHOD["assemble"],
        overlap=config["overlap"],
        iteration=iteration,
        settings=identity,
    shell:
        "{resources.python:q} scripts/assemble.py --predecessor {input.dataset} --drop {input.drop}"
        " --selection {input.selection} --selection-report {input.selected} --refined {input.refined}"
        " --rejected {input.rejected} --refine-report {input.refine} --overlap {params.overlap}"
        " --iteration {params.iteration} --predecessor-manifest {input.manifest} --checkpoint-sha256 {input.checkpoint}"
        " --base-model-sha256 {input.base_model} --prompts {input.prompts:q} --environments {resources.environments}"
        " --settings {params.settings:q} --rest {resources.rest:q}"
        " --dataset {output.dataset} --manifest {output.manifest} --log {log}"
