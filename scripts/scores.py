"""Put together how a version's model rates its rows: clarity, completeness and factuality of prompt and response.

From the shards (scripts/scores_shard.py). Says mean, spread and gaps of the ratings, and warns where they tell rows
apart no longer. Writes scores.parquet (id, six ratings, quality; float32, null where there is none; steering: whether
the row's text tries to steer the judge, see middo/steering.py), in the order of the dataset.

    python scripts/scores.py --dataset results/demo/seed/dataset.jsonl --shards 1-of-2.parquet 2-of-2.parquet \
        --out scores.parquet
"""

import argparse
from pathlib import Path

import polars as pl

from middo import program
from middo.files import atomic
from middo.program import say
from middo.ratings import RATINGS
from middo.rows import read_dataset
from middo.shards import gathered
from middo.steering import steering

# Below this standard deviation of quality, on a scale of ten, the model gives all rows the same rating.
NO_SIGNAL = 0.05


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--shards", type=Path, nargs="+", required=True, help="what scores_shard.py has written")
    made.add_argument("--out", type=Path, required=True, help="scores.parquet to write")
    return made


def main(args: argparse.Namespace) -> None:
    rows = read_dataset(args.dataset)
    table = gathered(args.shards, [row["id"] for row in rows], "ratings")
    table = table.with_columns(pl.Series("steering", steering(rows), dtype=pl.Boolean))
    report(table)
    with atomic(args.out) as temporary:
        table.write_parquet(temporary)


def report(table: pl.DataFrame) -> None:
    """Say mean, spread and gaps of the ratings; warn where they tell rows apart no longer (method.md, section 7)."""
    qualities = table["quality"]
    steered = int(table["steering"].sum())
    if steered:
        say(f"{steered} rows try to steer the judge: see the column `steering`")
    gaps = sum(table[name].null_count() for name in RATINGS)
    if gaps:
        say(f"{gaps} ratings of {qualities.null_count()} rows are missing: prompt too long, or no finite number")
    if qualities.count() == 0:
        say("warning: no row has a quality, so none can be selected for it")
        return
    mean, spread = qualities.mean(), qualities.cast(pl.Float64).std(ddof=0)
    say(f"{qualities.count()} rows rated: quality {mean:.2f} on average, standard deviation {spread:.3f}")
    if spread < NO_SIGNAL:
        say(f"warning: quality hardly differs between rows (standard deviation {spread:.4f}): no signal to select by")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
