"""Finetuning: kills, half-written states, a second program, rows that cannot be encoded."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from heavy import PYTHON, tiny, train_python  # noqa: F401

from middo.child import run_child, safe_environment
from middo.files import read_json, read_jsonl
from middo.llamafactory import expected_steps
from middo.states import last_whole_state

TRAINING = {
    "stage": "sft",
    "finetuning_type": "full",
    "template": "default",
    "cutoff_len": 64,
    "num_train_epochs": 1,
    "learning_rate": 1.0e-3,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.03,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "deepspeed": None,
}


def command(tiny: Path, out: Path, *more: str) -> list[str]:  # noqa: F811
    return [
        *["scripts/finetune.py", "--dataset", tiny / "dataset.jsonl", "--base-model", tiny / "base"],
        *["--training", json.dumps(TRAINING), "--seed", "7", "--device", "cpu", "--save-steps", "4"],
        *["--checkpoint", out / "checkpoint", "--sha256", out / "checkpoint.sha256", "--log", out / "finetune.log"],
        *["--processes", "0", "--report", out / "finetune.json", "--dropped", out / "dropped.jsonl", *more],
    ]


def processes_naming(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in line:
            found.append(line)
    return found


def kill_after_first_state(arguments: list, out: Path) -> Path:
    """Start a finetuning, kill it with SIGKILL as soon as a state is saved, and return that state's folder."""
    process = subprocess.Popen([PYTHON, *arguments], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not (saved := list(out.glob(".work/finetune-*/run/checkpoint-*/trainer_state.json"))):
        assert process.poll() is None and time.monotonic() < deadline, (out / "finetune.log").read_text()[-3000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while running := processes_naming(str(out / ".work")):
        assert time.monotonic() < deadline, f"still training unseen: {running}"
        time.sleep(0.05)
    return saved[0].parent


def test_killed_training_ends_with_the_weights_of_an_undisturbed_one(tiny, tmp_path):  # noqa: F811
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = train_python(*command(tiny, whole, "--on-unencodable", "drop"))
    assert done.returncode == 0, done.stdout

    arguments = command(tiny, killed, "--on-unencodable", "drop")
    kill_after_first_state(arguments, killed)
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
    assert not (whole / ".work").exists() and not (killed / ".work").exists()
    for out in (whole, killed):
        report = read_json(out / "finetune.json")
        assert (report["rows"], report["steps"], report["dropped"]) == (239, 60, 1)
        assert 0 < report["final_loss"] < report["mean_loss"] < 7
    assert read_json(whole / "finetune.json")["mean_loss"] == read_json(killed / "finetune.json")["mean_loss"]
    last = read_jsonl(tiny / "dataset.jsonl")[-1]["id"]
    assert [row["id"] for row in read_jsonl(whole / "dropped.jsonl")] == [last]
    assert "cutoff_len 64" in read_jsonl(whole / "dropped.jsonl")[0]["reason"]


def test_a_second_program_on_the_same_work_stops(tmp_path, monkeypatch):
    import finetune

    from middo.program import UserError

    monkeypatch.setattr(finetune, "LOCK_SECONDS", 0.3)
    with open(tmp_path / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another finetuning"), finetune._lock(tmp_path):
            pass
    with finetune._lock(tmp_path) as descriptor:
        assert descriptor > 2


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
    assert "HF_TOKEN" in safe_environment(keep=["HF_TOKEN"])
