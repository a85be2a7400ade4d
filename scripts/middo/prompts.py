"""Prompt files: templates in config/prompts/ with named places such as {prompt}, filled in one pass."""

import re
from pathlib import Path
from typing import Any

from middo.program import UserError
from middo.rows import prompt_text

_PLACE = re.compile(r"\{([a-z]+)\}")


def read_template(path: Path, places: set[str]) -> str:
    """The text of a prompt file without its last newline.

    Raises UserError unless the places in it are exactly `places`, each at least once.
    """
    text = Path(path).read_text(encoding="utf-8").removesuffix("\n")
    found = set(_PLACE.findall(text))
    if found != places:
        wanted = ", ".join(f"{{{place}}}" for place in sorted(places))
        has = ", ".join(f"{{{place}}}" for place in sorted(found)) or "none"
        raise UserError(f"{path}: this prompt must have the places {wanted}; it has {has}.")
    return text


def fill(template: str, **values: str) -> str:
    """Put `values` in their places. What a value holds is never read as a place itself."""
    return _PLACE.sub(lambda match: values[match[1]], template)


def quote_hints(rows: list[dict[str, Any]]) -> str:
    """The hint prompts, numbered. Each of their lines is marked, so that none can pass for a part of our own prompt."""
    quoted = ["\n".join(f"> {line}" for line in prompt_text(row).splitlines()) for row in rows]
    return "\n\n".join(f"Hint {number}:\n{text}" for number, text in enumerate(quoted, start=1)) or "none"
