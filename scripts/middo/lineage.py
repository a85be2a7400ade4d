"""The versions of an experiment as they lie on disk, and the stored answers behind them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from middo.answers import decode_record
from middo.files import read_json, read_jsonl
from middo.program import UserError
from middo.rows import read_dataset
from middo.versions import SEED, iteration_of, strategy_of

ANSWERS = "teacher_answers"
_MADE = re.compile(r"[a-z0-9][a-z0-9_-]*/iter[1-9][0-9]*")
# What a version other than the seed is made from, each file pinned by its manifest.
MADE_FROM = ("selection.parquet", "selection.json", "refined.jsonl", "rejected.jsonl", "refine.json")
SEED_MADE_FROM = ("extras.jsonl", "rejects.jsonl")
# Where new rows that repeat others are left out: the setting in `new_rows`, and the list of them.
DROPPED_BY = {"on_near_copy": "near_copies.jsonl", "on_leak": "leaks.jsonl"}


class Fault(NamedTuple):
    """Something that is not as it must be: the file or the row, and what is wrong with it."""

    where: str
    what: str


@dataclass(frozen=True)
class Version:
    """What lies in a version's folder. For the seed, all of `selection`, `refined`, `rejected` is empty.

    `dropped` are the ids of refined rows that were left out again, each with what it is: near_copy or leak.
    """

    name: str
    folder: Path
    manifest: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    refined: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    selection: pl.DataFrame
    selection_report: dict[str, Any]
    refine_report: dict[str, Any]
    dropped: dict[str, str]

    @property
    def new(self) -> list[dict[str, Any]]:
        """The refined rows that the version took in."""
        return [row for row in self.refined if row["id"] not in self.dropped]

    @property
    def iteration(self) -> int:
        return iteration_of(self.name)


def experiment_folder(given: Path | None) -> Path:
    """The folder of an experiment: `given`, or the only one under results/.

    Raises UserError where there is none, or more than one to choose from.
    """
    if given is not None:
        if not (given / SEED).is_dir():
            raise UserError(f"{given}: no experiment lies there (there is no {given / SEED}).")
        return given
    found = sorted(str(path.parent) for path in Path("results").glob(f"*/{SEED}"))
    if len(found) != 1:
        known = f"one of {', '.join(found)}" if found else "there is none under results/ here"
        raise UserError(f"Which experiment? Give its folder: {known}.")
    return Path(found[0])


def version_names(results: Path) -> list[str]:
    """All versions that lie in `results`, even in part: the seed first, then by strategy and iteration."""
    folders = (path.relative_to(results).as_posix() for path in results.glob("*/iter*") if path.is_dir())
    made = [name for name in folders if _MADE.fullmatch(name)]
    return [SEED, *sorted(made, key=lambda name: (strategy_of(name), iteration_of(name)))]


def load_version(results: Path, name: str) -> Version:
    """Read a version's files. Raises OSError, ValueError or UserError where one is missing or cannot be read."""
    folder = results / name
    rows = {row["id"]: row for row in read_dataset(folder / "dataset.jsonl")}
    manifest = read_json(folder / "manifest.json")
    if name == SEED:
        return Version(name, folder, manifest, rows, [], [], pl.DataFrame(), {}, {}, {})
    lists = [folder / file for file in DROPPED_BY.values() if file in manifest["made_from"]]
    return Version(
        name,
        folder,
        manifest,
        rows,
        read_jsonl(folder / "refined.jsonl"),
        read_jsonl(folder / "rejected.jsonl"),
        pl.read_parquet(folder / "selection.parquet"),
        read_json(folder / "selection.json"),
        read_json(folder / "refine.json"),
        {hit["id"]: hit["kind"] for path in reversed(lists) for hit in read_jsonl(path)},
    )


def load_lineages(results: Path) -> dict[str, Version]:
    """Every finished version of an experiment by name.

    Raises UserError where a file is missing or cannot be read.
    """
    versions = {}
    for name in version_names(results):
        if not (results / name / "manifest.json").is_file():
            continue
        try:
            versions[name] = load_version(results, name)
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{results / name} cannot be read ({error}). What says the audit?") from error
    return versions


def find_version(versions: dict[str, Version], name: str) -> Version:
    """The version called `name`; raises UserError, listing those that there are."""
    if name not in versions:
        raise UserError(f"There is no version {name}. There are: {', '.join(versions)}.")
    return versions[name]


class StoredAnswers:
    """Records of the teacher's answers by key; only where they lie is kept in memory.

    Unlike the store that a run writes to (`middo.answers`), it goes on behind a broken line, and says all that is
    broken. Where a key stands twice the first in the order of the files counts, as it does for a run.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.count = Path(root), 0
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self._places: dict[str, tuple[Path, int, int]] = {}
        for path in sorted(self.root.rglob("*.jsonl")):
            self._read(path)

    def get(self, key: str) -> Any | None:
        """The response stored under `key`, or None."""
        found = self.record(key)
        return found and found["response"]

    def record(self, key: str) -> dict[str, Any] | None:
        """What was asked and answered under `key`: key, request, response, sha256; or None."""
        if key not in self._places:
            return None
        path, offset, length = self._places[key]
        with open(path, "rb") as stream:
            stream.seek(offset)
            return json.loads(stream.read(length))

    def _read(self, path: Path) -> None:
        offset = 0
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n") and _is_cut_off(line):
                    self.notes.append(f"{path}: the last answer was cut off while it was written; it does not count")
                    break
                try:
                    key = decode_record(line)["key"]
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    self.faults.append(Fault(f"{path}, line {number}", f"this stored answer is broken ({error})"))
                else:
                    self._places.setdefault(key, (path, offset, len(line)))
                    self.count += 1
                offset += len(line)


def _is_cut_off(tail: bytes) -> bool:
    """Whether a file's last line, which has no newline, may be the beginning of a record that was being written.

    A whole record with anything but a newline behind it is none: there the newline itself has been changed.
    """
    text = tail.decode("utf-8", errors="surrogateescape")
    if not text.startswith("{"):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return True
    return end == len(text)
