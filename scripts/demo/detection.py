"""How well each signal finds the planted faults of the demo's world. For the demo alone; not a part of the method.

Of each axis: how many of its selected rows have the fault that it is meant to find, against a draw of as many rows at
random (lift), with a 95 % interval, and the AUROC of its signal, which does not depend on the threshold. Rows that the
teacher made have no fault. Writes JSON: per axis rows, faults, selected, hits, lift, lift_interval, auroc.

    python scripts/demo/detection.py --faults world/faults.jsonl --seed seed/dataset.jsonl \\
        --selection middo/iter1/selection.parquet --out middo/iter1/detection.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import polars as pl

from middo import program
from middo.files import read_jsonl, write_json
from middo.program import UserError, say
from middo.thresholds import COLUMN, SIGN, SIGNALS

# What each axis is meant to find.
FAULTS = {"complexity": {"hard"}, "diversity": {"rare"}, "quality": {"wrong", "unclear"}}
# 97.5 % point of the normal distribution.
Z = 1.959964


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--faults", type=Path, required=True, help="the planted faults, by row number of the seed")
    made.add_argument("--seed", type=Path, required=True, help="dataset.jsonl of the seed")
    made.add_argument("--selection", type=Path, required=True, help="selection.parquet of a version")
    made.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return made


def faults_by_id(faults: list[dict], seed: list[dict]) -> dict[str, str]:
    """The fault of each faulty seed row by its id. Raises UserError where the list is not one of these rows."""
    found = {}
    for fault in faults:
        row = seed[fault["row"]]
        if (row["instruction"], row["input"]) != (fault["instruction"], fault["input"]):
            raise UserError(f"row {fault['row']} of the seed is not the one in which the fault was planted.")
        found[row["id"]] = fault["fault"]
    return found


def interval(hits: int, drawn: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, weight = hits / drawn, Z**2 / drawn
    middle = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * (share * (1 - share) / drawn + weight / (4 * drawn)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def strength(selection: pl.DataFrame, axis: str) -> pl.Series:
    """How far a row lies on the axis's side: the standardised signal, of two the smaller, for both must be beyond."""
    parts = [
        (SIGN[axis] * (pl.col(name) - pl.col(name).mean()) / pl.col(name).std(ddof=0)).alias(name)
        for name in SIGNALS[axis]
    ]
    return selection.select(parts).select(pl.min_horizontal(pl.all())).to_series()


def auroc(values: pl.Series, positive: pl.Series) -> float | None:
    """The chance that a positive has a higher value than a negative, ties half; over rows with a value."""
    table = pl.DataFrame({"value": values, "positive": positive}).drop_nulls()
    positives = int(table["positive"].sum())
    negatives = table.height - positives
    if not positives or not negatives:
        return None
    ranks = float(table["value"].rank("average").filter(table["positive"]).sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def measure(selection: pl.DataFrame, faults: dict[str, str]) -> dict[str, dict]:
    """What the module's docstring says, per axis that selected anything; null where no row has the fault."""
    found = {}
    for axis, column in COLUMN.items():
        faulty = pl.Series([faults.get(identity) in FAULTS[axis] for identity in selection["id"]])
        selected, hits = int(selection[column].sum()), int((selection[column] & faulty).sum())
        if not selected:
            continue
        base = float(faulty.mean())
        found[axis] = {
            "rows": selection.height,
            "faults": int(faulty.sum()),
            "selected": selected,
            "hits": hits,
            "lift": hits / selected / base if base else None,
            "lift_interval": [end / base for end in interval(hits, selected)] if base else None,
            "auroc": auroc(strength(selection, axis), faulty),
        }
    return found


def main(args: argparse.Namespace) -> None:
    faults = faults_by_id(read_jsonl(args.faults), read_jsonl(args.seed))
    found = measure(pl.read_parquet(args.selection), faults)
    for axis, line in found.items():
        shown = ""
        if line["lift"] is not None:
            shown = ": lift {:.1f} ({:.1f} to {:.1f})".format(line["lift"], *line["lift_interval"])
        if line["auroc"] is not None:
            shown += f", AUROC {line['auroc']:.2f}"
        say(
            f"{axis}: {line['hits']} of {line['selected']} selected rows have the fault, {line['faults']} of "
            f"{line['rows']} rows do{shown}"
        )
    write_json(args.out, found)


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
