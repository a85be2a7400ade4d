"""Measure every row of a dataset version under its tuned model, in one forward pass: `loss_post` and the embedding.

`loss_post` is measured as `loss_pre` is (scripts/base_losses.py) and joined to it by id: id, tokens, loss_pre,
loss_post, in the order of the dataset. A row of which truncation leaves no response token, and which training therefore
dropped, has null losses.

The embedding is the mean of the last hidden states over the tokens of the user's text (instruction, newline, input) as
they stand in the encoded row, L2-normalised. The template's own tokens around that text are in every row and would make
all rows alike, so they are left out, except where truncation has left nothing else. A row that LLaMA-Factory cannot
encode at all has a vector of zeros. float32 [rows, hidden], in the order of the dataset.

    python scripts/losses.py --dataset results/demo/seed/dataset.jsonl --checkpoint results/demo/seed/checkpoint \
        --training '{"template": "default", "cutoff_len": 512}' --base-losses results/demo/seed/base_losses.parquet \
        --device cpu --losses losses.parquet --embeddings embeddings.npy
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from middo import forward, llamafactory, program
from middo.files import atomic
from middo.llamafactory import EncodedRow
from middo.program import UserError
from middo.rows import check_same_ids, read_dataset
from middo.work import clear_work, work_folder


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--checkpoint", type=Path, required=True, help="the version's model folder")
    made.add_argument("--training", required=True, help="LLaMA-Factory's options as JSON (those of tokens)")
    made.add_argument("--base-losses", type=Path, required=True, help="the version's base_losses.parquet")
    made.add_argument("--losses", type=Path, required=True, help="losses.parquet to write")
    made.add_argument("--embeddings", type=Path, required=True, help="embeddings.npy to write")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    made.add_argument("--token-budget", type=int, default=32768, help="tokens of one batch, padding counted")
    return made


def main(args: argparse.Namespace) -> None:
    training = llamafactory.training_options(args.training)
    encoded = llamafactory.encode_rows(read_dataset(args.dataset), training, str(args.checkpoint))
    loss_pre = _read_base_losses(args.base_losses, encoded)
    key = forward.identity(args, training, str(args.checkpoint))
    measured = forward.measure(
        encoded,
        load=lambda: forward.load_causal_lm(str(args.checkpoint), None, args.device),
        work=work_folder(args.losses, "losses", key),
        token_budget=args.token_budget,
        with_embeddings=True,
    )
    if measured.embeddings is None:
        raise UserError(f"{args.dataset}: LLaMA-Factory can encode none of its rows.")
    with atomic(args.embeddings) as temporary, open(temporary, "wb") as stream:
        np.save(stream, measured.embeddings)
    _write_losses(args.losses, encoded, loss_pre, measured.losses)
    clear_work(args.losses)


def _read_base_losses(path: Path, encoded: list[EncodedRow]) -> dict[str, float | None]:
    """loss_pre by id. Raises UserError where the rows, or their numbers of response tokens, are not the same."""
    import polars as pl

    table = {row["id"]: row for row in pl.read_parquet(path).to_dicts()}
    check_same_ids([row.id for row in encoded], table, f"{path}, base losses")
    other = [row.id for row in encoded if row.tokens != table[row.id]["tokens"]]
    if other:
        raise UserError(
            f"{path}: {len(other)} rows have other response tokens under the base model than under the tuned one, "
            f"among them {', '.join(other[:10])}. Were template, cutoff_len or tokenizer changed?"
        )
    return {i: row["loss_pre"] for i, row in table.items()}


def _write_losses(path: Path, encoded: list[EncodedRow], pre: dict[str, Any], post: np.ndarray) -> None:
    import polars as pl

    columns = {
        "id": [row.id for row in encoded],
        "tokens": [row.tokens for row in encoded],
        "loss_pre": [pre[row.id] for row in encoded],
        "loss_post": [float(loss) if row.tokens else None for row, loss in zip(encoded, post, strict=True)],
    }
    schema = {"id": pl.String, "tokens": pl.Int32, "loss_pre": pl.Float32, "loss_post": pl.Float32}
    with atomic(path) as temporary:
        pl.DataFrame(columns, schema=schema).write_parquet(temporary)


if __name__ == "__main__":
    program.run(main, arguments(), environment="train")
