"""Losses: rows sorted by length, batches by token budget, logits only where there are labels; against batches of eight.

Prints response tokens per second of both, measured in turn, and checks that they give the same losses.

    OMP_NUM_THREADS=2 .venvs/train/bin/python tests/benchmarks/bench_losses.py \
        --model results/demo/seed/checkpoint --dataset results/demo/seed/dataset.jsonl
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from middo import forward, llamafactory
from middo.rows import read_dataset


def batches_of_eight(model, rows):
    """Losses by eight rows in dataset order, the whole vocabulary's logits at every position: the plain way."""
    losses = []
    for start in range(0, len(rows), 8):
        ids, mask, labels = forward._padded(rows[start : start + 8])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        found = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        losses += (found.sum(dim=1) / (labels[:, 1:] != llamafactory.IGNORE).sum(dim=1)).tolist()
    return np.array(losses, dtype=np.float32)


def sorted_batches(model, rows, budget):
    """Losses by the program's own pass."""
    with tempfile.TemporaryDirectory() as work:
        return forward.measure(rows, lambda: model, Path(work), budget, with_embeddings=False).losses


def main():
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", required=True)
    made.add_argument("--dataset", type=Path, required=True)
    made.add_argument("--cutoff-len", type=int, default=512)
    made.add_argument("--token-budget", type=int, default=4096)
    made.add_argument("--rounds", type=int, default=5)
    args = made.parse_args()
    options = {"template": "default", "cutoff_len": args.cutoff_len}
    encoded = llamafactory.encode_rows(read_dataset(args.dataset), options, args.model)
    rows = [row for row in encoded if row.tokens]
    model = forward.load_causal_lm(args.model, None, "cpu")
    ways = {
        "batches of 8": lambda: batches_of_eight(model, rows),
        "by token budget": lambda: sorted_batches(model, rows, args.token_budget),
    }
    seconds, values = {name: [] for name in ways}, {}
    for _ in range(args.rounds):
        for name, measure in ways.items():
            started = time.perf_counter()
            values[name] = measure()
            seconds[name].append(time.perf_counter() - started)
    plain, ours = values.values()
    tokens = sum(row.tokens for row in rows)
    for name, took in seconds.items():
        print(f"{name:16} {tokens / statistics.median(took):10.0f} response tokens/s (median of {args.rounds})")
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    print(f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"largest difference of a loss: {np.abs(plain - ours).max():.1e}")


if __name__ == "__main__":
    main()
