# A version's model: always the base model, tuned on that version's dataset.

# What the Slurm executor wants to know of a job that calls srun itself; for one that does not it must not be there.
# Without tasks_per_gpu it would ask for `tasks` tasks on each GPU.
STEP_OVER_NODES = dict(nodes=NODES, tasks=NODES, tasks_per_gpu=0, mpi="srun") if NODES > 1 else {}


rule finetune:
    input:
        dataset="<results>/{version}/dataset.jsonl",
        base_model=MODEL_FILES,
        deepspeed=config["training"].get("deepspeed") or [],
    output:
        checkpoint=directory("<results>/{version}/checkpoint"),
        # What the steps that use the checkpoint depend on: its content, not its time.
        sha256="<results>/{version}/checkpoint.sha256",
        report="<results>/{version}/finetune.json",
        dropped="<results>/{version}/dropped.jsonl",
    log:
        "<results>/{version}/logs/finetune.log",
    conda:
        env_file("train")
    threads: 2
    resources:
        **STEP_OVER_NODES,
        python=python["train"],
        device=DEVICE,
        save_steps=config["execution"]["save_steps"],
        processes=config["execution"]["processes"],
        train_nodes=NODES,
        gpu=GPUS,
    params:
        method=METHOD["finetune"],
        files=MODEL_NAMES,
        base_model=lambda wildcards: config["base_model"]["path"],
        revision=REVISION,
        training=lambda wildcards: pick(config["training"]),
        seed=config["seed"],
        on_unencodable=config["dataset"]["on_unencodable"],
    shell:
        "exec {resources.python:q} scripts/finetune.py --dataset {input.dataset} --base-model {params.base_model:q}"
        " --revision {params.revision} --training {params.training:q} --seed {params.seed}"
        " --on-unencodable {params.on_unencodable} --checkpoint {output.checkpoint} --sha256 {output.sha256}"
        " --report {output.report} --dropped {output.dropped} --device {resources.device}"
        " --processes {resources.processes} --nodes {resources.train_nodes} --save-steps {resources.save_steps} --log {log}"
