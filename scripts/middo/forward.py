"""The forward pass: mean cross-entropy of each row's response, and its prompt's pooled hidden state.

Rows are sorted by length and put in batches of at most `token_budget` tokens, padding counted. The vocabulary's logits
are made only where the next token has a label, in slices, so that memory follows the budget and not the vocabulary.
Finished parts are kept in a work folder; which rows form a batch depends on rows and budget alone, never on restarts.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from middo.files import atomic, sha256_file
from middo.llamafactory import IGNORE, EncodedRow, library_versions, model_identity
from middo.program import Progress, UserError, say

PART_ROWS = 512
# Most float32 logits that exist at once: 256 MB.
LOGITS_AT_ONCE = 2**26


class Measured(NamedTuple):
    """`losses`: float32 [rows], NaN for a row without labels. `embeddings`: float32 [rows, hidden] of length one, zero
    for a row without tokens; None where they were not asked for."""

    losses: np.ndarray
    embeddings: np.ndarray | None


def identity(args: Namespace, training: dict[str, Any], model: str, revision: str | None = None) -> dict[str, Any]:
    """What a measurement depends on, for the key of its work folder; `args`: dataset, device, token_budget."""
    return {
        "dataset": sha256_file(args.dataset),
        "model": model_identity(model, revision),
        "training": training,
        "device": args.device,
        "token_budget": args.token_budget,
        "libraries": library_versions(),
    }


def batches_of(rows: Sequence[EncodedRow], token_budget: int) -> list[list[int]]:
    """Places of `rows` in batches, longest rows first, so that a budget too large for the memory fails at once.

    A row longer than the budget is a batch of its own; a row without tokens is in none.
    """
    order = sorted((n for n, row in enumerate(rows) if row.ids), key=lambda n: (-len(rows[n].ids), n))
    batches: list[list[int]] = []
    for place in order:
        longest = len(rows[batches[-1][0]].ids) if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def load_causal_lm(model: str, revision: str | None, device: str) -> Any:
    """The model in eval mode on `device`, bfloat16 on a GPU, float32 on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    say(f"loading {model}")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model, revision=revision or "main", dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{model}: this model cannot be loaded. {error}") from error
    loaded = loaded.to(device).eval()
    _check_head(loaded, model)
    return loaded


def _check_head(model: Any, name: str) -> None:
    """Raise UserError for an architecture whose logits are not simply lm_head of the last hidden state."""
    import torch

    with torch.inference_mode():
        ids = torch.arange(4, device=model.device)[None]
        hidden = model.base_model(input_ids=ids).last_hidden_state
        direct, official = model.get_output_embeddings()(hidden).float(), model(input_ids=ids).logits.float()
    if not torch.allclose(direct, official, rtol=1e-3, atol=1e-3):
        raise UserError(f"{name}: {type(model).__name__} changes its logits after lm_head; its losses would be wrong.")


def measure(
    rows: Sequence[EncodedRow],
    load: Callable[[], Any],
    work: Path,
    token_budget: int,
    with_embeddings: bool,
) -> Measured:
    """Measure `rows`, in parts that are kept in `work`; `load` gives the model and is called only if a part is missing.

    Without embeddings, rows that have no labels are not run at all. Raises UserError where the GPU's memory is too
    small for the budget.
    """
    wanted = [row if with_embeddings or row.tokens else row._replace(ids=[]) for row in rows]
    parts = _parts(batches_of(wanted, token_budget))
    paths = [work / f"part-{number:05d}.npz" for number in range(len(parts))]
    finished = sum(len(_places(part)) for part, path in zip(parts, paths, strict=True) if path.is_file())
    progress = Progress(sum(len(_places(part)) for part in parts), done=finished)
    model = None
    for part, path in zip(parts, paths, strict=True):
        if path.is_file():
            continue
        if model is None:
            model = load()
        results = []
        for batch in part:
            results.append(_measure_batch(model, [rows[place] for place in batch], with_embeddings))
            progress.advance(len(batch))
        _save_part(path, results)
    return _joined(len(rows), parts, paths)


def null_without_tokens(rows: Sequence[EncodedRow], losses: np.ndarray) -> list[float | None]:
    """The losses, None for a row without response tokens."""
    return [float(loss) if row.tokens else None for row, loss in zip(rows, losses, strict=True)]


def _parts(batches: list[list[int]]) -> list[list[list[int]]]:
    """Consecutive batches in groups of at least PART_ROWS rows: what a kill can cost."""
    parts: list[list[list[int]]] = []
    for batch in batches:
        if parts and len(_places(parts[-1])) < PART_ROWS:
            parts[-1].append(batch)
        else:
            parts.append([batch])
    return parts


def _places(part: list[list[int]]) -> list[int]:
    return [place for batch in part for place in batch]


def _save_part(path: Path, results: list[tuple[np.ndarray, np.ndarray | None]]) -> None:
    arrays = {"losses": np.concatenate([losses for losses, _ in results])}
    if results[0][1] is not None:
        arrays["embeddings"] = np.concatenate([embeddings for _, embeddings in results])
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)


def _joined(rows: int, parts: list[list[list[int]]], paths: list[Path]) -> Measured:
    losses = np.full(rows, np.nan, dtype=np.float32)
    embeddings = None
    for part, path in zip(parts, paths, strict=True):
        with np.load(path, allow_pickle=False) as saved:
            losses[_places(part)] = saved["losses"]
            if "embeddings" in saved:
                if embeddings is None:
                    embeddings = np.zeros((rows, saved["embeddings"].shape[1]), dtype=np.float32)
                embeddings[_places(part)] = saved["embeddings"]
    return Measured(losses, embeddings)


def _measure_batch(
    model: Any, rows: Sequence[EncodedRow], with_embeddings: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Losses float32 [rows] and embeddings float32 [rows, hidden] of one batch, padded on the right."""
    import torch

    ids, mask, labels = (tensor.to(model.device) for tensor in _padded(rows))
    try:
        with torch.inference_mode():
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            losses = _mean_losses(model.get_output_embeddings(), hidden, labels)
            embeddings = _pooled(hidden, rows) if with_embeddings else None
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"The GPU's memory is too small for a batch of {ids.numel()} tokens; lower execution.token_budget."
        ) from error
    return losses, embeddings


def _padded(rows: Sequence[EncodedRow]) -> tuple[Any, Any, Any]:
    """Token ids, attention mask, labels: int64 [rows, longest row]. Padding is masked: its id is of no account."""
    import torch

    shape = len(rows), max(len(row.ids) for row in rows)
    ids, mask, labels = torch.zeros(shape).long(), torch.zeros(shape).long(), torch.full(shape, IGNORE)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        labels[number, : len(row.ids)] = torch.tensor(row.labels)
        mask[number, : len(row.ids)] = 1
    return ids, mask, labels


def _mean_losses(head: Any, hidden: Any, labels: Any) -> np.ndarray:
    """Mean cross-entropy per label in nats, float32 [rows]; NaN without labels. `hidden`: [rows, tokens, hidden]."""
    import torch

    # The hidden state at a token predicts the next one.
    labeled = labels[:, 1:] != IGNORE
    states, targets = hidden[:, :-1][labeled], labels[:, 1:][labeled]
    step = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    losses = [
        torch.nn.functional.cross_entropy(head(some).float(), wanted, reduction="none")
        for some, wanted in zip(states.split(step), targets.split(step), strict=True)
    ]
    per_row = torch.cat(losses).cpu().double().split(labeled.sum(dim=1).tolist())
    return np.array([row.mean().item() for row in per_row], dtype=np.float32)


def _pooled(hidden: Any, rows: Sequence[EncodedRow]) -> np.ndarray:
    """Mean of the hidden states over each row's prompt span, L2-normalised, float32 [rows, hidden]."""
    import torch

    spans = [slice(*row.prompt) for row in rows]
    means = torch.stack([states[span].float().mean(dim=0) for states, span in zip(hidden, spans, strict=True)])
    return torch.nn.functional.normalize(means, dim=1).cpu().numpy()
