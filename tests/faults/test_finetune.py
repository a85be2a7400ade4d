"""Finetuning: kills, half-written states, a second program, rows that cannot be encoded."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from heavy import tiny, train_python  # noqa: F401
from trainings import command, kill_after_a_state, whole  # noqa: F401

from middo.child import run_child, safe_environment
from middo.files import read_json, read_jsonl
from middo.llamafactory import expected_steps
from middo.states import last_whole_state
from middo.work import forget_finished


def test_killed_training_ends_with_the_weights_of_an_undisturbed_one(tiny, whole, tmp_path):  # noqa: F811
    killed = tmp_path / "killed"
    arguments = command(tiny, killed)
    kill_after_a_state(arguments, killed)
    states = sorted(killed.glob(".work/finetune-*/run/checkpoint-*"))
    step = last_whole_state(states[0].parent, 1).step
    assert 0 < step < 60, "killed in the middle"
    assert [p.name for p in killed.iterdir() if p.name not in {".work", "finetune.log"}] == []
    # A later state that a kill left half written.
    half = states[0].parent / "checkpoint-59"
    shutil.copytree(last_whole_state(states[0].parent, 1).folder, half)
    (half / "trainer_state.json").write_text((half / "trainer_state.json").read_text()[:40])

    done = train_python(*arguments)
    assert done.returncode == 0, done.stdout
    assert f"going on from the state after {step} steps" in done.stdout
    assert (killed / "checkpoint.sha256").read_bytes() == (whole / "checkpoint.sha256").read_bytes()
    subprocess.run(["sha256sum", "-c", "--quiet", "../checkpoint.sha256"], cwd=killed / "checkpoint", check=True)

    names = {path.name for path in (whole / "checkpoint").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "chat_template.jinja"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth")) or name.startswith("train")}
    forget_finished(killed / "finetune.json")
    assert not (killed / ".work").exists(), "states and all else that training needed"
    for out in (whole, killed):
        report = read_json(out / "finetune.json")
        assert (report["rows"], report["steps"], report["dropped"]) == (239, 60, 1)
        assert 0 < report["final_loss"] < report["mean_loss"] < 7
    assert read_json(whole / "finetune.json")["mean_loss"] == read_json(killed / "finetune.json")["mean_loss"]
    last = read_jsonl(tiny / "dataset.jsonl")[-1]["id"]
    assert [row["id"] for row in read_jsonl(whole / "dropped.jsonl")] == [last]
    assert "cutoff_len 64" in read_jsonl(whole / "dropped.jsonl")[0]["reason"]


def write_state(folder: Path, step: int) -> None:
    """A state as the trainer leaves it, with made-up content."""
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data", "x" * 100)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_half_written_state_is_never_used(tmp_path, name, damage):
    write_state(tmp_path / "checkpoint-8", 8)
    write_state(tmp_path / "checkpoint-12", 12)
    assert last_whole_state(tmp_path, 1).step == 12
    broken = tmp_path / "checkpoint-12" / name
    if damage == "cut":
        broken.write_bytes(broken.read_bytes()[:-4])
    else:
        broken.unlink()
    assert last_whole_state(tmp_path, 1).step == 8
    assert not (tmp_path / "checkpoint-12").exists()
    assert last_whole_state(tmp_path, 2) is None, "a state of one process is none of two"


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "processes", "epochs", "steps"),
    [(300, 8, 1, 1, 1, 38), (300, 8, 8, 1, 1, 5), (52002, 4, 8, 8, 1, 204), (3, 4, 8, 1, 1, 1), (10, 2, 2, 1, 2.5, 8)],
)
def test_steps_that_a_dataset_calls_for(rows, batch, accumulation, processes, epochs, steps):
    options = {"gradient_accumulation_steps": accumulation, "num_train_epochs": epochs}
    assert expected_steps(rows, options, batch, processes) == steps


def test_children_see_no_secrets(monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "X_SECRET"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("KEYBOARD", "fine")
    with open(tmp_path / "env", "w") as output:
        assert run_child(["env"], safe_environment(), output) == 0
        assert run_child(["sh", "-c", "exit 7"], safe_environment(), output) == 7
    shown = (tmp_path / "env").read_text()
    assert "hunter2" not in shown and "KEYBOARD=fine" in shown
