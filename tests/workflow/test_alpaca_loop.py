"""The whole loop, for real, on 300 rows of Stanford Alpaca, with GSM8K by its official config on 20 real problems."""

import json
import shutil

import pytest
import yaml
from checks import check_checkpoint, check_signals, check_version, jsonl
from conftest import SHARED, make_checkout, snakemake

ALPACA = SHARED / "data/alpaca/alpaca_9229.json"
GSM8K = SHARED / "data/benchmarks/gsm8k_test.jsonl"


@pytest.fixture(scope="module")
def alpaca(demo, tmp_path_factory):
    for needed in (ALPACA, GSM8K):
        if not needed.is_file():
            pytest.skip(f"{needed} is absent")
    folder = make_checkout(tmp_path_factory.mktemp("alpaca") / "checkout")
    rows = [row for row in json.loads(ALPACA.read_text(encoding="utf-8")) if row["output"]][:300]
    data = folder / "data"
    (data / "benchmarks/data/gsm8k").mkdir(parents=True)
    (data / "alpaca.json").write_text(json.dumps(rows))
    shutil.copy(GSM8K, data / "benchmarks/data/gsm8k/test.jsonl")
    shutil.copy(GSM8K, data / "benchmarks/data/gsm8k/train.jsonl")
    shutil.copytree(demo / "results/demo/world/base_model", folder / "base_model")
    config = yaml.safe_load((folder / "config/demo.yaml").read_text())
    del config["demo"]
    config |= {
        "experiment": "alpaca-300",
        "base_model": {"path": "base_model"},
        "dataset": {"path": "data/alpaca.json", "on_unencodable": "drop"},
        "iterations": 1,
        "complexity": {"m": 0.5},
        "diversity": {"m": -1.5, "k": 3},
        "quality": {"m": -1.5},
        "evaluation": {
            "benchmarks": ["gsm8k_gen_1d7fe4"],
            "custom": [],
            "data": "data/benchmarks",
            "max_out_len": 32,
            "limit": 20,
        },
    }
    (folder / "config/alpaca.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(folder, "--configfile", "config/alpaca.yaml", "--cores", "2")
    assert "steps (100%) done" in done.stdout
    return folder / "results/alpaca-300", rows


def test_the_seed_is_the_file(alpaca):
    results, rows = alpaca
    assert [
        {field: row[field] for field in ("instruction", "input", "output")}
        for row in jsonl(results / "seed/dataset.jsonl")
    ] == rows


def test_signals_and_versions(alpaca):
    results, _ = alpaca
    check_signals(results / "seed", k=3)
    check_version(results / "seed", results / "middo/iter1", 1)
    check_checkpoint(results / "seed")
    check_checkpoint(results / "middo/iter1")


def test_gsm8k_was_asked_20_real_problems(alpaca):
    results, _ = alpaca
    problems = jsonl(GSM8K)[:20]
    for version in ("seed", "middo/iter1"):
        measured = json.loads((results / version / "eval.json").read_text())["benchmarks"]["gsm8k_gen_1d7fe4"]
        assert measured["rows"] == 20 and 0 <= measured["score"] <= 100
        (kept,) = (results / version / "eval/predictions").rglob("gsm8k*.json")
        asked = json.loads(kept.read_text())
        assert len(asked) == 20
        for number, problem in enumerate(problems):
            assert problem["question"] in json.dumps(asked[str(number)]["origin_prompt"], ensure_ascii=False)
