"""Reading a dataset in Alpaca form, a JSON list or JSON Lines, with every fault named by file, line and field."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from middo.program import UserError

TEXTS = ("instruction", "input", "output")
SHOWN = 10


class Fault(NamedTuple):
    """What is wrong at a place of the file."""

    line: int
    field: str
    message: str


class Parsed(NamedTuple):
    """A row as read: its line, its three texts, what else it held."""

    line: int
    texts: dict[str, str]
    extras: dict[str, Any]


class _Duplicate(ValueError):
    """A key that stands twice in one object; JSON readers would keep the last one without a word."""


def read_alpaca(path: Path, drop_empty: bool) -> tuple[list[Parsed], list[dict]]:
    """Read all rows; return them and the rejects ({line, reason, row}: rows with an empty text, if `drop_empty`).

    Raises UserError naming the first ten faults and how many more there are; a file without any row is a fault.
    """
    rows, rejects, faults = [], [], []
    for line, value in _values(Path(path), faults):
        problems = _problems(line, value)
        empty = [problem for problem in problems if problem.message == "is empty"]
        if problems and len(problems) == len(empty) and drop_empty:
            reason = "; ".join(f"{problem.field} {problem.message}" for problem in empty)
            rejects.append({"line": line, "reason": reason, "row": value})
        elif problems:
            faults += problems
        else:
            texts = {field: value.get(field) or "" for field in TEXTS}
            rows.append(Parsed(line, texts, {key: kept for key, kept in value.items() if key not in TEXTS}))
    if not rows and not faults:
        faults.append(Fault(1, "file", f"holds no row that can be used ({len(rejects)} dropped)"))
    if faults:
        raise UserError(_report(path, faults))
    return rows, rejects


def _report(path: Path, faults: list[Fault]) -> str:
    shown = [f"  line {fault.line}, {fault.field}: {fault.message}" for fault in faults[:SHOWN]]
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    hint = (
        "\nSet dataset.on_invalid: drop to leave such rows out." if all(f.message == "is empty" for f in faults) else ""
    )
    return f"{path} is not a dataset in Alpaca form:\n" + "\n".join(shown) + more + hint


def _values(path: Path, faults: list[Fault]) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) for each row; append to `faults` what is not JSON."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        faults.append(Fault(line, "file", f"is not UTF-8 (byte {error.object[error.start]:#04x})"))
        return
    if text.lstrip()[:1] == "[":
        yield from _list_values(text, faults)
    else:
        yield from _line_values(text, faults)


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Duplicate(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one row")
    return made


def _no_constant(name: str) -> None:
    raise _Duplicate(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Duplicate(f"the number {digits} is too large")
    return value


def _line_values(text: str, faults: list[Fault]) -> Iterator[tuple[int, Any]]:
    decoder = _decoder()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, decoder.decode(line)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(number, "row", _why(error)))


def _list_values(text: str, faults: list[Fault]) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON list one by one, so that each has its line. Stops at the first that is not JSON."""
    decoder = _decoder()
    at, counted, line = _skip(text, text.index("[") + 1), 0, 1
    separator = ","
    while text[at : at + 1] != "]" or separator == "missing":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            where = line + text.count("\n", at, getattr(error, "pos", at))
            faults.append(Fault(where, "row", _why(error)))
            return
        yield line, value
        at = _skip(text, end)
        separator = text[at : at + 1]
        if separator == ",":
            at, separator = _skip(text, at + 1), "missing"
        elif separator != "]":
            where = line + text.count("\n", counted, at)
            faults.append(Fault(where, "file", "is not a JSON list: `,` or `]` must follow a row"))
            return
    rest = _skip(text, at + 1)
    if rest < len(text):
        faults.append(Fault(text.count("\n", 0, rest) + 1, "file", "goes on after the list's closing `]`"))


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _why(error: Exception) -> str:
    if isinstance(error, _Duplicate):
        return str(error)
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return f"is not JSON ({getattr(error, 'msg', error)})"


def _problems(line: int, value: Any) -> list[Fault]:
    """What is wrong with one row."""
    if not isinstance(value, dict):
        return [Fault(line, "row", f"is {_kind(value)}, not an object with instruction, input and output")]
    problems = []
    for field in TEXTS:
        text = value.get(field)
        if field == "input" and text is None:
            continue
        if field not in value:
            problems.append(Fault(line, field, "is missing"))
        elif not isinstance(text, str):
            problems.append(Fault(line, field, f"is {_kind(text)}, not a text"))
        elif field != "input" and not text.strip():
            problems.append(Fault(line, field, "is empty"))
    surrogate = next((key for key, kept in value.items() if not _encodable(key) or not _encodable(kept)), None)
    if surrogate is not None:
        message = "holds half of a surrogate pair, which no UTF-8 file can hold"
        problems.append(Fault(line, surrogate.encode("utf-8", "backslashreplace").decode(), message))
    return problems


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
