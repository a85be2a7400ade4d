"""The shell script that makes a version again from what its manifest pins."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from middo.lineage import ANSWERS, Version
from middo.versions import SEED

FOLDER = "rebuild"
LIMITS = """\
# What this makes is the same, row for row, as far as this can be promised:
# - The teacher is remote and random. The stored answers make its part exact: keep them. A question that they do not
#   answer is asked again, is paid for, and is answered otherwise.
# - Sums of floating-point numbers depend on the machine: on the kind and number of GPUs, their drivers, the number of
#   CPU threads. Losses and ratings can differ in their last digits, and so can the rows that lie close to a threshold.
# - Seeds are fixed (`seed` in the settings); nothing else is drawn at random."""


def rebuild(version: Version, results: Path) -> Iterator[str]:
    """The lines of the script. The experiment, whose folder is `results`, keeps its name, in a new checkout."""
    manifest, target = version.manifest, f"results/{results.name}/{version.name}"
    yield "#!/bin/sh"
    yield f"# Makes {target}/dataset.jsonl again, {len(version.rows)} rows, sha256 {manifest['dataset_sha256']}."
    yield LIMITS
    yield "set -eu"
    yield from _code(manifest["code"])
    yield ""
    if version.name == SEED:
        yield from _seed(manifest, target)
    else:
        yield from _made(version, results, target)
    yield ""
    yield from _same_file(f"{target}/dataset.jsonl", manifest["dataset_sha256"])


def _code(code: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "# The code."
    yield 'from="$PWD"'
    if code["commit"] is None:
        yield "# WARNING: it did not lie in a git checkout; which state it was in is not known."
        return
    if code["modified"]:
        yield "# WARNING: files differed from this commit, or were not in it, when the version was made."
    folder = f"../{FOLDER}-{code['commit'][:12]}"
    yield f'git clone -q "$from" {folder}'
    yield f"git -C {folder} checkout -q --detach {code['commit']}"
    yield f"cd {folder}"


def _lock(environments: dict[str, Any]) -> Iterator[str]:
    yield "# The environments, each with the pins that it had."
    yield "sha256sum -c <<'END'"
    yield from (f"{locked['sha256']}  envs/{name}.yaml" for name, locked in environments.items())
    yield "END"
    yield from (f"# {name}: {', '.join(locked['pins'])}" for name, locked in environments.items())
    yield "python3 -m venv .venv"
    yield ".venv/bin/pip install -q -r requirements.txt"
    built = [name for name in environments if name != "driver"]
    if built:
        yield f".venv/bin/python scripts/build_env.py {' '.join(built)}"


def _seed(manifest: dict[str, Any], target: str) -> Iterator[str]:
    source, settings = manifest["source"], manifest["settings"]
    yield from _lock(manifest["environments"])
    yield ""
    yield "# The seed file."
    yield from _copied(source["path"])
    yield from _same_file(source["path"], source["sha256"])
    yield ""
    yield f".venv/bin/python scripts/import_seed.py --source {shlex.quote(source['path'])} \\"
    yield f"    --format {settings['format']} --on-invalid {settings['on_invalid']} --dataset {target}/dataset.jsonl \\"
    yield f"    --extras {target}/extras.jsonl --rejects {target}/rejects.jsonl --manifest {target}/manifest.json"


def _made(version: Version, results: Path, target: str) -> Iterator[str]:
    manifest = version.manifest
    yield f"# The settings; they hash to {manifest['settings_sha256']} in the manifest that is made."
    yield f"mkdir -p {FOLDER}/prompts"
    yield f"cat > {FOLDER}/config.yaml <<'END'"
    yield yaml.safe_dump(config_of(version, results.name), allow_unicode=True, sort_keys=False, width=120).rstrip("\n")
    yield "END"
    yield ""
    yield "# The prompts."
    for name, prompt in manifest["prompts"].items():
        yield f"printf %s {shlex.quote(prompt['text'])} > {FOLDER}/prompts/{name}"
    # Prompts that shaped nothing of this version are needed all the same.
    yield "for prompt in config/prompts/*.md; do"
    yield f'    test -e {FOLDER}/prompts/"$(basename "$prompt")" || cp "$prompt" {FOLDER}/prompts/'
    yield "done"
    yield ""
    yield from _lock(manifest["environments"])
    yield ""
    yield "# What it is made from."
    yield from _materials(manifest)
    yield "# The teacher's answers, so that nothing is asked and paid for again."
    yield from _copied(f"results/{ANSWERS}")
    yield ""
    yield f".venv/bin/snakemake --configfile {FOLDER}/config.yaml --cores all {target}/dataset.jsonl"


def _materials(manifest: dict[str, Any]) -> Iterator[str]:
    """The seed file and the base model, by hash, where the workflow does not make them itself."""
    model, dataset = manifest["base_model"], manifest["settings"]["dataset"]["path"]
    if "demo" in manifest["rest_of_config"]:
        yield "# The demo makes its seed file and its base model itself; the base model's hashes should be:"
        yield from (f"# {digest}  {model['path']}/{name}" for name, digest in model["files"].items())
        return
    yield from _copied(dataset)
    if model["revision"]:
        yield f".venv/bin/snakemake fetch --configfile {FOLDER}/config.yaml   # {model['path']} at {model['revision']}"
        yield from (f"# {digest}  {name}" for name, digest in model["files"].items())
        return
    yield f"# The base model is a folder: put it at {model['path']}."
    for name, digest in model["files"].items():
        yield from _same_file(f"{model['path']}/{name}", digest)


def _copied(path: str) -> Iterator[str]:
    """Take a file or folder that is no part of the code from where the script was started."""
    if not Path(path).is_absolute():
        quoted, folder = shlex.quote(path), shlex.quote(str(Path(path).parent))
        yield f'test -e {quoted} || {{ mkdir -p {folder} && cp -R "$from"/{quoted} {folder}/; }}'


def _same_file(path: str, digest: str) -> Iterator[str]:
    yield f"echo {shlex.quote(f'{digest}  {path}')} | sha256sum -c"


def config_of(version: Version, experiment: str) -> dict[str, Any]:
    """The config that made a version: every setting as it was, but only this strategy and this many iterations."""
    settings, rest = version.manifest["settings"], version.manifest["rest_of_config"]
    model = version.manifest["base_model"]
    axes = {axis: settings[axis] for axis in settings["strategy"]["axes"]}
    return {
        "experiment": experiment,
        "base_model": {"path": model["path"], "revision": model["revision"]},
        **{key: settings[key] for key in ("dataset", "seed", "training", "overlap", "new_rows")},
        **axes,
        "iterations": version.iteration,
        "strategies": [found for found in (settings["like"], settings["strategy"]) if found],
        "prompts": f"{FOLDER}/prompts",
        "teacher": {**settings["teacher"], **rest["teacher"]},
        **{key: value for key, value in rest.items() if key != "teacher"},
    }
