"""The config of a study: its check, and the experiment's config that each of its worlds gets."""

from pathlib import Path
from typing import Any

import yaml
from demo.study import METHOD

from middo.config import FOLDER, check_schema, load_yaml
from middo.program import UserError


def check_study(config: dict[str, Any]) -> None:
    """Raise UserError for a study that cannot be run. `config` is the defaults' and `study`."""
    known = load_yaml(FOLDER / "schema.yaml")["properties"]
    properties = {
        "name": known["experiment"],
        "base": {"type": "string"},
        "seeds": {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "integer", "minimum": 0}},
        "iterations": {"type": "integer", "minimum": 1},
        "strategies": known["strategies"],
    }
    study = {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}
    check_schema({"study": config["study"]}, {"properties": {"study": study}})
    defaults = load_yaml(FOLDER / "config.yaml")
    ignored = [key for key, value in config.items() if key != "study" and value != defaults.get(key)]
    if ignored:
        raise UserError(f"{', '.join(ignored)}: a study takes nothing but `study`; set this in the file study.base.")
    _check_base(Path(config["study"]["base"]))
    if METHOD not in [strategy["name"] for strategy in config["study"]["strategies"]]:
        raise UserError(f"study.strategies: one must be {METHOD}, with which all others are compared.")


def _check_base(base: Path) -> None:
    if not base.is_file():
        raise UserError(f"study.base: there is no {base}.")
    demo = load_yaml(base)
    for key, kind in (("experiment", str), ("demo", dict), ("teacher", dict)):
        if not isinstance(demo, dict) or not isinstance(demo.get(key), kind):
            raise UserError(f"study.base: {base} has no `{key}`; a study repeats a demo in other worlds.")


def experiment_of(study: dict[str, Any], seed: int) -> dict[str, Any]:
    """What differs from the defaults in the world with number `seed`; the experiment is <name of the study>-<seed>."""
    base = Path(study["base"]).read_text(encoding="utf-8")
    experiment = f"{study['name']}-{seed}"
    config = yaml.safe_load(base.replace(f"results/{yaml.safe_load(base)['experiment']}/", f"results/{experiment}/"))
    config["demo"]["seed"] = seed
    config["teacher"]["model"] = f"little-world-{seed}"
    return config | {name: study[name] for name in ("iterations", "strategies")} | {"experiment": experiment}
