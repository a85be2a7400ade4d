"""The record beside a dataset version: what it is, and all that gave it its content."""

import platform
import shutil
import subprocess
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from middo.environment import FOLDER, pins
from middo.files import sha256_file, sha256_json, write_json
from middo.rows import ORIGINS


def write_manifest(path: Path, dataset: Path, rows: list[dict], settings: dict[str, Any], **facts: Any) -> None:
    """Write manifest.json for `dataset`, which holds `rows`.

    `settings` are the identity settings that shaped it; their hash stands beside them. `facts` are further entries.
    The entry `sha256` is that of the manifest's own canonical JSON without this entry (`own_sha256`).
    """
    origins = Counter(row["origin"] for row in rows)
    content = {
        "dataset_sha256": sha256_file(dataset),
        "rows": {"total": len(rows), **{origin: origins[origin] for origin in ORIGINS}},
        "settings": settings,
        "settings_sha256": sha256_json(settings),
        "code": code_state(),
        "libraries": {"python": platform.python_version(), "polars": version("polars")},
        **facts,
    }
    write_json(path, {**content, "sha256": own_sha256(content)})


def own_sha256(manifest: dict[str, Any]) -> str:
    """What a manifest's entry `sha256` must be."""
    return sha256_json({key: value for key, value in manifest.items() if key != "sha256"})


def environment_pins(names: list[str]) -> dict[str, Any]:
    """{name: sha256 of envs/<name>.yaml and its pins}. Every program refuses to run with other versions than those."""
    return {name: {"sha256": sha256_file(FOLDER / f"{name}.yaml"), "pins": pins(name)} for name in names}


def prompt_texts(paths: list[Path]) -> dict[str, dict[str, str]]:
    """{file name: text and sha256} of prompt files: with the text a manifest says what was asked, whatever the files
    hold by now."""
    return {p.name: {"sha256": sha256_file(p), "text": p.read_text(encoding="utf-8")} for p in paths}


def code_state() -> dict[str, Any]:
    """The git commit of this workflow and whether its files differ from it; nulls outside of a git checkout."""
    folder, unknown = Path(__file__).parent, {"commit": None, "modified": None}
    if not shutil.which("git"):
        return unknown
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True)
    if head.returncode:
        return unknown
    status = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    return {"commit": head.stdout.strip(), "modified": bool(status.stdout.strip())}
