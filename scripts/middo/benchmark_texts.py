"""The questions of benchmarks and of own files as texts, read as OpenCompass 0.5.4 reads them."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from middo.benchmarks import BENCHMARKS
from middo.files import read_json, read_jsonl
from middo.opencompass import read_questions
from middo.program import UserError

# Where a record of a benchmark's file has its question, by the benchmark's folder.
_QUESTION: dict[str, Callable[[Any], str]] = {
    "mmlu": lambda row: row[0],
    "IFEval": lambda row: row["prompt"],
    "gsm8k": lambda row: row["question"],
    "math": lambda row: row["problem"],
    "humaneval": lambda row: row["prompt"],
    "mbpp": lambda row: row["text"],
    # "Topic: context"
    "hellaswag": lambda row: row["query"].split(": ", 1)[-1],
    "gpqa": lambda row: row[7],
}


def question_files(evaluation: dict[str, Any]) -> list[str]:
    """The files that hold the questions of an evaluation; not those that a benchmark's prompts take examples from."""
    folder = Path(evaluation["data"] or ".") / "data"
    names = [str(folder / file) for name in evaluation["benchmarks"] for file in BENCHMARKS[name].subsets.values()]
    return names + [own["path"] for own in evaluation["custom"]]


def question_texts(evaluation: dict[str, Any]) -> dict[str, str]:
    """Every question of an evaluation by `<subset> <number>`, numbers from 0 as OpenCompass counts; `limit` is ignored.

    Raises UserError where a file is not the benchmark's.
    """
    texts = {}
    for name in evaluation["benchmarks"]:
        benchmark = BENCHMARKS[name]
        for subset, file in benchmark.subsets.items():
            path = Path(evaluation["data"]) / "data" / file
            try:
                records = list(_records(path))[benchmark.skip :][: benchmark.most]
                read = [_QUESTION[benchmark.folder](record) for record in records]
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                raise UserError(f"{path} is not the file of {name} that OpenCompass reads: {error!r}.") from error
            texts |= {f"{subset} {number}": text for number, text in enumerate(read)}
    for own in evaluation["custom"]:
        texts |= {f"{own['name']} {number}": row["question"] for number, row in enumerate(read_questions(own))}
    return texts


def _records(path: Path) -> Iterator[Any]:
    match path.suffix:
        case ".jsonl":
            yield from read_jsonl(path)
        case ".csv":
            with open(path, encoding="utf-8", newline="") as stream:
                yield from (row for row in csv.reader(stream) if row)
        case _:
            values = read_json(path)
            yield from (values.values() if isinstance(values, dict) else values)
