"""The record beside a dataset version: what it is, and all that gave it its content."""

import platform
import shutil
import subprocess
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from middo.files import sha256_file, sha256_json, write_json
from middo.rows import ORIGINS


def write_manifest(path: Path, dataset: Path, rows: list[dict], settings: dict[str, Any], **facts: Any) -> None:
    """Write manifest.json for `dataset`, which holds `rows`.

    `settings` are the identity settings that shaped it; their hash stands beside them. `facts` are further entries.
    """
    origins = Counter(row["origin"] for row in rows)
    write_json(
        path,
        {
            "dataset_sha256": sha256_file(dataset),
            "rows": {"total": len(rows), **{origin: origins[origin] for origin in ORIGINS}},
            "settings": settings,
            "settings_sha256": sha256_json(settings),
            "code": code_state(),
            "libraries": {"python": platform.python_version(), "polars": version("polars")},
            **facts,
        },
    )


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
