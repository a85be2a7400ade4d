"""Is this interpreter the environment that envs/<name>.yaml describes? Asked by every program before it works."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from middo.program import UserError

FOLDER = Path(__file__).resolve().parents[2] / "envs"


def pins(name: str) -> list[str]:
    """The pip requirements of envs/<name>.yaml, in order.

    Raises UserError where there is no such file.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise UserError(f"There is no environment '{name}': {path} does not exist. Known: {known}.")
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    listed = next(part["pip"] for part in dependencies if isinstance(part, dict))
    return [pin for pin in listed if not pin.startswith("--")]


def require_environment(name: str) -> None:
    """Raise UserError unless every exact pin of envs/<name>.yaml is what this interpreter has installed."""
    wrong = []
    for pin in pins(name):
        package, exact, wanted = pin.partition("==")
        if not exact:
            continue
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "nothing"
        if found != wanted:
            wrong.append(f"{package} {wanted} (found {found})")
    if wrong:
        raise UserError(
            f"{sys.executable} is not the environment '{name}'. It lacks {', '.join(wrong)}. "
            f"Build it with: python scripts/build_env.py {name}"
        )
