# The demo's little world, model and teacher; not a part of the method. Used by config/demo.yaml alone.

if "demo" in config:

    # The teacher must know the right answers of this very world.
    if config["teacher"]["model"] != f"little-world-{config['demo']['seed']}":
        raise WorkflowError(f"teacher.model: must be little-world-{config['demo']['seed']}, after demo.seed.")

    rule demo_world:
        input:
            # The base model learns to rate from these, filled with samples of the world.
            prompts=RATING_PROMPTS,
        output:
            seed="<results>/world/seed.json",
            faults="<results>/world/faults.jsonl",
            heldout="<results>/world/heldout.jsonl",
            corpus="<results>/world/corpus.jsonl",
        log:
            "<results>/world/logs/demo_world.log",
        localrule: True
        conda:
            env_file("driver")
        resources:
            python=python["driver"],
        params:
            prompts=lambda wildcards: config["prompts"],
            seed=config["demo"]["seed"],
            rows=config["demo"]["rows"],
        shell:
            "{resources.python:q} scripts/demo/make_world.py --seed {params.seed} --rows {params.rows}"
            " --dataset {output.seed} --faults {output.faults} --heldout {output.heldout} --corpus {output.corpus}"
            " --prompts {input.prompts:q} --log {log}"

    rule demo_base_model:
        input:
            corpus=rules.demo_world.output.corpus,
        output:
            expand("<results>/world/base_model/{file}", file=DEMO_MODEL_FILES),
        log:
            "<results>/world/logs/demo_base_model.log",
        conda:
            env_file("train")
        threads: 2
        resources:
            python=python["train"],
        params:
            seed=config["demo"]["seed"],
            folder=lambda wildcards, output: os.path.dirname(output[0]),
        shell:
            "{resources.python:q} scripts/demo/train_base_model.py --corpus {input.corpus} --seed {params.seed}"
            " --out {params.folder} --log {log}"

    # No step reads this, as none reads the faults.
    rule demo_detection:
        input:
            faults=rules.demo_world.output.faults,
            seed="<results>/seed/dataset.jsonl",
            selection="<results>/{version}/selection.parquet",
        output:
            "<results>/{version}/detection.json",
        log:
            "<results>/{version}/logs/demo_detection.log",
        wildcard_constraints:
            version=MADE,
        localrule: True
        conda:
            env_file("driver")
        resources:
            python=python["driver"],
        shell:
            "{resources.python:q} scripts/demo/detection.py --faults {input.faults} --seed {input.seed}"
            " --selection {input.selection} --out {output} --log {log}"
