"""Describe the whole run as a Workflow Run RO-Crate: ro-crate-metadata.json in the experiment's folder.

The workflow (its files are copied to workflow/, its config to workflow/config.json), and an action per finished step
with program, inputs, outputs and times, as Snakemake recorded them; files that are there with their hashes. Steps made
before this description stay in it as long as what they made lies there. Made by ro-crate-py, profile Workflow Run Crate
0.5 (w3id.org/ro/wfrun/workflow/0.5).

    python scripts/crate.py --results results/demo --records .snakemake/metadata --workflow . --config '{…}' \\
        --licenses '{"seed": null, "teacher": null}'
"""

import argparse
import json
import shutil
from pathlib import Path

from middo import program
from middo.files import write_json
from middo.program import UserError, say
from middo.run_crate import run_crate
from middo.steps import recorded_steps

CODE = ("Snakefile", "rules", "scripts", "envs", "config", "profiles", "slurm", "requirements.txt", "README.md")


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--results", type=Path, required=True, help="folder of the experiment, which becomes the crate")
    made.add_argument("--records", type=Path, required=True, help="Snakemake's records of what it has made")
    made.add_argument("--workflow", type=Path, required=True, help="folder of the workflow")
    made.add_argument("--config", type=json.loads, required=True, help="the whole config, as JSON")
    return made


def copy_workflow(source: Path, target: Path) -> None:
    """Copy the workflow's own files, anew."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in CODE:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def main(args: argparse.Namespace) -> None:
    steps = recorded_steps(args.records, args.results)
    if not steps:
        raise UserError(f"{args.records} has no record of any step that made something in {args.results}.")
    copy_workflow(args.workflow, args.results / "workflow")
    write_json(args.results / "workflow" / "config.json", args.config)
    crate = run_crate(args.results, steps, args.config)
    write_json(args.results / "ro-crate-metadata.json", crate.metadata.generate())
    say(f"{len(steps)} steps are described in {args.results / 'ro-crate-metadata.json'}")


if __name__ == "__main__":
    program.run(main, arguments(), environment="describe")
