# An experiment on the demo's world repeated in several worlds, with strategies to compare. Each world is an experiment of
# its own, run by a Snakemake of its own: the rules of an experiment know one config.

import json
import subprocess
import sys
from glob import glob
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from build_env import VENVS, is_built  # noqa: E402
from demo.study_config import check_study, experiment_of  # noqa: E402
from middo.config import check_config  # noqa: E402
from middo.files import sha256_file, sha256_json  # noqa: E402
from middo.program import UserError  # noqa: E402

STUDY = config["study"]
EXPERIMENT = {key: value for key, value in config.items() if key != "study"}
try:
    check_study(config)
    update_config(EXPERIMENT, experiment_of(STUDY, STUDY["seeds"][0]))
    check_config(EXPERIMENT)
except UserError as error:
    raise WorkflowError(str(error))

FIGURES = "python" if CONDA else str(VENVS / "figures" / "bin" / "python")

# Of all that a world's run may depend on: when it changes, the Snakemake of each world looks which steps it invalidates.
RUN_BY = [STUDY["base"], "Snakefile", "config/config.yaml", *glob(f"{EXPERIMENT['prompts']}/*.md")]
RUN_BY += [*glob("rules/*.smk"), *glob("scripts/**/*.py", recursive=True)]
CODE = sha256_json({path: sha256_file(Path(path)) for path in RUN_BY})


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
    output:
        "<study>/seed{seed}.json",
    log:
        "<study>/logs/seed{seed}.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: workflow.cores
    resources:
        # The interpreter that has Snakemake.
        python=sys.executable,
        conda="--conda" if CONDA else "",
    params:
        code=CODE,
        # Which worlds there are changes nothing in any of them.
        study=lambda wildcards: json.dumps({key: value for key, value in STUDY.items() if key != "seeds"}),
    shell:
        "{resources.python:q} scripts/demo/study_seed.py --study {params.study:q} --seed {wildcards.seed}"
        " --cores {threads} {resources.conda} --out {output} --log {log}"


onstart:
    builder = [sys.executable, f"{workflow.basedir}/scripts/build_env.py", "figures"]
    if not CONDA and not is_built("figures") and subprocess.run(builder).returncode:
        raise WorkflowError("The environment figures could not be built; see above.")
