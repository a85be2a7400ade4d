"""Make a version ready to be given to others: a folder with its rows, a dataset card and a Croissant description.

`release/` holds dataset.jsonl and manifest.json as they are, dataset.parquet with the same rows and typed columns (what
readers load: from JSON Lines pandas would make numbers of texts that look like some), README.md, the card that
`datasets.load_dataset` and the Hugging Face hub understand, and croissant.json (Croissant 1.1). Both are then read by
their own libraries; unless they give exactly the version's rows, nothing is kept.

    python scripts/release.py --experiment demo --version middo/iter1 --dataset middo/iter1/dataset.jsonl \\
        --manifest middo/iter1/manifest.json --licenses '{"seed": "cc-by-nc-4.0", "teacher": null}' \\
        --near-copies middo/iter1/near_copies.jsonl --leaks middo/iter1/leaks.jsonl --out middo/iter1/release
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from middo import program
from middo.card import Facts, card
from middo.croissant import croissant, records
from middo.files import read_json, read_jsonl, sha256_file, write_json, write_text
from middo.program import UserError, say
from middo.rows import read_dataset

SCHEMA = {
    "id": pl.String,
    "instruction": pl.String,
    "input": pl.String,
    "output": pl.String,
    "origin": pl.String,
    "parents": pl.List(pl.String),
    "iteration": pl.Int64,
}


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--experiment", required=True, help="name of the experiment")
    made.add_argument("--version", required=True, help="name of the version")
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--manifest", type=Path, required=True, help="manifest.json of the version")
    made.add_argument("--licenses", type=json.loads, required=True, help="of seed and teacher, as JSON")
    program.optional_file(made, "--near-copies", "near_copies.jsonl of the version; the seed has none")
    program.optional_file(made, "--leaks", "leaks.jsonl of the version; the seed has none")
    made.add_argument("--out", type=Path, required=True, help="folder to make")
    return made


def check_loads(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Raise UserError unless `datasets.load_dataset` and mlcroissant both read exactly `rows` from `folder`."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        loaded = datasets.load_dataset(str(folder), split="train", cache_dir=cache).to_list()
    for library, found in (("datasets", loaded), ("mlcroissant", records(folder / "croissant.json"))):
        if found != rows:
            raise UserError(f"{folder}: {library} does not read the rows of the version from it.")


def make(args: argparse.Namespace, folder: Path) -> None:
    """Write and check all files of the release into `folder`. Raises what `check_loads` raises."""
    rows = read_dataset(args.dataset)
    shutil.copyfile(args.dataset, folder / "dataset.jsonl")
    shutil.copyfile(args.manifest, folder / "manifest.json")
    pl.DataFrame(rows, schema=SCHEMA).write_parquet(folder / "dataset.parquet")
    facts = Facts(
        args.experiment,
        args.version,
        read_json(args.manifest),
        args.licenses,
        len({hit["id"] for hit in read_jsonl(args.near_copies)}) if args.near_copies else None,
        len({hit["id"] for hit in read_jsonl(args.leaks)}) if args.leaks else None,
    )
    write_text(folder / "README.md", card(facts))
    hashes = {name: sha256_file(folder / name) for name in ("dataset.parquet", "dataset.jsonl", "manifest.json")}
    write_json(folder / "croissant.json", croissant(facts, hashes))
    check_loads(folder, rows)


def main(args: argparse.Namespace) -> None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".release-") as temporary:
        folder = Path(temporary) / args.out.name
        folder.mkdir()
        make(args, folder)
        if args.out.exists():
            shutil.rmtree(args.out)
        folder.rename(args.out)
    say(f"{args.version} lies in {args.out}, ready to be given to others")


if __name__ == "__main__":
    program.run(main, arguments(), environment="describe")
