"""List new rows that share a question with what evaluation asks: 13 words in a row, the usual sign of a leak.

Reads the files of questions of the configured benchmarks and of own tests (middo/benchmark_texts.py); prompt and
response of each new row are looked through (middo/ngrams.py). Writes JSON Lines: id, kind (leak), with (subset and
number of the question), text (the shared words).

    python scripts/leaks.py --refined middo/iter1/refined.jsonl --out middo/iter1/leaks.jsonl \\
        --evaluation '{"benchmarks": ["gsm8k_gen_1d7fe4"], "custom": [], "data": "data/benchmarks"}'
"""

import argparse
import json
from pathlib import Path

from middo import program
from middo.benchmark_texts import question_texts
from middo.files import read_jsonl, write_jsonl
from middo.ngrams import leaks
from middo.program import say
from middo.rows import prompt_text


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--refined", type=Path, required=True, help="refined.jsonl of the version")
    made.add_argument("--evaluation", type=json.loads, required=True, help="benchmarks, custom and data, as JSON")
    made.add_argument("--out", type=Path, required=True, help="leaks.jsonl to write")
    return made


def main(args: argparse.Namespace) -> None:
    rows = {row["id"]: (prompt_text(row), row["output"]) for row in read_jsonl(args.refined)}
    questions = question_texts(args.evaluation)
    found = [{"id": row, "kind": "leak", "with": name, "text": text} for row, name, text in leaks(rows, questions)]
    write_jsonl(args.out, found)
    leaking = len({hit["id"] for hit in found})
    say(f"{leaking} of {len(rows)} new rows share words with a question, of {len(questions)} questions")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
