"""The base model on this machine: a folder, or a snapshot that was fetched from the Hugging Face hub.

No step asks the hub anything: compute nodes often have no network, and a branch of the hub moves. What `fetch` has
fetched is found here, with the commit that it is.
"""

import json
import os
from pathlib import Path

from middo.program import UserError

IDENTITY_SUFFIXES = {".json", ".safetensors", ".model", ".jinja", ".txt"}


def model_folder(model: str, revision: str | None) -> Path | None:
    """The folder of a local model, or of a hub model's snapshot in the cache (HF_HOME); None where there is none."""
    if Path(model).is_dir():
        return Path(model)
    if _is_path(model):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision or "main", local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def commit(model: str, revision: str | None) -> str:
    """The commit of a hub model as it was fetched; before that, and for a folder, the revision as it is given."""
    folder = None if Path(model).is_dir() else model_folder(model, revision)
    return folder.name if folder else revision or "main"


def check_model(model: str, revision: str | None) -> None:
    """Raise UserError, saying what to do, unless the model lies on this machine with all its weights.

    A model that brings code of its own is refused: nothing runs code that came with a model.
    """
    folder = model_folder(model, revision)
    if folder is None and _is_path(model):
        raise UserError(f"base_model.path: there is no folder {model}.")
    if folder is None:
        raise UserError(f"base_model.path: {model} was not fetched from the hub. Run: snakemake fetch --configfile …")
    missing = missing_files(folder)
    if missing:
        raise UserError(f"base_model.path: {folder} lacks {', '.join(missing)}; was its download cut off?")
    for name in ("config.json", "tokenizer_config.json"):
        if '"auto_map"' in (folder / name).read_text(encoding="utf-8"):
            raise UserError(
                f"base_model.path: {folder / name} names code to run (auto_map). No code that comes with a model is "
                "run (trust_remote_code is false everywhere); take a model of an architecture that transformers has."
            )


def missing_files(folder: Path) -> list[str]:
    """What a model folder in Hugging Face form lacks: config.json, tokenizer, weights in safetensors."""
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing += [name for name in names if not (folder / name).is_file()]
    elif not (folder / "model.safetensors").is_file():
        missing.append("model.safetensors")
    return missing


def identity_files(folder: Path) -> list[Path]:
    """The files of a model folder that say which model it is: config, tokenizer, weights; sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in IDENTITY_SUFFIXES)


def megabytes(folder: Path | None) -> int:
    """Size of a model's weights, rounded up; 0 where there is no folder."""
    weights = folder.glob("*.safetensors") if folder else []
    return sum(-(-os.stat(path).st_size // 10**6) for path in weights)


def _is_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") != 1
