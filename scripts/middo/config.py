"""The config's check: one schema, errors that name the key, what is wrong and what is allowed."""

import difflib
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from middo.program import UserError

FOLDER = Path(__file__).resolve().parents[2] / "config"


def check_config(config: dict[str, Any]) -> None:
    """Raise UserError listing every fault of `config` against config/schema.yaml and LLaMA-Factory's option names."""
    schema = load_yaml(FOLDER / "schema.yaml")
    check_schema(config, schema)
    _refuse(_training_faults(config["training"], schema) + _name_faults(config))


def check_schema(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """Raise UserError listing every fault of `config` against a JSON schema."""
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(config), key=_place)
    # The validator says once for each missing key what one sentence says for all of a place.
    _refuse(list(dict.fromkeys(_fault(error) for error in errors)))


def _refuse(faults: list[str]) -> None:
    if faults:
        raise UserError("The config is not valid:\n" + "\n".join(f"  - {fault}" for fault in faults))


def load_yaml(path: Path) -> Any:
    """Parse one YAML file, safely."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def _place(error: jsonschema.ValidationError) -> str:
    return ".".join(str(part) for part in error.absolute_path)


def _fault(error: jsonschema.ValidationError) -> str:
    """One sentence for one error of the schema."""
    place = _place(error)
    here = f"{place}: " if place else ""
    match error.validator:
        case "additionalProperties":
            known = sorted(error.schema["properties"])
            unknown = [key for key in error.instance if key not in known]
            return "; ".join(_unknown(f"{place}.{key}" if place else key, key, known) for key in unknown)
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            hint = "" if place else " Was --configfile config/<experiment>.yaml given?"
            return f"{here}missing: {', '.join(missing)}.{hint}"
        case "oneOf":
            return f"{here}{error.instance!r} is not allowed; a number or `auto` is."
        case "not":
            return f"{here}{error.instance!r} is a name that the workflow uses itself."
        case "enum":
            return f"{here}{error.instance!r} is not allowed; one of {', '.join(map(str, error.validator_value))} is."
        case "type":
            hint = " (YAML reads 1e-5 as text; write 1.0e-5.)" if isinstance(error.instance, str) else ""
            return f"{here}{error.instance!r} is not of the type {error.validator_value}.{hint}"
        case _:
            return f"{here}{error.message}."


def _unknown(path: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    meant = f" Did you mean {near[0]}?" if near else f" Known here: {', '.join(known)}."
    return f"{path}: there is no such key.{meant}"


def _training_faults(training: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Options that LLaMA-Factory does not have, or that the workflow sets itself."""
    options = load_yaml(FOLDER / "llamafactory_options.yaml")
    faults = []
    for key in training:
        if key in options["set_by_the_workflow"]:
            faults.append(f"training.{key}: the workflow sets this itself. {options['set_by_the_workflow'][key]}")
        elif key not in options["passed_through"]:
            known = sorted({*options["passed_through"], *schema["properties"]["training"]["properties"]})
            near = difflib.get_close_matches(key, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            faults.append(f"training.{key}: LLaMA-Factory 0.9.5 has no such option.{meant}")
    return faults


def _name_faults(config: dict[str, Any]) -> list[str]:
    """What a schema cannot say: names that must be unique, settings that must come together."""
    faults = []
    strategies = [strategy["name"] for strategy in config["strategies"]]
    columns = [*config["evaluation"]["benchmarks"], *(custom["name"] for custom in config["evaluation"]["custom"])]
    for key, names in (("strategies", strategies), ("evaluation", columns)):
        twice = sorted({name for name in names if names.count(name) > 1})
        faults += [f"{key}: the name {name} stands twice." for name in twice]
    axes = {strategy["name"]: sorted(strategy["axes"]) for strategy in config["strategies"] if "like" not in strategy}
    faults += [
        f"strategies: {strategy['name']} is to be like {strategy['like']}: that must be a strategy with the same axes, "
        "and without `like`."
        for strategy in config["strategies"]
        if "like" in strategy and axes.get(strategy["like"]) != sorted(strategy["axes"])
    ]
    if not columns:
        faults.append("evaluation: neither benchmarks nor custom names a test; the best version could not be chosen.")
    if config["evaluation"]["benchmarks"] and not config["evaluation"]["data"]:
        faults.append("evaluation.data: missing; the folder that holds the benchmarks' data/.")
    if config["teacher"]["command"] and "{port}" not in config["teacher"]["base_url"]:
        faults.append("teacher.base_url: must hold {port} where teacher.command is given.")
    if config["teacher"]["max_cost"] is not None and config["teacher"]["prices"] is None:
        faults.append("teacher.max_cost: needs teacher.prices; without them give teacher.max_requests.")
    if config["execution"]["device"] == "cpu" and config["training"].get("bf16"):
        faults.append("training.bf16: true is not allowed with execution.device: cpu.")
    return faults
