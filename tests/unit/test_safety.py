"""No pickle, no code that comes with a model, no unsafe YAML: what the sources may not hold, and how it is told."""

import ast
import json
import pickle
import re

import numpy as np
import pytest
from checks import is_pickle
from conftest import ROOT

from middo.hub import check_model
from middo.program import UserError

SOURCES = sorted(path for pattern in ("scripts/**/*.py", "rules/*.smk", "Snakefile") for path in ROOT.glob(pattern))
FORBIDDEN = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def calls(path):
    """(name, keywords) of each call in a Python file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix == ".py"], ids=lambda path: path.stem)
def test_sources_load_nothing_that_runs_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {n.module.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert not imported & FORBIDDEN
    for name, keywords in calls(path):
        last = name.rpartition(".")[2]
        assert name not in ("torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.dump")
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False", name
        if last in ("from_pretrained", "LLM") and not name.startswith("snapshot"):
            assert keywords.get("trust_remote_code") == "False", name


def test_nothing_sets_trust_remote_code():
    for path in [*SOURCES, *ROOT.glob("config/**/*.yaml"), *ROOT.glob("slurm/*.yaml")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            wrong = re.search(r"--trust.remote.code|trust_remote_code['\"]?\s*[:=]\s*true", line, re.IGNORECASE)
            assert not wrong, f"{path}: {line}"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_with_code_of_its_own_is_refused(name, tmp_path):
    for file in ("config.json", "tokenizer_config.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    check_model(str(tmp_path), None)
    (tmp_path / name).write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}))
    with pytest.raises(UserError, match=rf"{name} names code to run \(auto_map\)"):
        check_model(str(tmp_path), None)


def test_a_pickle_is_known_by_its_content(tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a").write_bytes(pickle.dumps({"a": [1, "b"]}, protocol))
        assert is_pickle(tmp_path / "a"), protocol
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object))
    np.save(tmp_path / "numbers.npy", np.zeros(3, dtype=np.float32))
    np.savez(tmp_path / "numbers.npz", np.zeros(3))
    assert is_pickle(tmp_path / "objects.npy")
    assert not is_pickle(tmp_path / "numbers.npy") and not is_pickle(tmp_path / "numbers.npz")
    for text in ("", "{}\n", '{"a": 1}\n', "a,b\n1,2\n", "N", "[demo] 3 of 4\n"):
        (tmp_path / "a").write_text(text)
        assert not is_pickle(tmp_path / "a"), text
