"""Prove that every version of an experiment follows from the seed file, and tell how it came about.

    python scripts/audit.py results/demo                  # prove all of it: a table, exit status 0; or what is wrong, 1
    python scripts/audit.py trace 3f2a                    # one row's story (the beginning of its id is enough)
    python scripts/audit.py diff seed middo/iter1         # what changed between two versions
    python scripts/audit.py rebuild middo/iter2           # a shell script that makes a version again

The audit reads every dataset, selection, refined file and manifest of the experiment and every stored answer of the
teacher, and changes nothing. It finds any changed byte in them. `trace`, `diff` and `rebuild` take what they read as it
is; they work in the only experiment under results/, or in the one that --results names.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import polars as pl

from middo import program
from middo.audit import Audit, audit
from middo.lineage import ANSWERS, StoredAnswers, experiment_folder, find_version, load_lineages
from middo.program import UserError
from middo.rebuild import rebuild
from middo.trace import coloured, diff, find_row, plain, trace

COMMANDS = ("prove", "trace", "diff", "rebuild")
SHOWN = 50


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    commands = made.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, explained: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=explained, description=explained)
        sub.add_argument("--answers", type=Path, help=f"stored answers, {ANSWERS}/ beside the experiment if not given")
        return sub

    sub = command("prove", "prove every version; `prove` may be left out before a folder")
    sub.add_argument("results", nargs="?", type=Path, help="folder of the experiment, results/<experiment>")
    sub = command("trace", "one row's story, from the seed to what became of it")
    sub.add_argument("id", help="the row's id, or a beginning of it that no other has")
    sub.add_argument("--results", type=Path, help="folder of the experiment")
    sub = command("diff", "what changed between two versions: counts, and the rows")
    sub.add_argument("first", help="a version: seed, or <strategy>/iter<t>")
    sub.add_argument("second", help="another")
    sub.add_argument("--results", type=Path, help="folder of the experiment")
    sub = command("rebuild", "print a shell script, with the environment lock, that makes a version again")
    sub.add_argument("version", help="seed, or <strategy>/iter<t>")
    sub.add_argument("--results", type=Path, help="folder of the experiment")
    return made


def with_command(words: list[str]) -> list[str]:
    """`audit.py FOLDER` means `audit.py prove FOLDER`."""
    return words if words and (words[0] in COMMANDS or words[0].startswith("-")) else ["prove", *words]


def show_audit(found: Audit) -> None:
    """Print the table, the notes and the faults."""
    table = pl.DataFrame(found.lines, infer_schema_length=None)
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_width_chars=-1,
        fmt_str_lengths=200,
        tbl_formatting="ASCII_MARKDOWN",
    ):
        print(str(table).replace("null", "    "))
    for note in found.notes:
        print(f"note: {note}")
    for fault in found.faults[:SHOWN]:
        print(f"wrong: {fault.where}: {fault.what}")
    if len(found.faults) > SHOWN:
        print(f"and {len(found.faults) - SHOWN} more")


def main(args: argparse.Namespace) -> None:
    results = experiment_folder(args.results)
    root = args.answers or results.parent / ANSWERS
    if args.command == "prove":
        found = audit(results, root)
        show_audit(found)
        if found.faults:
            raise UserError(f"{results}: {len(found.faults)} things are not as they must be; see above.")
        print(f"{results}: every row of every version is traced back to the seed file")
        return
    versions = load_lineages(results)
    paint = coloured if sys.stdout.isatty() and "NO_COLOR" not in os.environ else plain
    if args.command == "trace":
        lines = trace(versions, StoredAnswers(root), find_row(versions, args.id), paint)
    elif args.command == "diff":
        lines = diff(versions, args.first, args.second, paint)
    else:
        lines = rebuild(find_version(versions, args.version), results)
    for line in lines:
        print(line)


if __name__ == "__main__":
    # Whoever reads only the first lines (`| head`) is no error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.argv[1:] = with_command(sys.argv[1:])
    program.run(main, arguments(), environment="driver")
