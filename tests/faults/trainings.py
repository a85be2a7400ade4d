"""Finetunings of the tiny model, whole and disturbed, for the tests beside."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from heavy import PYTHON, tiny, train_python  # noqa: F401

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


def command(tiny: Path, out: Path, *more: str) -> list:  # noqa: F811
    """Arguments of a finetuning of the tiny model into `out`, 60 steps; it must drop the last row."""
    return [
        *["scripts/finetune.py", "--dataset", tiny / "dataset.jsonl", "--base-model", tiny / "base"],
        *["--training", json.dumps(TRAINING), "--seed", "7", "--device", "cpu", "--save-steps", "4"],
        *["--checkpoint", out / "checkpoint", "--sha256", out / "checkpoint.sha256", "--log", out / "finetune.log"],
        *["--report", out / "finetune.json", "--dropped", out / "dropped.jsonl", "--on-unencodable", "drop", *more],
    ]


@pytest.fixture(scope="session")
def whole(tiny, tmp_path_factory):  # noqa: F811
    """The folder of an undisturbed finetuning."""
    out = tmp_path_factory.getbasetemp() / "undisturbed"
    if not out.is_dir():
        done = train_python(*command(tiny, out))
        assert done.returncode == 0, done.stdout
    return out


def start_until(arguments: list, out: Path, pattern: str) -> psutil.Popen:
    """Start a finetuning and return its process as soon as a new file of its work matches `pattern`."""
    pattern = f".work/finetune-*/run/{pattern}"
    before = set(out.glob(pattern))
    process = psutil.Popen([PYTHON, *arguments], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not set(out.glob(pattern)) - before:
        assert process.poll() is None and time.monotonic() < deadline, (out / "finetune.log").read_text()[-3000:]
        time.sleep(0.01)
    return process


def processes_naming(text: str) -> list[str]:
    """Command lines of the running processes in which `text` stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in line:
            found.append(line)
    return found


def kill_after_a_state(arguments: list, out: Path) -> None:
    """Start a finetuning and kill it with SIGKILL as soon as it saves a state."""
    process = start_until(arguments, out, "checkpoint-*/trainer_state.json")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while running := processes_naming(str(out / ".work")):
        assert time.monotonic() < deadline, f"still training unseen: {running}"
        time.sleep(0.05)
