"""Run the demo's experiment in one world, with the strategies of a study, and collect what it measured.

The run is a Snakemake of its own on an experiment <study>-<seed>; what it has made already is not made again. Writes
JSON: seed, versions (name, accuracy in percent), detection (version, axis and what detection.json says of it).

    python scripts/demo/study_seed.py --base config/demo.yaml --name demo-study --seed 1 --iterations 3 \\
        --strategies '[{"name": "middo", "axes": ["complexity"]}]' --cores 2 --out results/demo-study/seed1.json
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml

from middo import program
from middo.files import read_json, write_json, write_text
from middo.program import UserError, say


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--base", type=Path, required=True, help="config of the demo")
    made.add_argument("--name", required=True, help="name of the study")
    made.add_argument("--seed", type=int, required=True, help="number of the world")
    made.add_argument("--iterations", type=int, required=True, help="how often the loop is closed")
    made.add_argument("--strategies", type=json.loads, required=True, help="what is compared, as in a config")
    made.add_argument("--cores", type=int, required=True, help="cores of the run")
    made.add_argument("--conda", action="store_true", help="take the environments from conda")
    made.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return made


def config_for(base: str, experiment: str, seed: int, iterations: int, strategies: list[dict]) -> dict[str, Any]:
    """The demo's config, moved to another experiment and another world."""
    before = yaml.safe_load(base)["experiment"]
    config = yaml.safe_load(base.replace(f"results/{before}/", f"results/{experiment}/"))
    config["demo"]["seed"] = seed
    config["teacher"]["model"] = f"little-world-{seed}"
    return config | {"experiment": experiment, "iterations": iterations, "strategies": strategies}


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
    experiment = f"{args.name}-{args.seed}"
    base = args.base.read_text(encoding="utf-8")
    config = config_for(base, experiment, args.seed, args.iterations, args.strategies)
    path = args.out.with_suffix(".yaml")
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    say(f"world {args.seed} runs; its messages go to {args.log}")
    # The lock of the run that started this one covers it.
    command = [sys.executable, "-m", "snakemake", "--configfile", path, "--cores", str(args.cores), "--nolock"]
    if subprocess.run([*command, *(["--sdm", "conda"] if args.conda else [])]).returncode:
        raise UserError(
            f"The run in world {args.seed} has failed; its messages stand in {args.log}. Start again to go on."
        )
    versions, detection = collect(Path("results") / experiment)
    write_json(args.out, {"seed": args.seed, "versions": versions, "detection": detection})
    say(f"world {args.seed} is measured")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
