"""The table of all settings in config/README.md, made from the schema and the defaults.

python scripts/middo/config_docs.py writes it anew.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from middo.config import FOLDER, load_yaml

BEGIN, END = "<!-- settings: made by scripts/middo/config_docs.py -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """A Markdown table: key, default, allowed, meaning."""
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    lines += _rows(load_yaml(FOLDER / "schema.yaml"), load_yaml(FOLDER / "config.yaml"), "")
    return "\n".join(lines) + "\n"


def _rows(schema: dict[str, Any], defaults: Any, prefix: str) -> list[str]:
    rows = []
    for key, part in schema["properties"].items():
        default = defaults.get(key, ...) if isinstance(defaults, dict) else ...
        nested = part if "properties" in part else part.get("items", {})
        shown = "" if default is ... or isinstance(default, dict) else f"`{json.dumps(default)}`"
        meaning = part["description"].strip().replace("|", "\\|")
        rows.append(f"| `{prefix}{key}` | {shown} | {_allowed(part)} | {meaning} |")
        if "properties" in nested:
            step = "." if nested is part else "[]."
            rows += _rows(nested, default, f"{prefix}{key}{step}")
    return rows


def _allowed(part: dict[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if "oneOf" in part:
        return "number or `auto`"
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    limits = [
        f"{sign} {part[name]}"
        for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
        if name in part
    ]
    return " or ".join(kinds) + (" " + ", ".join(limits) if limits else "")


if __name__ == "__main__":
    path = FOLDER / "README.md"
    head, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    path.write_text(head + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
