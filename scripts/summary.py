"""Put the experiment into one table: a line per version with its rows, what was selected and what it scores.

`hard`, `sparse` and `low` are the rows of the predecessor that were selected to make the version (paper, Table 6);
`mean` is the plain mean of the benchmarks. The best version is the one with the highest mean, the earliest of equals:
the paper's fourth iteration made things worse, so the last is not assumed to be the best.

    python scripts/summary.py --results results/demo --versions seed middo/iter1 --out results/demo/summary.csv
"""

import argparse
from pathlib import Path

import polars as pl

from middo import program
from middo.benchmarks import BENCHMARKS
from middo.files import atomic, read_json, read_jsonl
from middo.thresholds import COLUMN


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--results", type=Path, required=True, help="folder of the experiment")
    made.add_argument("--versions", nargs="+", required=True, help="versions, in the order of the table")
    made.add_argument("--out", type=Path, required=True, help="summary.csv to write")
    return made


def line(folder: Path, version: str) -> dict:
    """What the table says of one version."""
    manifest, measured = read_json(folder / "manifest.json"), read_json(folder / "eval.json")
    selected, rejected = {}, 0
    if version != "seed":
        axes = read_json(folder / "selection.json")["axes"]
        selected = {COLUMN[axis]: found["selected"] for axis, found in axes.items()}
        rejected = len(read_jsonl(folder / "rejected.jsonl"))
    return {
        "version": version,
        "rows": manifest["rows"]["total"],
        **{column: selected.get(column) for column in COLUMN.values()},
        "rejected": rejected,
        **{name: found["score"] for name, found in measured["benchmarks"].items()},
        "mean": measured["mean"],
    }


def main(args: argparse.Namespace) -> None:
    table = pl.DataFrame([line(args.results / version, version) for version in args.versions], infer_schema_length=None)
    best = table["mean"].arg_max()
    table = table.with_columns(best=pl.int_range(pl.len()) == best)
    with atomic(args.out) as temporary:
        table.write_csv(temporary, float_precision=2)
    show(table)
    winner = table.row(best, named=True)
    program.say(f"best: {winner['version']}, mean {winner['mean']:.2f} ({args.out})")


def show(table: pl.DataFrame) -> None:
    """Print the table, the benchmarks by the short names that people use."""
    short = {name: benchmark.folder for name, benchmark in BENCHMARKS.items() if name in table.columns}
    marks = pl.when("best").then(pl.lit("best")).otherwise(pl.lit(""))
    shown = table.with_columns(best=marks).rename({"best": " ", **short})
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        float_precision=2,
        tbl_width_chars=-1,
        tbl_formatting="ASCII_MARKDOWN",
    ):
        program.say("\n" + str(shown).replace("null", "    "))


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
