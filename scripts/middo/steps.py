"""Which steps made what lies in an experiment's folder, from Snakemake's own records (.snakemake/metadata).

Snakemake keeps a JSON file per output; its name is the output's path in URL-safe base64, cut into folders where it is
long.
"""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

# A folder's name in the records that stands for the first part of a longer name.
_PART = "@"


@dataclass(frozen=True)
class Step:
    """A job that ran: its rule, program (a path in the workflow, None where it has none), files and times (UNIX)."""

    rule: str
    program: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    started: float
    ended: float


def recorded_steps(records: Path, results: Path) -> list[Step]:
    """Every recorded step whose outputs in `results` are there, in the order in which they began."""
    jobs: dict[tuple, list[str]] = {}
    found: dict[tuple, dict] = {}
    for path in sorted(records.rglob("*")):
        if path.is_dir():
            continue
        output = output_of(path.relative_to(records))
        if not Path(output).is_relative_to(results) or not Path(output).exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("incomplete") or record.get("endtime") is None:
            continue
        job = (record["rule"], record["starttime"], record["shellcmd"])
        jobs.setdefault(job, []).append(output)
        found[job] = record
    steps = [_step(record, jobs[job]) for job, record in found.items()]
    return sorted(steps, key=lambda step: (step.started, step.outputs))


def _step(record: dict, outputs: list[str]) -> Step:
    program = re.search(r"\bscripts/\S+\.py\b", record["shellcmd"] or "")
    inputs = tuple(sorted(record["input"] or []))
    times = record["starttime"], record["endtime"]
    return Step(record["rule"], program and program.group(), inputs, tuple(sorted(outputs)), *times)


def output_of(record: Path) -> str:
    """The path of the output that a record is about."""
    name = "".join(part.removeprefix(_PART) for part in record.parts)
    return base64.urlsafe_b64decode(name).decode("utf-8")
