"""Work that must survive a restart: a folder beside the output, keyed by what the output is made from.

Snakemake deletes declared outputs before a rerun; these folders are not declared, so an interrupted step finds what
it had finished. The key makes sure that it finds only parts of the same work.
"""

import shutil
from pathlib import Path
from typing import Any

from middo.files import sha256_json
from middo.method import METHOD


def work_folder(output: Path, step: str, key: dict[str, Any]) -> Path:
    """`<folder of output>/.work/<stem>-<hash>`, created. `key` holds what gives the output of `step` its meaning."""
    meaning = {"method": METHOD[step], **key}
    folder = Path(output).parent / ".work" / f"{Path(output).stem}-{sha256_json(meaning)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear_work(output: Path) -> None:
    """Remove every work folder of `output`: it is finished, what older keys left is of no use."""
    parent = Path(output).parent / ".work"
    for folder in parent.glob(f"{Path(output).stem}-*"):
        shutil.rmtree(folder)
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
