"""Measure the loss of every row of a dataset version under the base model: `loss_pre` of the complexity signal.

The loss is the mean cross-entropy per response token, in nats, in float32; tokens, template, prompt mask and
truncation are those of training. The base model never changes, so rows that --known holds, the predecessor's file, are
taken from there by id and only the others are computed. Needs no tuned model: it may run while one is trained.

Writes a parquet file with id, tokens (int32, response tokens with a loss) and loss_pre (float32; null for a row of
which truncation leaves no response token), in the order of the dataset.

    python scripts/base_losses.py --dataset results/demo/middo/iter1/dataset.jsonl \
        --base-model results/demo/world/base_model --training '{"template": "default", "cutoff_len": 512}' \
        --known results/demo/seed/base_losses.parquet --device cpu --out base_losses.parquet
"""

import argparse
from pathlib import Path
from typing import Any

from middo import forward, llamafactory, program
from middo.files import atomic
from middo.llamafactory import EncodedRow
from middo.program import UserError, say
from middo.rows import read_dataset
from middo.work import clear_work, work_folder


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--dataset", type=Path, required=True, help="dataset.jsonl of the version")
    made.add_argument("--base-model", required=True, help="folder in Hugging Face form, or name on the hub")
    made.add_argument("--revision", help="commit of a hub model")
    made.add_argument("--training", required=True, help="LLaMA-Factory's options as JSON (those of tokens)")
    program.optional_file(made, "--known", "the predecessor's base_losses.parquet, if any")
    made.add_argument("--out", type=Path, required=True, help="base_losses.parquet to write")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    made.add_argument("--token-budget", type=int, default=32768, help="tokens of one batch, padding counted")
    return made


def main(args: argparse.Namespace) -> None:
    import polars as pl

    training = llamafactory.training_options(args.training)
    rows = read_dataset(args.dataset)
    known = _read_known(args.known)
    new = [row for row in rows if row["id"] not in known]
    say(f"{len(rows) - len(new)} of {len(rows)} rows are known, {len(new)} are new")
    for row, loss in _measure(args, training, new) if new else []:
        known[row.id] = {"tokens": row.tokens, "loss_pre": loss}
    columns = {
        "id": [row["id"] for row in rows],
        "tokens": [known[row["id"]]["tokens"] for row in rows],
        "loss_pre": [known[row["id"]]["loss_pre"] for row in rows],
    }
    schema = {"id": pl.String, "tokens": pl.Int32, "loss_pre": pl.Float32}
    with atomic(args.out) as temporary:
        pl.DataFrame(columns, schema=schema).write_parquet(temporary)
    clear_work(args.out)


def _read_known(path: Path | None) -> dict[str, dict[str, Any]]:
    """tokens and loss_pre by id. Raises UserError for a file that is not such a table."""
    import polars as pl

    if path is None:
        return {}
    table = pl.read_parquet(path)
    if table.columns != ["id", "tokens", "loss_pre"]:
        raise UserError(f"{path}: the columns are {', '.join(table.columns)}, not id, tokens, loss_pre.")
    return {row.pop("id"): row for row in table.to_dicts()}


def _measure(
    args: argparse.Namespace, training: dict[str, Any], new: list[dict]
) -> list[tuple[EncodedRow, float | None]]:
    """The new rows, encoded, each with its loss; None without response tokens."""
    encoded = llamafactory.encode_rows(new, training, args.base_model, args.revision)
    key = forward.identity(args, training, args.base_model, args.revision) | {"rows": [row["id"] for row in new]}
    measured = forward.measure(
        encoded,
        load=lambda: forward.load_causal_lm(args.base_model, args.revision, args.device),
        work=work_folder(args.out, "losses", key),
        token_budget=args.token_budget,
        with_embeddings=False,
    )
    losses = [float(loss) if row.tokens else None for row, loss in zip(encoded, measured.losses, strict=True)]
    return list(zip(encoded, losses, strict=True))


if __name__ == "__main__":
    program.run(main, arguments(), environment="train")
