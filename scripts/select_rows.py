"""Select the rows of a version that the teacher is to work on: hard, sparse and low ones.

Joins the signals of the version by id and compares each with τ = μ + m·σ (method section 2). m is a number per axis, or
`auto`: chosen on the first iteration (paper B.3), read from that iteration's selection.json by the later ones. A row
without a rating is never selected for quality; such rows are counted. With --like no signal is read: as many rows as
another strategy has selected are drawn at random, for comparison. Writes selection.parquet (per row: id, hard,
sparse, low and the signals) and selection.json (per axis: m, μ, σ, τ, numbers and shares; how many rows that try to
steer the judge are among the selected and the others).

    python scripts/select_rows.py --dataset seed/dataset.jsonl --losses seed/losses.parquet \\
        --neighbors seed/neighbors.parquet --scores seed/scores.parquet --axes complexity diversity quality \\
        --complexity 1 --diversity auto --quality -1.5 --selection selection.parquet --report selection.json
"""

import argparse
from pathlib import Path

import polars as pl

from middo import program
from middo.files import atomic, read_json, write_json
from middo.program import UserError, say
from middo.rows import check_same_ids, read_dataset
from middo.thresholds import COLUMN, SIGNALS, choose_m, draw, select

# Rank correlation below which ratings are taken to be unrelated to losses.
UNRELATED = 0.05
FILES = {"complexity": "losses", "diversity": "neighbors", "quality": "scores"}


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    for axis, name in FILES.items():
        program.optional_file(made, f"--{name}", f"{name}.parquet of the version, for the axis {axis}")
    made.add_argument("--axes", nargs="*", choices=list(SIGNALS), required=True, help="axes in use")
    for axis in SIGNALS:
        made.add_argument(f"--{axis}", type=_m, default="auto", help=f"m of the {axis} axis: a number or auto")
    program.optional_file(made, "--first", "selection.json of iteration 1, whose m are taken for `auto`")
    program.optional_file(made, "--like", "selection.json of another strategy, whose numbers of rows are drawn")
    made.add_argument("--draw", default="", help="what the draw depends on, besides axis and id")
    made.add_argument("--selection", type=Path, required=True, help="selection.parquet to write")
    made.add_argument("--report", type=Path, required=True, help="selection.json to write")
    return made


def _m(text: str) -> float | str:
    return text if text == "auto" else float(text)


def read_signals(dataset: Path, files: dict[str, Path]) -> pl.DataFrame:
    """One row per row of `dataset`, in its order: id and every signal (Float32), null for axes without a file.

    Raises UserError where a file's ids are not the dataset's.
    """
    ids = [row["id"] for row in read_dataset(dataset)]
    signals = pl.DataFrame({"id": ids}, schema={"id": pl.String})
    for axis, names in SIGNALS.items():
        if axis not in files:
            signals = signals.with_columns(pl.lit(None, dtype=pl.Float32).alias(name) for name in names)
            continue
        read = pl.read_parquet(files[axis], columns=["id", *names])
        check_same_ids(ids, read["id"].to_list(), str(files[axis]))
        signals = signals.join(read, on="id", how="left", maintain_order="left")
    return signals


def count_steering(scores: Path | None, selected: pl.Series, ids: pl.Series) -> dict[str, int] | None:
    """How many of the `selected` rows and of the others try to steer the judge; None where nobody has looked."""
    if scores is None or "steering" not in pl.read_parquet_schema(scores):
        return None
    flags = pl.read_parquet(scores, columns=["id", "steering"])
    both = pl.DataFrame({"id": ids, "selected": selected}).join(flags, on="id", how="left")
    steering = both.filter("steering")["selected"]
    return {"selected": int(steering.sum()), "unselected": int((~steering).sum())}


def warn_without_signal(signals: pl.DataFrame) -> None:
    """Say so where ratings and losses have nothing to do with each other: the base model may be too weak to judge."""
    paired = signals.drop_nulls(["quality", "loss_post"])
    correlation = (
        paired.select(pl.corr("quality", "loss_post", method="spearman")).item() if paired.height > 2 else None
    )
    if correlation is not None and abs(correlation) < UNRELATED:
        say(
            f"warning: quality is unrelated to the loss (rank correlation {correlation:.3f}); do the ratings mean much?"
        )


def select_by_signals(args: argparse.Namespace) -> tuple[pl.DataFrame, dict[str, dict]]:
    """Selection and report by thresholds on the signals."""
    missing = [FILES[axis] for axis in args.axes if not getattr(args, FILES[axis])]
    if missing:
        raise UserError(f"--{missing[0]} is needed for the axes {', '.join(args.axes)}.")
    signals = read_signals(args.dataset, {axis: getattr(args, FILES[axis]) for axis in args.axes})
    settings = {axis: getattr(args, axis) for axis in SIGNALS if axis in args.axes}
    if args.first and "auto" in settings.values():
        first = read_json(args.first)["axes"]
        settings = {axis: first[axis]["m"] if m == "auto" else m for axis, m in settings.items()}
    warn_without_signal(signals)
    return select(signals, choose_m(signals, settings))


def main(args: argparse.Namespace) -> None:
    if args.like:
        selected, report = draw(read_signals(args.dataset, {}), args.axes, read_json(args.like)["axes"], args.draw)
    else:
        selected, report = select_by_signals(args)
    chosen = selected.select(pl.any_horizontal(*COLUMN.values()).alias("chosen"))["chosen"]
    union = int(chosen.sum())
    for axis, found in report.items():
        how = "drawn at random" if "drawn" in found else f"m = {found['m']:g}"
        say(
            f"{axis}: {how}, {found['selected']} {COLUMN[axis]} rows ({found['share']:.1%})"
            + (f", {found['without_signal']} without a signal" if found["without_signal"] else "")
        )
    say(f"{union} of {selected.height} rows selected ({union / selected.height:.1%})")
    with atomic(args.selection) as temporary:
        selected.write_parquet(temporary)
    totals = {"rows": selected.height, "selected": union, "share": union / selected.height}
    steering = count_steering(args.scores if "quality" in args.axes else None, chosen, selected["id"])
    write_json(args.report, {"axes": report, **totals, "steering": steering})


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
