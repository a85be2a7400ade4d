"""The demo, run for real: its artifacts agree with each other and with computations made another way."""

import csv
import hashlib
import json

import numpy as np
import polars as pl
import pytest

VERSIONS = ["seed", "middo/iter1", "middo/iter2", "middo/iter3"]
MADE = list(zip(VERSIONS, VERSIONS[1:], strict=False))


def rows_of(folder, version):
    lines = (folder / "results/demo" / version / "dataset.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("version", VERSIONS)
def test_signals_are_in_dataset_order_and_sound(demo, version):
    folder = demo / "results/demo" / version
    ids = [row["id"] for row in rows_of(demo, version)]
    assert len(set(ids)) == len(ids)
    if version == VERSIONS[-1]:
        return
    for name in ("base_losses", "losses", "neighbors", "scores"):
        assert pl.read_parquet(folder / f"{name}.parquet")["id"].to_list() == ids
    losses = pl.read_parquet(folder / "losses.parquet")
    assert losses["loss_pre"].to_list() == pl.read_parquet(folder / "base_losses.parquet")["loss_pre"].to_list()
    assert losses["loss_post"].mean() < losses["loss_pre"].mean(), "training lowers the loss of what it trains on"
    embeddings = np.load(folder / "embeddings.npy")
    assert embeddings.dtype == np.float32 and embeddings.shape[0] == len(ids)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -2)
    nearest = np.sort(similarity, axis=1)[:, -2:].mean(axis=1)
    np.testing.assert_allclose(pl.read_parquet(folder / "neighbors.parquet")["diversity"], nearest, atol=1e-5)
    scores = pl.read_parquet(folder / "scores.parquet").drop("id").to_numpy()
    assert np.nanmin(scores) >= 0 and np.nanmax(scores) <= 10
    np.testing.assert_allclose(scores[:, -1], scores[:, :-1].mean(axis=1), atol=1e-5)


@pytest.mark.parametrize(("before", "version"), MADE)
def test_selection_equals_numpy(demo, before, version):
    source, folder = demo / "results/demo" / before, demo / "results/demo" / version
    m = {axis: found["m"] for axis, found in json.loads((folder / "selection.json").read_text())["axes"].items()}
    signal = {
        name: pl.read_parquet(source / f"{file}.parquet")[name].to_numpy().astype(np.float64)
        for file, names in {
            "losses": ["loss_pre", "loss_post"],
            "neighbors": ["diversity"],
            "scores": ["quality"],
        }.items()
        for name in names
    }
    limit = {name: lambda m, x=x: np.nanmean(x) + m * np.nanstd(x) for name, x in signal.items()}
    expected = {
        "hard": (signal["loss_pre"] > limit["loss_pre"](m["complexity"]))
        & (signal["loss_post"] > limit["loss_post"](m["complexity"])),
        "sparse": signal["diversity"] < limit["diversity"](m["diversity"]),
        "low": signal["quality"] < limit["quality"](m["quality"]),
    }
    selection = pl.read_parquet(folder / "selection.parquet")
    for column, chosen in expected.items():
        assert (selection[column].to_numpy() == chosen).all(), column
    share = (expected["hard"] | expected["sparse"] | expected["low"]).mean()
    assert version != "middo/iter1" or 0.10 <= share <= 0.20, "m: auto"


@pytest.mark.parametrize(("before", "version"), MADE)
def test_a_version_is_its_predecessor_with_rows_replaced_and_added(demo, before, version):
    old, new = rows_of(demo, before), rows_of(demo, version)
    folder = demo / "results/demo" / version
    selection = {row["id"]: row for row in pl.read_parquet(folder / "selection.parquet").iter_rows(named=True)}
    born = [row for row in new if row["iteration"] == VERSIONS.index(version)]
    assert born, "the teacher made something"
    assert new[len(new) - len(born) :] == born
    reason = {"simplified": "hard", "improved": "low", "extended": "sparse"}
    for row in born:
        assert selection[row["parents"][0]][reason[row["origin"]]]
        assert row["input"] == "" and row["instruction"].strip() and row["output"].strip()
    replaced = {row["parents"][0] for row in born if row["origin"] != "extended"}
    assert new[: len(new) - len(born)] == [row for row in old if row["id"] not in replaced]
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    asked = sum(row["hard"] + row["low"] + row["sparse"] for row in selection.values())
    assert len(born) + len(rejected) == asked
    manifest = json.loads((folder / "manifest.json").read_text())
    dataset = (demo / "results/demo" / before / "dataset.jsonl").read_bytes()
    assert manifest["predecessor_sha256"] == hashlib.sha256(dataset).hexdigest()
    assert manifest["rows"]["total"] == len(new)


def test_base_losses_of_known_rows_are_carried_over(demo):
    folder = demo / "results/demo"
    seed = dict(pl.read_parquet(folder / "seed/base_losses.parquet").select("id", "loss_pre").iter_rows())
    later = dict(pl.read_parquet(folder / "middo/iter1/base_losses.parquet").select("id", "loss_pre").iter_rows())
    common = seed.keys() & later.keys()
    assert len(common) > 100 and all(seed[i] == later[i] for i in common)


def test_every_model_starts_from_the_base_model_and_sees_every_row(demo):
    for version in VERSIONS:
        folder = demo / "results/demo" / version
        report = json.loads((folder / "finetune.json").read_text())
        assert report["rows"] == len(rows_of(demo, version))
        names = {path.name for path in (folder / "checkpoint").iterdir()}
        assert "model.safetensors" in names and not {"optimizer.pt", "training_args.bin", "trainer_state.json"} & names
        for line in (folder / "checkpoint.sha256").read_text().splitlines():
            digest, name = line.split("  ", 1)
            assert hashlib.sha256((folder / "checkpoint" / name).read_bytes()).hexdigest() == digest


def test_the_summary_tells_what_the_artifacts_hold(demo):
    with open(demo / "results/demo/summary.csv", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["version"] for line in lines] == VERSIONS
    for line in lines:
        folder = demo / "results/demo" / line["version"]
        measured = json.loads((folder / "eval.json").read_text())
        assert float(line["heldout"]) == pytest.approx(measured["benchmarks"]["heldout"]["score"], abs=0.005)
        assert int(line["rows"]) == len(rows_of(demo, line["version"]))
    means = [float(line["mean"]) for line in lines]
    assert [line["best"] for line in lines].index("true") == means.index(max(means))
    shown = (demo / "demo-output.txt").read_text()
    assert "best: " in shown and "steps (100%) done" in shown
