"""Every wrong setting is refused before a job starts, with its key; every key is documented."""

import copy
from pathlib import Path

import pytest

from middo.benchmarks import BENCHMARKS
from middo.config import FOLDER, check_config, load_yaml
from middo.config_docs import table
from middo.program import UserError


def merged(*files):
    config = {}
    for file in files:
        deep_update(config, load_yaml(FOLDER / file))
    return config


def deep_update(into, values):
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            deep_update(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def set_key(config, path, value):
    *parents, last = path.split(".")
    for part in parents:
        config = config.setdefault(part, {})
    config[last] = value


# A study is no experiment; test_study.py checks what it makes of the demo's config.
OTHERS = {"config", "schema", "llamafactory_options", "demo-study"}
EXPERIMENTS = sorted(path.name for path in FOLDER.glob("*.yaml") if path.stem not in OTHERS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shipped_configs_are_valid(name):
    config = merged("config.yaml", name)
    config["evaluation"]["data"] = config["evaluation"]["data"] or "data"
    check_config(config)


def test_six_settings_of_the_paper_are_shipped():
    wanted = {
        ("Llama-3.1-8B", "alpaca"): (1, -1, -1.5),
        ("Llama-3.1-8B", "alpaca-4o-mini"): (0, -1, -0.5),
        ("Llama-3.1-8B", "wizard"): (1, -1.5, -2),
        ("Mistral-7B-v0.3", "alpaca"): (0.5, -2, -1),
        ("Mistral-7B-v0.3", "alpaca-4o-mini"): (1, -2, -2.5),
        ("Mistral-7B-v0.3", "wizard"): (1, -1.5, -1.5),
    }
    found = {}
    for name in EXPERIMENTS:
        config = merged("config.yaml", name)
        base = config["base_model"]["path"].split("/")[-1]
        dataset = config["experiment"].partition("-")[2]
        if base in {"Llama-3.1-8B", "Mistral-7B-v0.3"}:
            found[base, dataset] = tuple(config[axis]["m"] for axis in ("complexity", "diversity", "quality"))
            assert config["training"]["learning_rate"] == (2e-5 if "Llama" in base else 1e-5)
            assert len(config["evaluation"]["benchmarks"]) == 8
    assert found == wanted


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("complexty", {}, "complexty: there is no such key. Did you mean complexity?"),
        ("complexity.n", 1, "complexity.n: there is no such key"),
        ("complexity.m", "much", "complexity.m: 'much' is not allowed; a number or `auto` is."),
        ("quality.reading", "mean", "quality.reading: 'mean' is not allowed; one of expected, greedy is."),
        ("iterations", "three", "iterations: 'three' is not of the type integer"),
        ("iterations", -1, "iterations: -1 is less than the minimum of 0"),
        ("training.learning_rate", "1e-5", "write 1.0e-5"),
        ("training.learning_rat", 1e-5, "LLaMA-Factory 0.9.5 has no such option. Did you mean learning_rate?"),
        ("training.output_dir", "x", "training.output_dir: the workflow sets this itself"),
        ("training.template", None, "training.template: None is not of the type string"),
        ("experiment", "../x", "experiment"),
        ("experiment", "teacher_answers", "a name that the workflow uses itself"),
        ("strategies", [], "strategies"),
        ("strategies", [{"name": "a", "axes": ["loss"]}], "strategies.0.axes.0: 'loss' is not allowed"),
        ("strategies", [{"name": "a", "axes": ["quality"]}] * 2, "the name a stands twice"),
        ("strategies", [{"name": "a", "axes": ["quality"], "like": "b"}], "a is to be like b"),
        ("teacher.api_key", "sk-1", "teacher.api_key: there is no such key. Did you mean api_key_env?"),
        ("teacher.base_url", "localhost", "teacher.base_url"),
        ("teacher.max_cost", 5, "teacher.max_cost: needs teacher.prices"),
        ("teacher.max_requests", 0, "teacher.max_requests: 0 is less than the minimum of 1"),
        ("teacher.prices", {"input": 1}, "teacher.prices: missing: output"),
        ("evaluation.custom", [], "neither benchmarks nor custom"),
        ("execution.device", "tpu", "one of cuda, cpu is"),
        ("training.bf16", True, "training.bf16: true is not allowed with execution.device: cpu"),
        ("seed", True, "seed: True is not of the type integer"),
    ],
)
def test_wrong_settings_are_refused(path, value, message):
    config = merged("config.yaml", "demo.yaml")
    set_key(config, path, value)
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert message in str(caught.value)


def test_all_faults_are_named_at_once():
    config = merged("config.yaml", "demo.yaml")
    set_key(config, "iterations", "x")
    set_key(config, "teacher.top_p", 2)
    del config["dataset"]["path"]
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert all(part in str(caught.value) for part in ("iterations", "teacher.top_p", "dataset: missing: path"))


def test_keys_missing_in_one_place_are_one_fault():
    config = merged("config.yaml", "demo.yaml")
    del config["diversity"]["m"], config["diversity"]["k"]
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert str(caught.value).count("diversity: missing: m, k.") == 1


def test_the_benchmarks_of_the_schema_are_those_that_can_be_measured():
    listed = load_yaml(FOLDER / "schema.yaml")["properties"]["evaluation"]["properties"]["benchmarks"]["items"]["enum"]
    assert listed == list(BENCHMARKS)


def test_every_key_is_documented():
    assert table() in (Path(FOLDER) / "README.md").read_text(encoding="utf-8")
