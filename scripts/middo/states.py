"""Saved states of an interrupted training: which of them are whole."""

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple


class State(NamedTuple):
    """A folder from which training can go on, and the number of optimizer steps made by then."""

    folder: Path
    step: int


def last_whole_state(run: Path, processes: int) -> State | None:
    """The latest whole state in the output folder of a training with `processes` processes, None without one.

    States that a kill left half written are removed: neither must training go on from them, nor may they count as the
    one state that is kept.
    """
    whole = []
    for folder in run.glob("checkpoint-*"):
        step = int(re.fullmatch(r"checkpoint-(\d+)", folder.name)[1])
        if _is_whole(folder, step, processes):
            whole.append(State(folder, step))
        else:
            shutil.rmtree(folder)
    return max(whole, key=lambda state: state.step, default=None)


def _is_whole(folder: Path, step: int, processes: int) -> bool:
    """Whether a state has all its parts to their ends. trainer_state.json is what the trainer writes last."""
    try:
        written = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (FileNotFoundError, ValueError):
        return False
    random_states = len(list(folder.glob("rng_state*.pth")))
    weights = list(folder.glob("*.safetensors"))
    pickled = [path for pattern in ("*.pt", "*.pth") for path in folder.rglob(pattern)]
    return (
        written == step
        and random_states >= processes
        and bool(weights)
        and all(map(_is_whole_safetensors, weights))
        and (folder / "scheduler.pt").is_file()
        and _has_optimizer(folder)
        # PyTorch's files are zip archives, whose directory stands at the end.
        and all(map(zipfile.is_zipfile, pickled))
    )


def _has_optimizer(folder: Path) -> bool:
    """Whether there is an optimizer state: the trainer's file, or the folder that DeepSpeed's `latest` names."""
    latest = folder / "latest"
    if latest.is_file():
        return any((folder / latest.read_text(encoding="utf-8").strip()).glob("*optim_states.pt"))
    return (folder / "optimizer.pt").is_file()


def _is_whole_safetensors(path: Path) -> bool:
    """Whether the file is as long as its header says: 8 bytes with the header's length, the header, the tensors."""
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length)
    if len(header) != length or not length:
        return False
    tensors = [tensor for name, tensor in json.loads(header).items() if name != "__metadata__"]
    end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    return path.stat().st_size == 8 + length + end
