"""Rows of a dataset version: their form, their ids, their prompt text.

A row is a dict with the keys of `FIELDS`. `dataset.jsonl` holds one row a line, seed order first, then added rows.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from middo.files import read_jsonl, sha256_json, write_jsonl
from middo.program import UserError

FIELDS = ("id", "instruction", "input", "output", "origin", "parents", "iteration")
ORIGINS = ("seed", "simplified", "improved", "extended")


def content_hash(row: dict) -> str:
    """16 hex digits over everything that a row is, its id left out.

    Origin, parents and birth are part of it, so that a teacher's answer that repeats an earlier row's text is still
    another row and ids stay unique over all versions of a lineage.
    """
    return sha256_json({field: row[field] for field in FIELDS if field != "id"})[:16]


def with_ids(rows: Iterable[dict]) -> list[dict]:
    """Give each row its id, `<content hash>-<n>`, n counting exact repeats from 0 in the given order."""
    seen: dict[str, int] = {}
    identified = []
    for row in rows:
        digest = content_hash(row)
        number = seen.get(digest, 0)
        seen[digest] = number + 1
        identified.append({**row, "id": f"{digest}-{number}"})
    return identified


def prompt_text(row: dict) -> str:
    """The user's turn as training sees it: instruction, newline, input; the instruction alone where input is empty."""
    return f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]


def read_dataset(path: Path) -> list[dict]:
    """Read dataset.jsonl in order.

    Raises UserError where a row lacks a field or an id stands twice.
    """
    rows = read_jsonl(path)
    seen: set[str] = set()
    for line, row in enumerate(rows, start=1):
        missing = [field for field in FIELDS if field not in row]
        if missing:
            raise UserError(f"{path}, line {line}: no field {', '.join(missing)}. Was this file written by hand?")
        if row["id"] in seen:
            raise UserError(f"{path}, line {line}: id {row['id']} stands twice.")
        seen.add(row["id"])
    return rows


def write_dataset(path: Path, rows: Iterable[dict]) -> None:
    """Write dataset.jsonl: the fields of `FIELDS` and nothing else, keys sorted."""
    write_jsonl(path, ({field: row[field] for field in FIELDS} for row in rows))


def check_same_ids(given: Iterable[str], returned: Iterable[str], what: str) -> None:
    """Raise UserError, naming up to ten ids of each kind, unless both hold the same ids the same number of times."""
    given, returned = list(given), list(returned)
    if sorted(given) == sorted(returned):
        return
    there, asked = set(returned), set(given)
    missing = [i for i in given if i not in there][:10]
    unknown = [i for i in returned if i not in asked][:10]
    doubled = [i for i, count in Counter(returned).items() if count > 1 and i in asked][:10]
    raise UserError(
        f"{what}: {len(given)} rows were given and {len(returned)} came back. Missing: {', '.join(missing) or 'none'}. "
        f"Not asked for: {', '.join(unknown) or 'none'}. More than once: {', '.join(doubled) or 'none'}."
    )
