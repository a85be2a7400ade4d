"""The summary of an experiment, by the program itself on artifacts made here."""

import csv
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from middo.benchmarks import BENCHMARKS


def make_version(folder, mean, selected=None):
    folder.mkdir(parents=True)
    scores = {name: {"score": mean + place - 3.5} for place, name in enumerate(BENCHMARKS)}
    (folder / "eval.json").write_text(json.dumps({"benchmarks": scores, "mean": mean}))
    (folder / "manifest.json").write_text(json.dumps({"rows": {"total": 100}}))
    if selected is not None:
        (folder / "selection.json").write_text(json.dumps({"axes": selected}))
        (folder / "rejected.jsonl").write_text('{"id": "a"}\n{"id": "b"}\n')


def summarize(folder, *versions):
    command = [sys.executable, ROOT / "scripts/summary.py", "--results", folder, "--versions", *versions]
    return subprocess.run([*command, "--out", folder / "summary.csv"], capture_output=True, text=True, check=True)


def test_the_best_version_is_chosen_and_not_the_last(tmp_path):
    make_version(tmp_path / "seed", 30.0)
    make_version(tmp_path / "middo/iter1", 42.5, {"complexity": {"selected": 7}, "quality": {"selected": 3}})
    make_version(tmp_path / "middo/iter2", 42.5, {"complexity": {"selected": 2}, "diversity": {"selected": 5}})
    make_version(tmp_path / "middo/iter3", 41.0, {"complexity": {"selected": 1}})
    shown = summarize(tmp_path, "seed", "middo/iter1", "middo/iter2", "middo/iter3").stderr
    with open(tmp_path / "summary.csv", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["best"] for line in lines] == ["false", "true", "false", "false"], "the earlier of equals"
    assert [(line["hard"], line["sparse"], line["low"], line["rejected"]) for line in lines] == [
        ("", "", "", "0"),
        ("7", "", "3", "2"),
        ("2", "5", "", "2"),
        ("1", "", "", "2"),
    ]
    assert [float(line["mean"]) for line in lines] == [30.0, 42.5, 42.5, 41.0]
    assert float(lines[1]["mmlu_zero_shot_gen_47e2c0"]) == pytest.approx(39.0)
    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(table) == 6 and all(name in table[0] for name in ("mmlu", "gsm8k", "hellaswag", "gpqa"))
    assert "best: middo/iter1, mean 42.50" in shown


def test_a_summary_of_the_seed_alone(tmp_path):
    make_version(tmp_path / "seed", 12.0)
    assert "best: seed, mean 12.00" in summarize(tmp_path, "seed").stderr
