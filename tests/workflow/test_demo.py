"""The demo, run for real: its artifacts agree with each other and with computations made another way."""

import csv
import json

import polars as pl
import pytest
from checks import check_checkpoint, check_signals, check_version, is_pickle, jsonl, selected_by_numpy

VERSIONS = ["seed", "middo/iter1", "middo/iter2", "middo/iter3"]


@pytest.fixture(scope="module")
def results(demo):
    return demo / "results/demo"


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_signals(results, version):
    check_signals(results / version)


@pytest.mark.parametrize("iteration", [1, 2, 3])
def test_versions(results, iteration):
    check_version(results / VERSIONS[iteration - 1], results / VERSIONS[iteration], iteration)


@pytest.mark.parametrize("version", VERSIONS)
def test_checkpoints(results, version):
    check_checkpoint(results / version)


def test_no_file_is_a_pickle(demo):
    files = [path for path in (demo / "results").rglob("*") if path.is_file()]
    assert len(files) > 100 and [path for path in files if is_pickle(path)] == []


def test_new_rows_that_repeat_others_are_listed(results):
    for iteration in (1, 2, 3):
        folder = results / VERSIONS[iteration]
        new = {row["id"]: row for row in jsonl(folder / "refined.jsonl")}
        asked = {row["question"].casefold() for row in jsonl(results / "world/heldout.jsonl")}
        same = {identity for identity, row in new.items() if row["instruction"].casefold() in asked}
        assert same <= {hit["id"] for hit in jsonl(folder / "leaks.jsonl")} <= new.keys()
        prompts = {row["instruction"] for row in jsonl(results / "seed/dataset.jsonl") if not row["input"]}
        added = {identity for identity, row in new.items() if row["origin"] == "extended"}
        same = {identity for identity in added if new[identity]["instruction"] in prompts}
        assert same <= {hit["id"] for hit in jsonl(folder / "near_copies.jsonl")} <= new.keys()
        assert new.keys() <= {row["id"] for row in jsonl(folder / "dataset.jsonl")}, "listed, not dropped"


def test_each_signal_finds_what_was_planted(results):
    faults = {(line["instruction"], line["input"]): line["fault"] for line in jsonl(results / "world/faults.jsonl")}
    rows = {row["id"]: row for row in jsonl(results / "seed/dataset.jsonl")}
    fault = {identity: faults.get((row["instruction"], row["input"])) for identity, row in rows.items()}
    said = json.loads((results / "middo/iter1/detection.json").read_text())
    selection = pl.read_parquet(results / "middo/iter1/selection.parquet")
    for axis, column, sought in (
        ("complexity", "hard", {"hard"}),
        ("diversity", "sparse", {"rare"}),
        ("quality", "low", {"wrong", "unclear"}),
    ):
        chosen = selection.filter(column)["id"].to_list()
        hits = sum(fault[identity] in sought for identity in chosen)
        share = sum(found in sought for found in fault.values()) / len(rows)
        assert said[axis]["lift"] == pytest.approx(hits / len(chosen) / share)
        assert said[axis]["lift"] >= 3 and said[axis]["lift_interval"][0] > 1 and said[axis]["auroc"] > 0.6


def test_auto_selects_10_to_20_percent_first_and_keeps_its_m(results):
    chosen = selected_by_numpy(results / "seed", results / "middo/iter1")
    assert 0.10 <= (chosen["hard"] | chosen["sparse"] | chosen["low"]).mean() <= 0.20
    m = [
        {
            axis: found["m"]
            for axis, found in json.loads((results / version / "selection.json").read_text())["axes"].items()
        }
        for version in VERSIONS[1:]
    ]
    assert m[0] == m[1] == m[2]


def test_base_losses_of_known_rows_are_carried_over(results):
    seed = dict(pl.read_parquet(results / "seed/base_losses.parquet").select("id", "loss_pre").iter_rows())
    later = dict(pl.read_parquet(results / "middo/iter1/base_losses.parquet").select("id", "loss_pre").iter_rows())
    common = seed.keys() & later.keys()
    assert len(common) > 100 and all(seed[i] == later[i] for i in common)


def test_the_summary_tells_what_the_artifacts_hold(demo, results):
    with open(results / "summary.csv", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["version"] for line in lines] == VERSIONS
    for line in lines:
        measured = json.loads((results / line["version"] / "eval.json").read_text())
        assert float(line["heldout"]) == pytest.approx(measured["benchmarks"]["heldout"]["score"], abs=0.005)
        assert int(line["rows"]) == len(jsonl(results / line["version"] / "dataset.jsonl"))
    for line in lines[1:]:
        selection = pl.read_parquet(results / line["version"] / "selection.parquet")
        assert all(int(line[column]) == selection[column].sum() for column in ("hard", "sparse", "low"))
    means = [float(line["mean"]) for line in lines]
    assert [line["best"] for line in lines].index("true") == means.index(max(means))
    shown = (demo / "demo-output.txt").read_text()
    assert "best: " in shown and "steps (100%) done" in shown


def test_the_model_answers_right_as_often_as_the_evaluation_says(demo, results):
    """The score against a count over the predictions that OpenCompass kept."""
    truth = {row["question"]: row["answer"] for row in jsonl(results / "world/heldout.jsonl")}
    kept = [path for path in (results / "seed/eval/predictions").rglob("*.json")]
    answers = [entry for path in kept for entry in json.loads(path.read_text()).values()]
    assert len(answers) == len(truth)
    right = sum(entry["prediction"].strip() == entry["gold"].strip() for entry in answers)
    measured = json.loads((results / "seed/eval.json").read_text())["benchmarks"]["heldout"]
    assert measured["score"] == pytest.approx(100 * right / len(truth)) and measured["rows"] == len(truth)
    assert right > 0, "a model that knows nothing would show nothing"
