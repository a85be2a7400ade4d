"""Measure the loss of a shard of a dataset version's rows under the base model.

The loss is the mean cross-entropy per response token, in nats, in float32; tokens, template, prompt mask and
truncation are those of training. Rows that --known holds, the predecessor's file, are left out before the others are
dealt out to the shards. Needs no tuned model: it may run while one is trained.

Writes a parquet file with id, tokens (int32, response tokens with a loss) and loss_pre (float32; null for a row of
which truncation leaves no response token). scripts/base_losses.py puts the shards together.

    python scripts/base_losses_shard.py --dataset results/demo/middo/iter1/dataset.jsonl \
        --base-model results/demo/world/base_model --training '{"template": "default", "cutoff_len": 512}' \
        --known results/demo/seed/base_losses.parquet --device cpu --shard 1-of-2 --out 1-of-2.parquet
"""

import argparse
from pathlib import Path

from middo import forward, llamafactory, program, shards
from middo.files import atomic
from middo.losses import read_base_losses
from middo.rows import read_dataset
from middo.work import finish, restored, work_folder


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--base-model", required=True, help="folder in Hugging Face form, or name on the hub")
    made.add_argument("--revision", help="commit of a hub model")
    made.add_argument("--training", required=True, help="LLaMA-Factory's options as JSON (those of tokens)")
    program.optional_file(made, "--known", "the predecessor's base_losses.parquet, if any")
    shards.add_argument(made)
    made.add_argument("--out", type=Path, required=True, help="parquet file to write")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    made.add_argument("--token-budget", type=int, default=32768, help="tokens of one batch, padding counted")
    return made


def main(args: argparse.Namespace) -> None:
    import polars as pl

    training = llamafactory.training_options(args.training)
    known = set(read_base_losses(args.known)["id"])
    rows = args.shard.of([row for row in read_dataset(args.dataset) if row["id"] not in known])
    key = forward.identity(args, training, args.base_model, args.revision) | {"rows": [row["id"] for row in rows]}
    work = work_folder(args.out, "losses", key)
    if restored(work, [args.out]):
        return
    encoded = llamafactory.encode_rows(rows, training, args.base_model, args.revision) if rows else []
    measured = forward.measure(
        encoded,
        load=lambda: forward.load_causal_lm(args.base_model, args.revision, args.device),
        work=work,
        token_budget=args.token_budget,
        with_embeddings=False,
    )
    columns = {
        "id": [row.id for row in encoded],
        "tokens": [row.tokens for row in encoded],
        "loss_pre": forward.null_without_tokens(encoded, measured.losses),
    }
    schema = {"id": pl.String, "tokens": pl.Int32, "loss_pre": pl.Float32}
    with atomic(args.out) as temporary:
        pl.DataFrame(columns, schema=schema).write_parquet(temporary)
    finish(work, [args.out])


if __name__ == "__main__":
    program.run(main, arguments(), environment="train")
