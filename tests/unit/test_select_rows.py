"""The selection program: joins by id whatever the order of the files, chooses m once, leaves axes out, warns."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from conftest import ROOT

from middo.rows import with_ids, write_dataset

ROWS = 200


@pytest.fixture
def signals(tmp_path):
    """A version's dataset and its three signals, each file in an order of its own."""
    texts = ({"instruction": f"q{n}", "input": "", "output": "a"} for n in range(ROWS))
    rows = with_ids({**text, "origin": "seed", "parents": [], "iteration": 0} for text in texts)
    write_dataset(tmp_path / "dataset.jsonl", rows)
    random = np.random.default_rng(3)
    loss = random.gamma(2, 1, ROWS)
    frame = pl.DataFrame(
        {
            "id": [row["id"] for row in rows],
            "loss_pre": loss,
            "loss_post": loss * 0.6,
            "diversity": random.beta(8, 2, ROWS),
            "quality": 8 - loss + random.normal(0, 0.3, ROWS),
        }
    ).cast({pl.Float64: pl.Float32})
    for name, columns in {
        "losses": ["loss_pre", "loss_post"],
        "neighbors": ["diversity"],
        "scores": ["quality"],
    }.items():
        frame.select("id", *columns).sample(fraction=1, shuffle=True, seed=len(name)).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    return tmp_path, frame


def select(folder, *arguments, axes=("complexity", "diversity", "quality"), check=True):
    command = [sys.executable, ROOT / "scripts/select_rows.py", "--dataset", folder / "dataset.jsonl"]
    for name in ("losses", "neighbors", "scores"):
        command += [f"--{name}", folder / f"{name}.parquet"]
    command += ["--axes", *axes, *arguments, "--selection", folder / "s.parquet", "--report", folder / "s.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stderr


def test_signals_are_joined_by_id(signals):
    folder, frame = signals
    select(folder, "--complexity", "1", "--diversity", "-1", "--quality", "-1.5")
    selection = pl.read_parquet(folder / "s.parquet")
    assert selection["id"].to_list() == frame["id"].to_list()
    quality = frame["quality"].to_numpy().astype(np.float64)
    assert (selection["low"].to_numpy() == (quality < quality.mean() - 1.5 * quality.std())).all()
    assert selection["low"].any() and selection["hard"].any() and selection["sparse"].any()


def test_rows_that_try_to_steer_the_judge_are_counted_and_selected_no_differently(signals):
    folder, frame = signals
    arguments = ("--complexity", "1", "--diversity", "-1", "--quality", "-1.5")
    select(folder, *arguments)
    before = (folder / "s.parquet").read_bytes()
    assert json.loads((folder / "s.json").read_text())["steering"] is None, "an older scores.parquet"
    flags = pl.Series("steering", [place % 3 == 0 for place in range(ROWS)])
    scores = frame.select("id", "quality").with_columns(flags)
    scores.reverse().write_parquet(folder / "scores.parquet")
    select(folder, *arguments)
    assert (folder / "s.parquet").read_bytes() == before
    chosen = pl.read_parquet(folder / "s.parquet").select(pl.any_horizontal("hard", "sparse", "low")).to_series()
    both = int((chosen & flags).sum())
    assert both > 0
    counted = json.loads((folder / "s.json").read_text())["steering"]
    assert counted == {"selected": both, "unselected": int(flags.sum()) - both}


def test_auto_is_chosen_once(signals):
    folder, _ = signals
    select(folder, "--complexity", "1.5")
    first = json.loads((folder / "s.json").read_text())
    assert 0.10 <= first["share"] <= 0.20 and first["axes"]["complexity"]["m"] == 1.5
    (folder / "first.json").write_text(json.dumps({"axes": {axis: {"m": -3.0} for axis in ("diversity", "quality")}}))
    select(folder, "--complexity", "1.5", "--first", str(folder / "first.json"))
    later = json.loads((folder / "s.json").read_text())["axes"]
    assert [later[axis]["m"] for axis in ("complexity", "diversity", "quality")] == [1.5, -3.0, -3.0]


def test_an_axis_that_is_left_out_selects_nothing_and_needs_no_file(signals):
    folder, _ = signals
    (folder / "scores.parquet").unlink()
    select(folder, "--complexity", "0", "--diversity", "-1", axes=("complexity", "diversity"))
    selection = pl.read_parquet(folder / "s.parquet")
    assert not selection["low"].any() and selection["quality"].null_count() == ROWS
    assert json.loads((folder / "s.json").read_text())["axes"].keys() == {"complexity", "diversity"}


def test_a_signal_of_another_dataset_is_refused(signals):
    folder, _ = signals
    pl.read_parquet(folder / "scores.parquet").head(ROWS - 1).write_parquet(folder / "scores.parquet")
    shown = select(folder, check=False)
    assert "scores.parquet: 200 rows were given and 199 came back" in shown and not (folder / "s.parquet").exists()


def test_ratings_that_say_nothing_are_told(signals):
    folder, frame = signals
    arguments = ["--complexity", "1", "--diversity", "-1", "--quality", "-1"]
    assert "warning" not in select(folder, *arguments)
    # Of each pair of neighbouring ranks in loss, one rated high and one low: rank correlation next to nothing.
    order = np.argsort(frame["loss_post"].to_numpy())
    quality = np.empty(ROWS, dtype=np.float32)
    quality[order] = np.tile([8.0, 2.0, 2.0, 8.0], ROWS // 4)
    frame.select("id", quality=pl.Series(quality)).write_parquet(folder / "scores.parquet")
    assert "warning: quality is unrelated to the loss" in select(folder, *arguments)
