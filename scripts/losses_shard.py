"""Measure a shard of a version's rows under its tuned model, in one forward pass: `loss_post` and the embedding.

`loss_post` is measured as `loss_pre` is (scripts/base_losses_shard.py). A row of which truncation leaves no response
token, and which training therefore dropped, has none.

The embedding is the mean of the last hidden states over the tokens of the user's text (instruction, newline, input) as
they stand in the encoded row, L2-normalised. The template's own tokens around that text are in every row and would make
all rows alike, so they are left out, except where truncation has left nothing else. A row that LLaMA-Factory cannot
encode at all has none.

Writes a parquet file with id, tokens (int32), loss_post (float32 or null) and embedding (list of float32, or null).
scripts/losses.py puts the shards together.

    python scripts/losses_shard.py --dataset results/demo/seed/dataset.jsonl --checkpoint results/demo/seed/checkpoint \
        --training '{"template": "default", "cutoff_len": 512}' --device cpu --shard 1-of-2 --out 1-of-2.parquet
"""

import argparse
from pathlib import Path
from typing import Any

from middo import forward, llamafactory, program, shards
from middo.files import atomic
from middo.forward import Measured
from middo.llamafactory import EncodedRow
from middo.rows import read_dataset
from middo.work import finish, restored, work_folder


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--checkpoint", type=Path, required=True, help="the version's model folder")
    made.add_argument("--training", required=True, help="LLaMA-Factory's options as JSON (those of tokens)")
    shards.add_argument(made)
    made.add_argument("--out", type=Path, required=True, help="parquet file to write")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    made.add_argument("--token-budget", type=int, default=32768, help="tokens of one batch, padding counted")
    return made


def main(args: argparse.Namespace) -> None:
    training = llamafactory.training_options(args.training)
    rows = args.shard.of(read_dataset(args.dataset))
    key = forward.identity(args, training, str(args.checkpoint)) | {"rows": [row["id"] for row in rows]}
    work = work_folder(args.out, "losses", key)
    if restored(work, [args.out]):
        return
    encoded = llamafactory.encode_rows(rows, training, str(args.checkpoint)) if rows else []
    measured = forward.measure(
        encoded,
        load=lambda: forward.load_causal_lm(str(args.checkpoint), None, args.device),
        work=work,
        token_budget=args.token_budget,
        with_embeddings=True,
    )
    with atomic(args.out) as temporary:
        # Directions of a hidden space do not compress.
        _table(encoded, measured).write_parquet(temporary, compression="uncompressed")
    finish(work, [args.out])


def _table(encoded: list[EncodedRow], measured: Measured) -> Any:
    import polars as pl

    # A row that could not be encoded has no tokens at all.
    embeddings = [None] * len(encoded)
    if measured.embeddings is not None:
        embeddings = [vector if row.ids else None for row, vector in zip(encoded, measured.embeddings, strict=True)]
    columns = {
        "id": [row.id for row in encoded],
        "tokens": [row.tokens for row in encoded],
        "loss_post": forward.null_without_tokens(encoded, measured.losses),
        "embedding": embeddings,
    }
    schema = {"id": pl.String, "tokens": pl.Int32, "loss_post": pl.Float32, "embedding": pl.List(pl.Float32)}
    return pl.DataFrame(columns, schema=schema)


if __name__ == "__main__":
    program.run(main, arguments(), environment="train")
