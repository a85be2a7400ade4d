"""List new rows that nearly are a row of the seed, or wholly the row that they were made from.

A near-copy of a seed row has its prompt, or prompt and response together, in common with it: of the sets of five words
in a row, the Jaccard index is 0.8 or more (middo/ngrams.py). A simplified or improved row is naturally near the rows
that it descends from by rewriting, so of those it counts only as a copy if all its words are its parent's. Writes JSON
Lines: id, kind (near_copy), with (id of the other row), part (prompt, row), similarity.

    python scripts/near_copies.py --refined middo/iter1/refined.jsonl --earlier seed/dataset.jsonl \\
        --out middo/iter1/near_copies.jsonl
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from middo import program
from middo.actions import REPLACING
from middo.files import read_jsonl, write_jsonl
from middo.ngrams import near_copies, words_of
from middo.program import say
from middo.rows import prompt_text, read_dataset


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--refined", type=Path, required=True, help="refined.jsonl of the version")
    made.add_argument(
        "--earlier", type=Path, nargs="+", required=True, help="dataset.jsonl of all versions before, in order"
    )
    made.add_argument("--out", type=Path, required=True, help="near_copies.jsonl to write")
    return made


def ancestors(row: dict, known: dict[str, dict]) -> set[str]:
    """Ids of the rows that `row` rewrites, and of those that these rewrite."""
    found = set()
    while row["origin"] in REPLACING:
        row = known[row["parents"][0]]
        found.add(row["id"])
    return found


def whole_text(row: dict) -> str:
    """Prompt and response."""
    return f"{prompt_text(row)}\n{row['output']}"


def hits(new: list[dict], seed: list[dict], known: dict[str, dict]) -> Iterator[dict]:
    """A record per pair of a new row and the row that it copies; `known` are all earlier rows by id."""
    own = {row["id"]: ancestors(row, known) for row in new}
    for row in new:
        parent = known[row["parents"][0]]
        if words_of(whole_text(row)) == words_of(whole_text(parent)):
            yield {"id": row["id"], "kind": "near_copy", "with": parent["id"], "part": "row", "similarity": 1.0}
    seen = {row["id"]: {row["parents"][0]} & own[row["id"]] for row in new}
    for part, text in (("prompt", prompt_text), ("row", whole_text)):
        pairs = near_copies({row["id"]: text(row) for row in new}, {row["id"]: text(row) for row in seed})
        for identity, other, similarity in pairs:
            if other not in own[identity] | seen[identity]:
                seen[identity].add(other)
                found = {"id": identity, "kind": "near_copy", "with": other, "part": part}
                yield {**found, "similarity": round(similarity, 4)}


def main(args: argparse.Namespace) -> None:
    new = read_jsonl(args.refined)
    versions = [read_dataset(path) for path in args.earlier]
    known = {row["id"]: row for rows in versions for row in rows}
    order = {row["id"]: place for place, row in enumerate(new)}
    found = sorted(hits(new, versions[0], known), key=lambda hit: order[hit["id"]])
    write_jsonl(args.out, found)
    say(f"{len({hit['id'] for hit in found})} of {len(new)} new rows are near-copies of {len(found)} other rows")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
