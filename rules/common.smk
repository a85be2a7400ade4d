# Config check, names of versions, environments: the only rules file with functions.

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from build_env import VENVS, is_built  # noqa: E402
from middo.config import check_config  # noqa: E402
from middo.program import UserError  # noqa: E402

try:
    check_config(config)
except UserError as error:
    raise WorkflowError(str(error))


pathvars:
    results=f"results/{config['experiment']}",
    prompts=config["prompts"],


MADE = r"[a-z0-9][a-z0-9_-]*/iter[0-9]+"


wildcard_constraints:
    version=f"seed|{MADE}",


# Raise a step's number when its meaning changes: only then do results that exist already become invalid.
# Edits of a script that leave its meaning alone rerun nothing.
METHOD = dict(
    import_seed=1,
    finetune=1,
    losses=1,
    neighbors=1,
    scores=1,
    select_rows=1,
    refine=1,
    assemble=1,
    evaluate=1,
    summary=1,
)

device = config["execution"]["device"]
GPU = int(device == "cuda")

# Environments by kind of work; vLLM's pins differ on a CPU.
ENVS = dict(
    driver="driver",
    train="train",
    neighbors="neighbors",
    score="score" if device == "cuda" else "score-cpu",
    refine="refine",
    evaluate="evaluate",
)
CONDA = "conda" in str(workflow.deployment_settings.deployment_method).lower()
# Interpreters by kind of work. The shell commands name them as {python[train]}, so the commands' text, which is what
# Snakemake compares, is the same whether conda or .venvs/ provides them.
python = {
    kind: "python" if CONDA else sys.executable if kind == "driver" else str(VENVS / name / "bin" / "python")
    for kind, name in ENVS.items()
}


def env_file(kind):
    """The conda environment of a kind of work, as a path from rules/."""
    return f"../envs/{ENVS[kind]}.yaml"


def predecessor(version):
    """The version that `version` is made from: `seed` before `<strategy>/iter1`, else the iteration before."""
    strategy, iteration = version.split("/iter")
    return "seed" if iteration == "1" else f"{strategy}/iter{int(iteration) - 1}"


def of_predecessor(file):
    """An input function: `file` in the folder of the predecessor."""
    return lambda wildcards: f"results/{config['experiment']}/{predecessor(wildcards.version)}/{file}"


def signal(axis, file):
    """An input function: a signal's `file` of the predecessor, nothing where the strategy leaves the axis out."""
    return lambda wildcards: of_predecessor(file)(wildcards) if axis in strategy(wildcards)["axes"] else []


def iteration(wildcards):
    """The number of a version's iteration; 0 for the seed."""
    return 0 if wildcards.version == "seed" else int(wildcards.version.split("/iter")[1])


def strategy(wildcards):
    """The settings of the strategy that a version belongs to."""
    name = wildcards.version.split("/")[0]
    return next(strategy for strategy in config["strategies"] if strategy["name"] == name)


def versions():
    """All versions of the experiment, the seed first."""
    made = [f"{s['name']}/iter{t}" for s in config["strategies"] for t in range(1, config["iterations"] + 1)]
    return ["seed", *made]


def pick(section, *keys):
    """A section of the config as JSON, or only some of its keys. In params behind a lambda: JSON has braces."""
    return json.dumps({key: section[key] for key in keys or section if key in section}, sort_keys=True)


def model_files(folder):
    """The files of a local model that programs read; empty for a model on the hub."""
    if "demo" in config and folder == DEMO_MODEL:
        return [f"{folder}/{name}" for name in DEMO_MODEL_FILES]
    return sorted(str(p) for p in Path(folder).glob("*") if p.suffix in {".json", ".safetensors", ".model", ".jinja"})


DEMO_MODEL = f"results/{config['experiment']}/world/base_model"
DEMO_MODEL_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


onstart:
    if not CONDA:
        missing = [name for kind, name in ENVS.items() if kind != "driver" and not is_built(name)]
        if missing:
            subprocess.run([sys.executable, f"{workflow.basedir}/scripts/build_env.py", *missing], check=True)
