"""Run the demo's experiment in one world, with the strategies of a study, and collect what it measured.

The run is a Snakemake of its own on an experiment <study>-<seed>; what it has made already is not made again. Writes
JSON: seed, versions (name, accuracy in percent), detection (version, axis and what detection.json says of it).

    python scripts/demo/study_seed.py --seed 2 --cores 2 --out results/little/seed2.json \\
        --study '{"name": "little", "base": "config/demo.yaml", "iterations": 3,
                  "strategies": [{"name": "middo", "axes": ["quality"]}]}'
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml
from demo.study_config import experiment_of

from middo import program
from middo.files import read_json, write_json, write_text
from middo.lock import hold
from middo.program import UserError, say


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--study", type=json.loads, required=True, help="what the study's config says, as JSON")
    made.add_argument("--seed", type=int, required=True, help="number of the world")
    made.add_argument("--cores", type=int, required=True, help="cores of the run")
    made.add_argument("--conda", action="store_true", help="take the environments from conda")
    made.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return made


def collect(results: Path) -> tuple[list[dict], list[dict]]:
    """Accuracy of every version, and detection of every axis of every version."""
    with open(results / "summary.csv", encoding="utf-8", newline="") as stream:
        versions = [{"version": line["version"], "accuracy": float(line["mean"])} for line in csv.DictReader(stream)]
    detection = [
        {"version": line["version"], "axis": axis, **found}
        for line in versions
        if line["version"] != "seed"
        for axis, found in read_json(results / line["version"] / "detection.json").items()
    ]
    return versions, detection


def main(args: argparse.Namespace) -> None:
    config = experiment_of(args.study, args.seed)
    log = args.log or "the terminal"
    # Where a study was killed, what runs its world may live on.
    with hold(args.out.with_suffix(".lock"), f"World {args.seed}") as lock:
        path = args.out.with_suffix(".yaml")
        write_text(path, yaml.safe_dump(config, sort_keys=False))
        say(f"world {args.seed} runs; its messages go to {log}")
        # Snakemake's own lock is the study's; the end of this one would free it for another study.
        command = [sys.executable, "-m", "snakemake", "--configfile", path, "--cores", str(args.cores), "--nolock"]
        done = subprocess.run([*command, *(["--sdm", "conda"] if args.conda else [])], pass_fds=[lock])
    if done.returncode:
        raise UserError(f"The run in world {args.seed} has failed; its messages went to {log}. Start again to go on.")
    versions, detection = collect(Path("results") / config["experiment"])
    write_json(args.out, {"seed": args.seed, "versions": versions, "detection": detection})
    say(f"world {args.seed} is measured")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
