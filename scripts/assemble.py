"""Make the next version: D_{t+1} = (D_t minus (hard ∪ low)) ∪ simplified(hard) ∪ improved(low) ∪ extended(sparse).

A hard or low row leaves only where a refined row takes its place; one whose every rewrite was rejected stays as it is.
A new row that a list of --drop names counts as rejected: a near-copy, or a leak of a benchmark's question.
Kept rows come first, in the predecessor's order, then the new ones. Writes dataset.jsonl and manifest.json.

    python scripts/assemble.py --predecessor seed/dataset.jsonl --selection middo/iter1/selection.parquet \\
        --refined middo/iter1/refined.jsonl --rejected middo/iter1/rejected.jsonl \\
        --refine-report middo/iter1/refine.json --selection-report middo/iter1/selection.json --overlap both \\
        --iteration 1 --dataset middo/iter1/dataset.jsonl --manifest middo/iter1/manifest.json \\
        --predecessor-manifest seed/manifest.json --base-model-sha256 base_model.sha256 \\
        --checkpoint-sha256 seed/checkpoint.sha256 --prompts config/prompts/*.md --settings "$SETTINGS"

What only the manifest tells: the base model, the tuned model that diagnosed the rows, the prompts, the environments and
the identity settings (`--settings`, JSON with at least base_model: {path, revision}).
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from middo import program
from middo.actions import REPLACING, planned_actions
from middo.files import read_json, read_jsonl, sha256_file
from middo.manifest import environment_pins, prompt_texts, write_manifest
from middo.program import UserError, say
from middo.rows import check_same_ids, content_hash, read_dataset, write_dataset


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--predecessor", type=Path, required=True, help="dataset.jsonl of the predecessor")
    made.add_argument("--selection", type=Path, required=True, help="selection.parquet")
    made.add_argument("--selection-report", type=Path, required=True, help="selection.json")
    made.add_argument("--refined", type=Path, required=True, help="refined.jsonl")
    made.add_argument("--rejected", type=Path, required=True, help="rejected.jsonl")
    made.add_argument("--refine-report", type=Path, required=True, help="refine.json")
    made.add_argument(
        "--drop", type=Path, nargs="*", default=[], help="lists of new rows to leave out: near_copies.jsonl, …"
    )
    made.add_argument("--overlap", choices=["both", "complexity_first"], default="both", help="rows both hard and low")
    made.add_argument("--iteration", type=int, required=True, help="number of the version that is made")
    made.add_argument("--predecessor-manifest", type=Path, required=True, help="manifest.json of the predecessor")
    made.add_argument("--base-model-sha256", type=Path, required=True, help="hashes of the base model's files")
    made.add_argument("--checkpoint-sha256", type=Path, required=True, help="checkpoint.sha256 of the predecessor")
    made.add_argument("--prompts", type=Path, nargs="+", required=True, help="prompt files that shaped the version")
    made.add_argument("--environments", nargs="+", default=["driver"], help="names in envs/ of all steps before this")
    made.add_argument("--settings", type=json.loads, required=True, help="identity settings, as JSON")
    made.add_argument("--rest", type=json.loads, help="the rest of the config, as JSON")
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl to write")
    made.add_argument("--manifest", type=Path, required=True, help="manifest.json to write")
    return made


def merge(rows: list[dict], refined: list[dict]) -> list[dict]:
    """The rows of the next version: `rows` without those that a simplified or improved row replaces, then `refined`."""
    replaced = {row["parents"][0] for row in refined if row["origin"] in REPLACING}
    return [row for row in rows if row["id"] not in replaced] + refined


def read_dropped(lists: list[Path], refined: list[dict]) -> dict[str, str]:
    """The new rows that the files `lists` name, by id, with the reason: near_copy or leak.

    Raises UserError where a list names a row that is none of `refined`.
    """
    hits = [(hit["id"], hit["kind"]) for path in lists for hit in read_jsonl(path)]
    foreign = {identity for identity, _ in hits} - {row["id"] for row in refined}
    if foreign:
        raise UserError(f"{', '.join(map(str, lists))}: {min(foreign)} is no row of refined.jsonl.")
    return dict(reversed(hits))


def check_refined(actions: list[tuple[str, str]], refined: list[dict], rejected: list[dict], iteration: int) -> None:
    """Raise UserError unless each action (id, origin) ended refined or rejected, once, and ids are their content's."""
    ended = [(row["parents"][0], row["origin"]) for row in refined] + [(row["id"], row["origin"]) for row in rejected]
    check_same_ids((f"{i} {o}" for i, o in actions), (f"{i} {o}" for i, o in ended), "refined.jsonl and rejected.jsonl")
    for row in refined:
        if row["id"].rpartition("-")[0] != content_hash(row) or row["iteration"] != iteration:
            raise UserError(f"refined.jsonl: row {row['id']} is not what its id says. Was the file changed by hand?")


def base_model(settings: dict[str, Any], sha256: Path) -> dict[str, Any]:
    """Which model every version is tuned from: its path, its commit on the hub (null for a folder), its files."""
    path, revision = settings["base_model"]["path"], settings["base_model"]["revision"]
    files = dict(reversed(line.split("  ", 1)) for line in sha256.read_text(encoding="utf-8").splitlines())
    return {"path": path, "revision": None if Path(path).is_dir() else revision, "files": files}


def write_record(args: argparse.Namespace, merged: list[dict], dropped: dict[str, str]) -> None:
    """Write manifest.json: all that gave the version its content."""
    axes = read_json(args.selection_report)["axes"]
    made_from = (args.selection, args.selection_report, args.refined, args.rejected, args.refine_report, *args.drop)
    write_manifest(
        args.manifest,
        args.dataset,
        merged,
        settings={**args.settings, "overlap": args.overlap, "m": {axis: found["m"] for axis, found in axes.items()}},
        predecessor_sha256=sha256_file(args.predecessor),
        predecessor_manifest_sha256=sha256_file(args.predecessor_manifest),
        checkpoint_sha256=sha256_file(args.checkpoint_sha256),
        made_from={path.name: sha256_file(path) for path in made_from},
        dropped=dict(Counter(dropped.values())),
        base_model=base_model(args.settings, args.base_model_sha256),
        prompts=prompt_texts(args.prompts),
        thresholds={axis: found["thresholds"] for axis, found in axes.items()},
        teacher=read_json(args.refine_report),
        environments=environment_pins(args.environments),
        rest_of_config=args.rest,
    )


def main(args: argparse.Namespace) -> None:
    rows = read_dataset(args.predecessor)
    selection = pl.read_parquet(args.selection)
    check_same_ids((row["id"] for row in rows), selection["id"].to_list(), str(args.selection))
    refined, rejected = read_jsonl(args.refined), read_jsonl(args.rejected)
    check_refined(planned_actions(selection, args.overlap), refined, rejected, args.iteration)
    dropped = read_dropped(args.drop, refined)
    new = [row for row in refined if row["id"] not in dropped]
    merged = merge(rows, new)
    twice = len(merged) - len({row["id"] for row in merged})
    if twice:
        raise UserError(f"{twice} ids would stand twice in {args.dataset}.")
    write_dataset(args.dataset, merged)
    write_record(args, merged, dropped)
    kept, lost = len(merged) - len(new), len(rejected) + len(dropped)
    say(f"{len(rows)} rows: {kept} kept, {len(rows) - kept} replaced, {len(new)} new, {lost} rejected")
    say(f"{len(merged)} rows in {args.dataset}")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
