"""Make version `seed` from a dataset in Alpaca form.

Reads a JSON list or JSON Lines of objects with instruction, input (may be missing or null) and output. Writes
dataset.jsonl (each row with its id), extras.jsonl (columns that the loop does not use, by id), rejects.jsonl (rows
that `--on-invalid drop` left out, with the reason) and manifest.json. Broken input ends with one message that names
the first ten faults by line and field; then nothing is written.

    python scripts/import_seed.py --source alpaca.json --dataset seed/dataset.jsonl --extras seed/extras.jsonl \\
        --rejects seed/rejects.jsonl --manifest seed/manifest.json
"""

import argparse
from pathlib import Path

from middo import program
from middo.alpaca import read_alpaca
from middo.files import sha256_file, write_jsonl
from middo.manifest import environment_pins, write_manifest
from middo.rows import with_ids, write_dataset


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--source", type=Path, required=True, help="the dataset in Alpaca form")
    made.add_argument("--format", choices=["alpaca"], default="alpaca", help="form of the source")
    made.add_argument("--on-invalid", choices=["error", "drop"], default="error", help="rows with an empty text")
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl to write")
    made.add_argument("--extras", type=Path, required=True, help="extras.jsonl to write")
    made.add_argument("--rejects", type=Path, required=True, help="rejects.jsonl to write")
    made.add_argument("--manifest", type=Path, required=True, help="manifest.json to write")
    return made


def main(args: argparse.Namespace) -> None:
    if not args.source.is_file():
        raise program.UserError(f"{args.source}: there is no such file (dataset.path).")
    parsed, rejects = read_alpaca(args.source, drop_empty=args.on_invalid == "drop")
    rows = with_ids({**row.texts, "origin": "seed", "parents": [], "iteration": 0} for row in parsed)
    extras = [
        {"id": row["id"], "line": source.line, "columns": source.extras}
        for row, source in zip(rows, parsed, strict=True)
        if source.extras
    ]
    write_jsonl(args.rejects, rejects)
    write_jsonl(args.extras, extras)
    write_dataset(args.dataset, rows)
    write_manifest(
        args.manifest,
        args.dataset,
        rows,
        settings={"format": args.format, "on_invalid": args.on_invalid},
        predecessor_sha256=None,
        made_from={path.name: sha256_file(path) for path in (args.extras, args.rejects)},
        environments=environment_pins(["driver"]),
        source={"path": str(args.source), "sha256": sha256_file(args.source), "rejected": len(rejects)},
    )
    program.say(f"{len(rows)} rows from {args.source}, {len(rejects)} rejected")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
