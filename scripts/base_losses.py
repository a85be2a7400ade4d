"""Put together the losses of a dataset version's rows under the base model: `loss_pre` of the complexity signal.

The base model never changes, so rows that --known holds, the predecessor's file, are taken from there by id; the
others come from the shards (scripts/base_losses_shard.py). Writes a parquet file with id, tokens (int32, response
tokens with a loss) and loss_pre (float32; null for a row of which truncation leaves no response token), in the order of
the dataset.

    python scripts/base_losses.py --dataset results/demo/middo/iter1/dataset.jsonl \
        --known results/demo/seed/base_losses.parquet --shards 1-of-2.parquet 2-of-2.parquet --out base_losses.parquet
"""

import argparse
from pathlib import Path

import polars as pl

from middo import program
from middo.files import atomic
from middo.losses import read_base_losses
from middo.program import say
from middo.rows import read_dataset
from middo.shards import gathered


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    program.optional_file(made, "--known", "the predecessor's base_losses.parquet, if any")
    made.add_argument("--shards", type=Path, nargs="+", required=True, help="what base_losses_shard.py has written")
    made.add_argument("--out", type=Path, required=True, help="base_losses.parquet to write")
    return made


def main(args: argparse.Namespace) -> None:
    ids = [row["id"] for row in read_dataset(args.dataset)]
    known = read_base_losses(args.known).filter(pl.col("id").is_in(ids))
    taken = set(known["id"])
    new = gathered(args.shards, [i for i in ids if i not in taken], "base losses of new rows")
    say(f"{len(known)} of {len(ids)} rows were known, {len(new)} are new")
    table = pl.DataFrame({"id": ids}).join(pl.concat([known, new]), on="id", how="left", maintain_order="left")
    with atomic(args.out) as temporary:
        table.write_parquet(temporary)


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
