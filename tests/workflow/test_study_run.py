"""The study, run for real in the demo's world with one iteration: its numbers are those of the runs that it started."""

import json
import shutil

import polars as pl
import pytest
import yaml
from conftest import make_checkout, snakemake

STUDY = {
    "name": "tiny",
    "base": "config/demo.yaml",
    "seeds": [1],
    "iterations": 1,
    "strategies": [{"name": "middo", "axes": ["complexity", "diversity", "quality"]}, {"name": "none", "axes": []}],
}
RUN = ("--configfile", "config/tiny.yaml", "--cores", "2")


@pytest.fixture(scope="module")
def studied(demo, tmp_path_factory):
    folder = make_checkout(tmp_path_factory.mktemp("study") / "checkout")
    shutil.copytree(demo / "results/demo/world", folder / "results/tiny-1/world")
    (folder / "config/tiny.yaml").write_text(yaml.safe_dump({"study": STUDY}))
    snakemake(folder, *RUN)
    return folder


def test_its_accuracies_are_those_of_the_evaluations(studied, demo):
    runs = pl.read_csv(studied / "results/tiny/runs.csv")
    found = {(strategy, iteration): score for _, strategy, iteration, score in runs.iter_rows()}
    scores = {
        version: json.loads((studied / f"results/tiny-1/{version}/eval.json").read_text())["benchmarks"]["heldout"][
            "score"
        ]
        for version in ("seed", "middo/iter1", "none/iter1")
    }
    assert found == {
        ("middo", 0): pytest.approx(scores["seed"], abs=0.005),
        ("none", 0): pytest.approx(scores["seed"], abs=0.005),
        ("middo", 1): pytest.approx(scores["middo/iter1"], abs=0.005),
        ("none", 1): pytest.approx(scores["none/iter1"], abs=0.005),
    }
    assert found["none", 1] == found["none", 0], "the same rows, the same base model, the same seed"


def test_its_run_is_the_demo_again(studied, demo):
    for file in ("selection.json", "dataset.jsonl", "detection.json"):
        ours = (studied / "results/tiny-1/middo/iter1" / file).read_bytes()
        assert ours == (demo / "results/demo/middo/iter1" / file).read_bytes()
    assert "| quality | 1 |" in (studied / "results/tiny/table.md").read_text()


def test_done_it_has_nothing_to_do_until_what_it_runs_changes(studied):
    assert "Nothing to be done" in snakemake(studied, *RUN, "-n").stdout
    with open(studied / "config/demo.yaml", "a") as stream:
        stream.write("# another word\n")
    planned = snakemake(studied, *RUN, "-n").stdout
    assert "study_seed" in planned and "Params have changed" in planned
