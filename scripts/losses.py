"""Put together what a version's tuned model makes of its rows: losses before and after training, and embeddings.

From the shards (scripts/losses_shard.py), joined by id with the losses under the base model. Writes losses.parquet (id,
tokens, loss_pre, loss_post; int32 and float32, null losses where a row has no response token) and embeddings.npy
(float32 [rows, hidden], zeros for a row that could not be encoded), both in the order of the dataset.

    python scripts/losses.py --dataset results/demo/seed/dataset.jsonl --shards 1-of-2.parquet 2-of-2.parquet \
        --base-losses results/demo/seed/base_losses.parquet --losses losses.parquet --embeddings embeddings.npy
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from middo import program
from middo.files import atomic
from middo.losses import read_base_losses
from middo.program import UserError
from middo.rows import check_same_ids, read_dataset
from middo.shards import gathered


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--shards", type=Path, nargs="+", required=True, help="what losses_shard.py has written")
    made.add_argument("--base-losses", type=Path, required=True, help="the version's base_losses.parquet")
    made.add_argument("--losses", type=Path, required=True, help="losses.parquet to write")
    made.add_argument("--embeddings", type=Path, required=True, help="embeddings.npy to write")
    return made


def main(args: argparse.Namespace) -> None:
    ids = [row["id"] for row in read_dataset(args.dataset)]
    measured = gathered(args.shards, ids, "losses")
    losses = join_base_losses(measured.drop("embedding"), args.base_losses)
    embeddings = matrix(measured["embedding"], args.dataset)
    with atomic(args.embeddings) as temporary, open(temporary, "wb") as stream:
        np.save(stream, embeddings)
    with atomic(args.losses) as temporary:
        losses.write_parquet(temporary)


def join_base_losses(measured: pl.DataFrame, path: Path) -> pl.DataFrame:
    """id, tokens, loss_pre, loss_post. Raises UserError where rows, or their numbers of response tokens, differ."""
    base = read_base_losses(path)
    check_same_ids(measured["id"].to_list(), base["id"].to_list(), f"{path}, base losses")
    joined = measured.join(base, on="id", how="left", suffix="_pre", maintain_order="left")
    other = joined.filter(pl.col("tokens") != pl.col("tokens_pre"))["id"].to_list()
    if other:
        raise UserError(
            f"{path}: {len(other)} rows have other response tokens under the base model than under the tuned one, "
            f"among them {', '.join(other[:10])}. Were template, cutoff_len or tokenizer changed?"
        )
    return joined.select("id", "tokens", "loss_pre", "loss_post")


def matrix(vectors: pl.Series, dataset: Path) -> np.ndarray:
    """float32 [rows, hidden], zeros for nulls. Raises UserError where there is no vector at all."""
    width = vectors.list.len().max()
    if not width:
        raise UserError(f"{dataset}: LLaMA-Factory can encode none of its rows.")
    embeddings = np.zeros((len(vectors), width), dtype=np.float32)
    there = vectors.is_not_null().to_numpy()
    embeddings[there] = vectors.drop_nulls().list.to_array(width).to_numpy()
    return embeddings


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
