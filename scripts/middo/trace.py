"""One row's story, and what differs between two versions, as text for people."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from middo.lineage import StoredAnswers, Version, find_version
from middo.program import UserError
from middo.proofs import AXES
from middo.replies import raw_text
from middo.rows import prompt_text
from middo.versions import SEED

AXIS = {origin: axis for axis, (_, _, _, origin) in AXES.items()}
ASKED = {"simplified": "simplify it", "improved": "improve it", "extended": "write one more like it"}
SHOWN = 100
# Below this share of common words a text is shown whole, before and after.
ALIKE = 0.4
RED, GREEN, BOLD = "31", "32", "1"

Paint = Callable[[str, str], str]


def coloured(text: str, code: str) -> str:
    """`text` in a terminal's colour."""
    return f"\x1b[{code}m{text}\x1b[0m"


def plain(text: str, code: str) -> str:
    """`text` for a file or a pipe."""
    return text


def all_rows(versions: dict[str, Version]) -> dict[str, dict[str, Any]]:
    """Every row of every version by id."""
    return {identity: row for version in versions.values() for identity, row in version.rows.items()}


def find_row(versions: dict[str, Version], given: str) -> dict[str, Any]:
    """The row whose id begins with `given`, in whichever version; an exact id wins.

    Raises UserError where there is none, or more than one.
    """
    rows = all_rows(versions)
    found = [given] if given in rows else [identity for identity in rows if identity.startswith(given)]
    if len(found) == 1:
        return rows[found[0]]
    if not found:
        raise UserError(f"No version holds a row whose id begins with {given}.")
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    raise UserError(f"{len(found)} ids begin with {given}: {', '.join(found[:10])}{more}. Give more of it.")


def trace(versions: dict[str, Version], answers: StoredAnswers, row: dict[str, Any], paint: Paint) -> Iterator[str]:
    """The lines of a row's story: where it lives, its ancestors from the seed on, what became of it."""
    yield paint(f"row {row['id']}, {row['origin']}", BOLD)
    yield f"lives in {', '.join(name for name, version in versions.items() if row['id'] in version.rows)}"
    yield ""
    yield paint("Where it came from", BOLD)
    yield ""
    chain = ancestors(all_rows(versions), row)
    yield from _seed_lines(versions, chain[0])
    for parent, child in zip(chain, chain[1:], strict=False):
        for version in versions.values():
            if any(refined["id"] == child["id"] for refined in version.refined):
                yield from _step(versions, answers, version, parent, child, paint)
    yield paint("What became of it", BOLD)
    yield ""
    lines = list(_forwards(versions, answers, row, paint))
    yield from lines or ["It was not selected again."]


def ancestors(rows: dict[str, dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that were acted on, from a seed row to `row` itself.

    Raises UserError where one is in no version.
    """
    chain = [row]
    while chain[0]["parents"]:
        parent = chain[0]["parents"][0]
        if parent not in rows:
            raise UserError(f"{parent}, the parent of {chain[0]['id']}, is in no version. What says the audit?")
        chain.insert(0, rows[parent])
    return chain


def _seed_lines(versions: dict[str, Version], row: dict[str, Any]) -> Iterator[str]:
    seed = find_version(versions, SEED)
    place = list(seed.rows).index(row["id"]) + 1
    yield f"{SEED}: row {place} of {seed.folder / 'dataset.jsonl'}, from {seed.manifest['source']['path']}: {row['id']}"
    yield from _quoted({key: row[key] for key in ("instruction", "input", "output") if row[key]})
    yield ""


def _quoted(texts: dict[str, str]) -> Iterator[str]:
    for name, text in texts.items():
        yield f"  {name}"
        yield from _indented(text)


def _indented(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.split("\n")]


def apart(value: float, limit: float) -> tuple[str, str]:
    """Both with four digits, or as many as it takes to tell them apart, at most 17."""
    shown = [(f"{value:.{digits}g}", f"{limit:.{digits}g}") for digits in range(4, 18)]
    return next((pair for pair in shown if pair[0] != pair[1]), shown[-1])


def reason(version: Version, identity: str, origin: str) -> str:
    """Why a row was selected: each signal, its threshold and how that came about."""
    axis = AXIS[origin]
    column, signals, sign, _ = AXES[axis]
    found = version.selection_report["axes"][axis]
    if "drawn" in found:
        return f"{column}: drawn at random, one of {found['selected']}"
    values = version.selection.row(by_predicate=pl.col("id") == identity, named=True)
    parts, limits = [], []
    for name in signals:
        limit = found["thresholds"][name]
        value, tau = apart(values[name], limit["tau"])
        parts.append(f"{name} {value} {'>' if sign > 0 else '<'} {tau}")
        limits.append(f"μ {limit['mu']:.4g}, σ {limit['sigma']:.4g}")
    rule = f"τ = μ {'-' if found['m'] < 0 else '+'} {abs(found['m']):g}·σ"
    return f"{column}: {' and '.join(parts)} ({rule}; {'; '.join(limits)})"


def _step(
    versions: dict[str, Version],
    answers: StoredAnswers,
    version: Version,
    parent: dict[str, Any],
    child: dict[str, Any],
    paint: Paint,
) -> Iterator[str]:
    """How `version` made `child` from `parent`."""
    yield f"{version.name}: {parent['id']} was selected as {reason(version, parent['id'], child['origin'])}"
    hints = child["parents"][1:]
    if hints:
        yield f"  hints: {', '.join(hints)}"
    line = next(refined for refined in version.refined if refined["id"] == child["id"])
    yield from _conversation(answers, line, child["origin"], version)
    kept = "stands beside it" if child["origin"] == "extended" else "takes its place"
    if child["id"] in version.dropped:
        kept = f"was left out again ({version.dropped[child['id']]})"
    yield f"  {child['origin']}: {child['id']} {kept}"
    for name, old, new in (
        ("instruction", prompt_text(parent), prompt_text(child)),
        ("output", parent["output"], child["output"]),
    ):
        yield f"  {name}"
        yield from (f"    {changed}".rstrip() for changed in readable_diff(old, new, paint))
    yield ""


def _conversation(answers: StoredAnswers, line: dict[str, Any], origin: str, version: Version) -> Iterator[str]:
    """The stored requests behind a line of refined.jsonl or rejected.jsonl, and what came back."""
    purposes = (f"to {ASKED[origin]}", "to answer the new prompt")
    for purpose, key in zip(purposes, line["requests"], strict=False):
        record = answers.record(key)
        if record is None:
            yield f"  the teacher was asked {purpose}; its answer {key} is not stored under {answers.root}"
            continue
        request = record["request"]
        attempt = f"attempt {request['attempt']}, " if request["attempt"] > 1 else ""
        yield f"  {request['model']} was asked {purpose} ({attempt}request {key[:16]})"
        yield from (f"    > {text}".rstrip() for text in request["messages"][0]["content"].split("\n"))
        yield "  and replied"
        yield from (f"    < {text}".rstrip() for text in raw_text(record["response"]).split("\n"))


def _forwards(versions: dict[str, Version], answers: StoredAnswers, row: dict[str, Any], paint: Paint) -> Iterator[str]:
    """Every later step that acted on `row` or on what came of it, depth first."""
    for version in versions.values():
        for child in version.refined:
            if child["parents"][0] == row["id"]:
                yield from _step(versions, answers, version, row, child, paint)
                yield from _forwards(versions, answers, child, paint)
            elif row["id"] in child["parents"]:
                yield f"{version.name}: was a hint for {child['id']}"
                yield ""
        for line in version.rejected:
            if line["id"] == row["id"]:
                yield f"{version.name}: was selected as {reason(version, row['id'], line['origin'])}"
                yield from _conversation(answers, line, line["origin"], version)
                yield f"  rejected after {line['attempts']} attempts ({line['step']}: {line['reason']}); it stays"
                yield ""


def readable_diff(old: str, new: str, paint: Paint) -> list[str]:
    """The lines of `new` with what was taken out as [-…-] and what was put in as {+…+}; texts that have little in
    common one after the other, marked - and +."""
    before_words, after_words = (re.findall(r"\s+|[^\s]+", text) for text in (old, new))
    matcher = difflib.SequenceMatcher(None, before_words, after_words, autojunk=False)
    if matcher.ratio() < ALIKE:
        return [
            *(paint(f"- {line}", RED) for line in old.split("\n")),
            *(paint(f"+ {line}", GREEN) for line in new.split("\n")),
        ]
    parts = []
    for kind, start, end, from_, to in matcher.get_opcodes():
        if kind == "equal":
            parts.append("".join(before_words[start:end]))
            continue
        if end > start:
            parts.append(paint(f"[-{''.join(before_words[start:end])}-]", RED))
        if to > from_:
            parts.append(paint(f"{{+{''.join(after_words[from_:to])}+}}", GREEN))
    return [f"  {line}" for line in "".join(parts).split("\n")]


def diff(versions: dict[str, Version], first: str, second: str, paint: Paint) -> Iterator[str]:
    """What changed from one version to another: counts, then every row that is gone or new."""
    old, new = find_version(versions, first).rows, find_version(versions, second).rows
    gone = [row for identity, row in old.items() if identity not in new]
    added = [row for identity, row in new.items() if identity not in old]
    yield paint(f"{first}, {len(old)} rows, and {second}, {len(new)} rows", BOLD)
    yield f"in both: {len(old) - len(gone)}"
    yield f"only in {first}: {_by_origin(gone)}"
    yield f"only in {second}: {_by_origin(added)}"
    everything, descendants = all_rows(versions), {}
    for row in added:
        known = [earlier["id"] for earlier in ancestors(everything, row)[:-1] if earlier["id"] in old]
        descendants.setdefault(known[-1] if known else "", []).append(row)
    for row in gone:
        yield ""
        yield paint(f"- {_short(row)}", RED)
        yield from (paint(f"+ {_short(child)}", GREEN) for child in descendants.pop(row["id"], []))
    for identity, rows in descendants.items():
        yield ""
        yield f"  {_short(old[identity])}" if identity else "  made from no row of the first version:"
        yield from (paint(f"+ {_short(child)}", GREEN) for child in rows)


def _by_origin(rows: list[dict[str, Any]]) -> str:
    counted = Counter(row["origin"] for row in rows)
    return f"{len(rows)}" + (f" ({', '.join(f'{n} {origin}' for origin, n in counted.items())})" if rows else "")


def _short(row: dict[str, Any]) -> str:
    text = " ".join(f"{prompt_text(row)} → {row['output']}".split())
    return f"{row['id']} {row['origin']}: {text[:SHOWN]}{'…' if len(text) > SHOWN else ''}"
