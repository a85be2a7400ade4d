# Config check, names of versions, environments, what is identity: the only rules file with functions.

import json
import os
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from build_env import VENVS, is_built  # noqa: E402
from middo.benchmarks import check_data, check_sentences, data_files  # noqa: E402
from middo.config import check_config  # noqa: E402
from middo.files import sha256_json  # noqa: E402
from middo.hub import check_model, commit, megabytes, model_folder  # noqa: E402
from middo.method import METHOD  # noqa: E402
from middo.program import UserError  # noqa: E402
from middo.ratings import RATINGS  # noqa: E402
from middo.slurm import cancel_left_behind, check_memory_of_jobs, comment, run_name  # noqa: E402
from middo.work import forget_finished  # noqa: E402
from middo.versions import all_versions, iteration_of, predecessor, strategy_of, version_name  # noqa: E402

try:
    check_config(config)
except UserError as error:
    raise WorkflowError(str(error))


pathvars:
    results=f"results/{config['experiment']}",
    prompts=config["prompts"],


RESULTS = f"results/{config['experiment']}"
MADE = r"[a-z0-9][a-z0-9_-]*/iter[0-9]+"


wildcard_constraints:
    version=f"seed|{MADE}",


VERSIONS = all_versions([strategy["name"] for strategy in config["strategies"]], config["iterations"])
RATING_PROMPTS = [f"<prompts>/{rating}.md" for rating in RATINGS]
DEMO_MODEL = f"{RESULTS}/world/base_model"
# All that lies there, as model_files would list it.
DEMO_MODEL_FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
]

# The commit that was fetched, for a model of the hub: a branch moves.
REVISION = commit(config["base_model"]["path"], config["base_model"]["revision"])

DEVICE = config["execution"]["device"]
NODES = config["execution"]["nodes"]
GPUS = config["execution"]["processes"] * NODES if DEVICE == "cuda" else 0
# What slurm/config.yaml reckons the memory of jobs from.
os.environ.update(
    MODEL_MB=str(megabytes(model_folder(config["base_model"]["path"], config["base_model"]["revision"]))),
    PROCESSES=str(config["execution"]["processes"]),
)

# Environments by kind of work; vLLM's pins differ on a CPU.
ENVS = dict(
    driver="driver",
    train="train",
    neighbors="neighbors",
    score="score" if DEVICE == "cuda" else "score-cpu",
    refine="refine",
    evaluate="evaluate",
    describe="describe",
)
# What these rules need; all others need what the loop needs.
NEEDS = {"audit": [], "release": ["describe"], "crate": ["describe"], "describe": []}
LOOP = [name for kind, name in ENVS.items() if kind not in ("driver", "describe")]
# Interpreters by kind of work. Rules take them, like every setting of how a step runs, as resources: Snakemake compares
# the shell command's text and the params, never the resources, so that changing them reruns nothing.
if CONDA:
    python = dict.fromkeys(ENVS, "python")
else:
    python = {kind: str(VENVS / name / "bin" / "python") for kind, name in ENVS.items()} | {"driver": sys.executable}


def env_file(kind):
    """The conda environment of a kind of work, as a path from rules/."""
    return f"../envs/{ENVS[kind]}.yaml"


def one_gpu(wildcards):
    """GPUs of a step that uses one.

    A cluster gives each job GPUs of its own. On one machine every job sees all of them, so each step takes all: two that
    run at once would fill the same one. How jobs are run is not known before the rules are read, so this is a function.
    """
    return GPUS if workflow.local_exec else min(GPUS, 1)


def server_python(wildcards):
    """The interpreter of the environment `score`, from which the rule `evaluate`, in another one, starts a vLLM server.

    With conda, `python` is the interpreter of a rule's own environment; that of the rule `scores` lies where Snakemake
    puts it. Known only once Snakemake has set itself up, so this is an input function.
    """
    if not CONDA:
        return python["score"]
    environment = workflow.get_rule("scores_shard").expand_conda_env(wildcards).get_conda_env(workflow)
    return f"{environment.address}/bin/python"


def of_predecessor(file):
    """An input function: `file` in the folder of the predecessor."""
    return lambda wildcards: f"{RESULTS}/{predecessor(wildcards.version)}/{file}"


def of_first(file):
    """An input function: `file` in the folder of the strategy's first iteration."""
    return lambda wildcards: f"{RESULTS}/{version_name(strategy_of(wildcards.version), 1)}/{file}"


def of_earlier(file):
    """An input function: `file` in the folders of all versions before, the seed first."""
    return lambda wildcards: [
        f"{RESULTS}/{version_name(strategy_of(wildcards.version), number)}/{file}"
        for number in range(iteration(wildcards))
    ]


def signal(axis, file):
    """An input function: a signal's `file` of the predecessor, nothing where the strategy leaves the axis out."""
    return lambda wildcards: of_predecessor(file)(wildcards) if axis in strategy(wildcards)["axes"] else []


def selecting(axis, file):
    """As `signal`, but nothing where the strategy selects by no signal at all."""
    return lambda wildcards: [] if "like" in strategy(wildcards) else signal(axis, file)(wildcards)


def selection_like(wildcards):
    """An input function: what the strategy selected in this iteration whose numbers are drawn; mostly nothing."""
    like = strategy(wildcards).get("like")
    return f"{RESULTS}/{version_name(like, iteration(wildcards))}/selection.json" if like else []


def iteration(wildcards):
    """The number of a version's iteration."""
    return iteration_of(wildcards.version)


def strategy(wildcards):
    """The settings of the strategy that a version belongs to."""
    return strategy_called(strategy_of(wildcards.version))


def strategy_called(name):
    """The settings of the strategy with this name."""
    return next(strategy for strategy in config["strategies"] if strategy["name"] == name)


def model_files(folder):
    """The files of a local model that programs read; empty for a model on the hub."""
    if "demo" in config and folder == DEMO_MODEL:
        return [f"{folder}/{name}" for name in DEMO_MODEL_FILES]
    return sorted(str(p) for p in Path(folder).glob("*") if p.suffix in {".json", ".safetensors", ".model", ".jinja"})


MODEL_FILES = model_files(config["base_model"]["path"])
MODEL_NAMES = [os.path.basename(file) for file in MODEL_FILES]


def pick(section, *keys):
    """A section of the config as JSON, or only some of its keys. In params behind a lambda: JSON has braces."""
    return json.dumps({key: section[key] for key in keys or section if key in section}, sort_keys=True)


def texts(names):
    """A hash of the prompts' texts: a change is seen whatever the files' times are, another folder alone is none."""
    files = [Path(config["prompts"], f"{name}.md") for name in names]
    return sha256_json([file.read_text() if file.is_file() else None for file in files])


def shard(name, identity):
    """A shard's file. Its name tells settings apart, so that nothing recorded of other ones is held against it."""
    values = {key: value(None) if callable(value) else value for key, value in identity.items()}
    return f"<results>/{{version}}/shards/{name}_{sha256_json(values)[:8]}_{{scatteritem}}.parquet"


# What is asked of the teacher; and how it is reached, which changes none of its answers.
TEACHER_IDENTITY = ["model", "base_url", "temperature", "top_p", "max_tokens", "attempts"]
TEACHER_ACCESS = pick(config["teacher"], *sorted(config["teacher"].keys() - TEACHER_IDENTITY))
# The rest of the config, which is no identity: for the manifest, that a version can be made again.
REST = json.dumps(
    {"teacher": json.loads(TEACHER_ACCESS)} | json.loads(pick(config, "evaluation", "execution", "demo", "licenses"))
)


def identity(wildcards):
    """The settings that gave a made version its content, as JSON for its manifest."""
    steps = ("finetune", "losses", "neighbors", "scores", "select_rows", "refine", "assemble")
    settings = {
        **{key: config[key] for key in ("dataset", "training", "seed", "overlap")},
        "base_model": {"path": config["base_model"]["path"], "revision": REVISION},
        "strategy": strategy(wildcards),
        "like": strategy_called(strategy(wildcards)["like"]) if "like" in strategy(wildcards) else None,
        **{axis: config[axis] for axis in strategy(wildcards)["axes"]},
        "teacher": {key: config["teacher"][key] for key in TEACHER_IDENTITY},
        "new_rows": config["new_rows"],
        "method": {step: METHOD[step] for step in steps},
    }
    return json.dumps(settings, sort_keys=True)


def prompts_in_use(wildcards):
    """The prompt files that shape a made version: the teacher's, and those of the ratings where it selects by them."""
    names = ["simplify", "improve", "extend", "answer"]
    names += RATINGS if "quality" in strategy(wildcards)["axes"] else []
    return [f"{config['prompts']}/{name}.md" for name in names]


def environments_in_use(wildcards):
    """The environments of all steps that shape a made version."""
    of_axis = {"diversity": "neighbors", "quality": "score"}
    kinds = ["driver", "train", *(of_axis[axis] for axis in strategy(wildcards)["axes"] if axis in of_axis), "refine"]
    return " ".join(ENVS[kind] for kind in kinds)


def prepare_slurm():
    """Cancel what a killed run has left in the queue, and name the jobs so that a next run can find them."""
    # The lock that Snakemake holds by now says that nobody else makes these files.
    needed = {comment(job.rule.name, job.wildcards) for job in workflow.dag.needrun_jobs()}
    check_memory_of_jobs()
    cancel_left_behind(config["experiment"], Path.cwd(), needed)
    executor = workflow.scheduler._executor
    executor.run_uuid = run_name(config["experiment"], Path.cwd(), executor.run_uuid)


def check_fetched():
    """Raise UserError where something lies not on this machine that no job may fetch."""
    base_model, evaluation = config["base_model"], config["evaluation"]
    if "demo" not in config:
        check_model(base_model["path"], base_model["revision"])
    check_data(evaluation["benchmarks"], evaluation["data"])
    check_sentences(evaluation["benchmarks"], evaluation["data"], evaluation["limit"])


onstart:
    if GPUS and workflow.local_exec and "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", GPUS)
    key = config["teacher"]["api_key_env"]
    if key and not os.environ.get(key) and config["iterations"]:
        print(f"warning: {key} (teacher.api_key_env) is not set; refining will stop there.", file=sys.stderr)
    running = {job.rule.name for job in workflow.dag.needrun_jobs()}
    needed = [] if CONDA else sorted({name for rule in running for name in NEEDS.get(rule, LOOP)})
    missing = [name for name in needed if not is_built(name)]
    builder = [sys.executable, f"{workflow.basedir}/scripts/build_env.py", *missing]
    if missing and subprocess.run(builder).returncode:
        raise WorkflowError(f"The environments {', '.join(missing)} could not be built; see above.")
    try:
        if running - {"fetch", *NEEDS}:
            check_fetched()
        if workflow.executor_plugin.name == "slurm":
            prepare_slurm()
    except UserError as error:
        raise WorkflowError(str(error))


onsuccess:
    # Recorded by now: no interrupted run will have to find them again.
    for job in workflow.dag.jobs:
        for output in job.output:
            forget_finished(Path(output))
