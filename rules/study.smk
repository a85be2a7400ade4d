# An experiment on the demo's world repeated in several worlds, with strategies to compare. Each world is an experiment of
# its own, run by a Snakemake of its own: the rules of an experiment know one config.

import json
import subprocess
import sys
from glob import glob
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from build_env import VENVS, is_built  # noqa: E402

STUDY = config["study"]
FIGURES = str(VENVS / "figures" / "bin" / "python")


pathvars:
    study=f"results/{STUDY['name']}",


rule study:
    input:
        expand("<study>/seed{seed}.json", seed=STUDY["seeds"]),
    output:
        runs="<study>/runs.csv",
        detection="<study>/detection.csv",
        table="<study>/table.md",
        accuracy="<study>/accuracy.png",
        lift="<study>/lift.png",
    log:
        "<study>/logs/study.log",
    localrule: True
    conda:
        "../envs/figures.yaml"
    resources:
        python=FIGURES,
    shell:
        "{resources.python:q} scripts/demo/study.py --seeds {input} --runs {output.runs}"
        " --detection {output.detection} --table {output.table} --accuracy {output.accuracy} --lift {output.lift}"
        " --log {log}"


rule study_seed:
    input:
        # Whatever a run may depend on: the Snakemake of the world knows which of its steps a change invalidates.
        base=STUDY["base"],
        code=["Snakefile", "config/config.yaml", *sorted(glob("config/prompts/*.md"))],
        rules=sorted(glob("rules/*.smk")),
        scripts=sorted(glob("scripts/**/*.py", recursive=True)),
    output:
        "<study>/seed{seed}.json",
    log:
        "<study>/logs/seed{seed}.log",
    localrule: True
    threads: workflow.cores
    resources:
        python=sys.executable,
    params:
        name=STUDY["name"],
        iterations=STUDY["iterations"],
        strategies=lambda wildcards: json.dumps(STUDY["strategies"]),
    shell:
        "{resources.python:q} scripts/demo/study_seed.py --base {input.base} --name {params.name} --seed {wildcards.seed}"
        " --iterations {params.iterations} --strategies {params.strategies:q} --cores {threads} --out {output} --log {log}"


onstart:
    builder = [sys.executable, f"{workflow.basedir}/scripts/build_env.py", "figures"]
    if not is_built("figures") and subprocess.run(builder).returncode:
        raise WorkflowError("The environment figures could not be built; see above.")
