"""What tests/unit/test_forward.py asserts about, measured in one process of the train environment.

.venvs/train/bin/python tests/forward_checks.py <folder of tiny_model.py> <results.npz>
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import base_losses_shard
import finetune
import losses_shard

from middo import forward, llamafactory
from middo.program import UserError
from middo.rows import prompt_text, read_dataset

TRAINING = {"template": "default", "cutoff_len": 64}


def independent(model, rows) -> tuple[list[float], list[np.ndarray]]:
    """Each row alone through transformers: its own loss, and the pooled prompt of a pass that sees only the prompt."""
    found, pooled = [], []
    for row in rows:
        with torch.no_grad():
            ids, labels = torch.tensor([row.ids]), torch.tensor([row.labels])
            found.append(model(input_ids=ids, labels=labels).loss.item())
            start, end = row.prompt
            states = model(input_ids=ids[:, :end], output_hidden_states=True).hidden_states[-1][0, start:]
        mean = states.mean(dim=0)
        pooled.append((mean / mean.norm()).numpy())
    return found, pooled


def template_by_hand(tokenizer, row) -> tuple[list[int], list[int]]:
    """Ids of the template `default` as its definition reads, and where the user's text begins and ends in them."""
    pieces = [f"Human: {prompt_text(row)}", "</s>", "\nAssistant:", row["output"], "</s>", "\n"]
    ids = [tokenizer.encode(piece, add_special_tokens=False) for piece in pieces]
    offsets = tokenizer(pieces[0], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    start = next(place for place, (_, end) in enumerate(offsets) if end > len("Human: "))
    return [i for piece in ids for i in piece], [start, len(ids[0])]


def run_base_losses(tiny: Path, out: Path, *more: str) -> pl.DataFrame:
    required = ["--dataset", tiny / "dataset.jsonl", "--base-model", tiny / "base", "--training", TRAINING_TEXT]
    options = [*required, "--device", "cpu", "--token-budget", 256, "--out", out, *more]
    base_losses_shard.main(base_losses_shard.arguments().parse_args(list(map(str, options))))
    return pl.read_parquet(out)


TRAINING_TEXT = '{"template": "default", "cutoff_len": 64, "deepspeed": null}'


def counted(function):
    """The function, and the numbers of rows of the batches it was called with."""
    calls = []

    def wrapper(model, rows, with_embeddings):
        calls.append(len(rows))
        return function(model, rows, with_embeddings)

    return wrapper, calls


def interrupted_then_finished(tiny: Path, work: Path, stop_after: int) -> tuple[bytes, int]:
    """Bytes of base_losses.parquet and batches run, where a run breaks off after some batches and is repeated."""
    original = forward._measure_batch
    forward._measure_batch, calls = counted(original)

    def breaking(model, rows, with_embeddings):
        if len(calls) == stop_after:
            raise InterruptedError
        return counting(model, rows, with_embeddings)

    counting, forward._measure_batch = forward._measure_batch, breaking
    try:
        run_base_losses(tiny, work / "base_losses.parquet")
    except InterruptedError:
        assert not (work / "base_losses.parquet").exists()
        forward._measure_batch = counting
        run_base_losses(tiny, work / "base_losses.parquet")
    forward._measure_batch = original
    return (work / "base_losses.parquet").read_bytes(), len(calls)


def options_of_the_parser() -> list[str]:
    from llamafactory.hparams.parser import _TRAIN_ARGS

    return sorted({field.name for part in _TRAIN_ARGS for field in dataclasses.fields(part) if field.init})


def main(tiny: Path, out: Path) -> None:
    rows = read_dataset(tiny / "dataset.jsonl")
    encoded = llamafactory.encode_rows(rows, TRAINING, str(tiny / "base"))
    model = forward.load_causal_lm(str(tiny / "base"), None, "cpu")
    tokenizer = llamafactory._processor(TRAINING, str(tiny / "base"), None).tokenizer
    by_hand = [template_by_hand(tokenizer, row) for row in rows]
    reference, pooled = independent(model, encoded)
    saved = {"reference": reference, "pooled": pooled, "parser": options_of_the_parser()}
    saved["same_ids"] = [row.ids == ids for row, (ids, _) in zip(encoded, by_hand, strict=True)]
    saved["truncated"] = [len(ids) > 64 for ids, _ in by_hand]
    saved["spans"] = [row.prompt for row in encoded]
    saved["spans_by_hand"] = [span for _, span in by_hand]
    saved["lengths"] = [len(row.ids) for row in encoded]
    with tempfile.TemporaryDirectory() as folder:
        for budget in (256, 4096):
            work = Path(folder, str(budget))
            work.mkdir()
            measured = forward.measure(encoded, lambda: model, work, budget, with_embeddings=True)
            saved[f"losses_{budget}"], saved[f"embeddings_{budget}"] = measured
        saved |= programs(tiny, Path(folder))
    in_shards(tiny, out.parent)
    np.savez(out, **saved)


def programs(tiny: Path, folder: Path) -> dict:
    """The programs as their rules run them: with a known file, interrupted, in one, two, seven and 500 shards."""
    forward.PART_ROWS = 32
    whole = run_base_losses(tiny, folder / "base_losses.parquet")
    plain, count = interrupted_then_finished(tiny, folder / "whole", stop_after=10**6)
    broken, again = interrupted_then_finished(tiny, folder / "broken", stop_after=20)
    poisoned = whole[:200].with_columns(loss_pre=pl.lit(99.0, pl.Float32)).sample(fraction=1.0, shuffle=True, seed=1)
    poisoned.write_parquet(folder / "known.parquet")
    forward._measure_batch, calls = counted(forward._measure_batch)
    known = run_base_losses(tiny, folder / "known_used.parquet", "--known", folder / "known.parquet")
    new_rows = sum(calls)
    return {
        "unencodable": refused(finetune, finetune_options(tiny, folder)),
        "known_loss_pre": known["loss_pre"].to_numpy(),
        "new_rows": new_rows,
        "same_bytes": plain == broken,
        "batches": [count, again],
        "work_left": len(list(folder.glob("whole/.work/*/part-*"))),
    }


def in_shards(tiny: Path, out: Path) -> None:
    """Leave the shards of base losses and losses, by their names, in folders after the number of shards."""
    common = ["--dataset", tiny / "dataset.jsonl", "--training", TRAINING_TEXT, "--device", "cpu"]
    for count in (1, 2, 7):
        for number in range(1, count + 1):
            shard = ["--shard", f"{number}-of-{count}", "--token-budget", 1024]
            run_base_losses(tiny, out / f"{count}" / f"base_losses_{number}.parquet", *shard)
            losses = out / f"{count}" / f"losses_{number}.parquet"
            options = [*common, *shard, "--checkpoint", tiny / "base", "--out", losses]
            losses_shard.main(losses_shard.arguments().parse_args(list(map(str, options))))
    # More shards than rows: this one has none.
    run_base_losses(tiny, out / "500" / "base_losses_500.parquet", "--shard", "500-of-500")


def finetune_options(tiny: Path, folder: Path) -> list:
    options = ["--dataset", tiny / "dataset.jsonl", "--base-model", tiny / "base", "--training", TRAINING_TEXT]
    for name in ("checkpoint", "sha256", "report", "dropped"):
        options += [f"--{name}", folder / "tuned" / name]
    return [*options, "--device", "cpu"]


def refused(program, options: list) -> str:
    """The message with which a program refuses its work."""
    try:
        program.main(program.arguments().parse_args(list(map(str, options))))
    except UserError as error:
        return str(error)
    raise AssertionError(f"{program.__name__} accepted {options}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
