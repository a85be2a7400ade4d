"""Work that must survive a restart: a folder beside the output, keyed by what the output is made from.

Snakemake deletes declared outputs before a rerun; these folders are not declared, so an interrupted step finds what
it had finished. The key makes sure that it finds only parts of the same work.

A step may also end after the Snakemake that started it has died. Nobody has recorded that it ended, so the next
Snakemake deletes its outputs and runs it again. Therefore its finished outputs stay in the work folder as well, as hard
links, which take no room, until Snakemake has seen them and says `forget_finished`.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from middo.files import sha256_json, sync_folder
from middo.method import METHOD
from middo.program import say

FINISHED = "finished"


def work_folder(output: Path, step: str, key: dict[str, Any]) -> Path:
    """`<folder of output>/.work/<stem>-<hash>`, created. `key` holds what gives the output of `step` its meaning."""
    meaning = {"method": METHOD[step], **key}
    folder = Path(output).parent / ".work" / f"{Path(output).stem}-{sha256_json(meaning)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def restored(work: Path, outputs: Sequence[Path]) -> bool:
    """Whether `work` was finished before; then `outputs`, files or folders, are put back from there."""
    finished = work / FINISHED
    if not finished.is_dir():
        return False
    for output in outputs:
        _link(finished / output.name, output)
    say("was finished before; its results are taken from there")
    return True


def finish(work: Path, outputs: Sequence[Path]) -> None:
    """Keep `outputs` in `work`, until `forget_finished`, and nothing else; remove what older keys of it have left."""
    kept, temporary = work / FINISHED, work / f".{FINISHED}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for output in outputs:
        _link(output, temporary / output.name)
    sync_folder(temporary)
    shutil.rmtree(kept, ignore_errors=True)
    os.replace(temporary, kept)
    sync_folder(work)
    for path in [*work.iterdir(), *work.parent.glob(f"{_stem(work)}-*")]:
        if path not in (kept, work):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def forget_finished(output: Path) -> None:
    """Let go of what `finish` kept of `output`, which whoever asked for it has got, and of the shards it came from."""
    parent, shards = Path(output).parent / ".work", Path(output).parent / "shards" / ".work"
    for kept in parent.glob(f"{Path(output).stem}-*/{FINISHED}"):
        shutil.rmtree(kept)
        _remove_if_empty(kept.parent)
    for folder in shards.glob(f"{Path(output).stem}_*"):
        # Finished ones, and those of a number of shards that is no longer in force.
        shutil.rmtree(folder)
    for folder in (parent, shards, shards.parent):
        _remove_if_empty(folder)


def clear_work(output: Path) -> None:
    """Remove every work folder of `output`: for a step whose results can be made again at no cost."""
    parent = Path(output).parent / ".work"
    for folder in parent.glob(f"{Path(output).stem}-*"):
        shutil.rmtree(folder)
    _remove_if_empty(parent)


def _stem(work: Path) -> str:
    return work.name.rpartition("-")[0]


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link of `source`, or a folder of such links, which appears whole; a copy where the file
    system knows no hard links."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.unlink(missing_ok=True)
    if source.is_dir():
        shutil.copytree(source, temporary, copy_function=_link_file)
        shutil.rmtree(target, ignore_errors=True)
    else:
        _link_file(source, temporary)
        # Renaming one link of a file to another of the same does nothing.
        target.unlink(missing_ok=True)
    os.replace(temporary, target)
    sync_folder(target.parent)


def _link_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
