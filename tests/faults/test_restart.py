"""kill -9 of Snakemake and its children while it trains, scores and refines; then the documented restart."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from conftest import snakemake

DEMO = ["--configfile", "config/demo.yaml", "--cores", "2"]
# The moment of each kill: when these files exist, the step in question has done a part of its work.
MOMENTS = {
    "training": "results/demo/seed/.work/finetune*/**/checkpoint-*/trainer_state.json",
    "scoring": "results/demo/seed/shards/.work/scores*/part-*",
    "refining": "results/teacher_answers/demo/middo/iter1.jsonl",
}


def run_until(folder: Path, pattern: str, enough=lambda found: bool(found)) -> None:
    """Start the demo and kill everything with SIGKILL as soon as files match `pattern` and `enough` says so."""
    log = open(folder / "killed.txt", "a")  # noqa: SIM115
    process = psutil.Popen([sys.executable, "-m", "snakemake", *DEMO], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 600
    while not enough(list(folder.glob(pattern))):
        assert process.poll() is None, f"it ended before {pattern}: " + (folder / "killed.txt").read_text()[-3000:]
        assert time.monotonic() < deadline, pattern
        time.sleep(0.02)
    for victim in [process, *process.children(recursive=True)]:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    snakemake(folder, *DEMO, "--unlock")


def answered(found: list[Path]) -> bool:
    return bool(found) and found[0].read_bytes().count(b"\n") >= 5


def test_killed_three_times_an_iteration_ends_with_the_same_bytes(demo, demo_world):
    folder = demo_world
    config = folder / "config/demo.yaml"
    journal = folder / "journal.txt"
    text = config.read_text().replace('--port, "{port}"', f'--journal, {journal}, --port, "{{port}}"')
    config.write_text(text + "iterations: 1\n")
    run_until(folder, MOMENTS["training"])
    run_until(folder, MOMENTS["scoring"])
    run_until(folder, MOMENTS["refining"], answered)
    store = folder / MOMENTS["refining"]
    before = store.read_bytes()
    snakemake(folder, *DEMO)

    logs = folder / "results/demo/seed/logs"
    assert "going on from the state after" in (logs / "finetune.log").read_text()
    assert "256 of 400 rows were rated before" in (logs / "scores_1-of-1.log").read_text()
    complete = before[: before.rfind(b"\n") + 1]
    assert store.read_bytes().startswith(complete), "what was answered before the kill is kept as it was"
    asked = Counter(journal.read_text().split())
    stored = [
        json.loads(line)["key"]
        for path in (folder / "results/teacher_answers").rglob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(set(stored)) == len(stored) and set(stored) == set(asked)
    for line in complete.splitlines():
        assert asked[json.loads(line)["key"]] == 1, "an answered request was asked again"
    assert sum(asked.values()) - len(asked) <= 8, "asked twice: at most what was under way at the kill"

    # Another folder, three kills: still the bytes of the undisturbed run.
    compared = 0
    for pattern in (
        "**/dataset.jsonl",
        "**/checkpoint.sha256",
        "**/selection.*",
        "**/losses.parquet",
        "**/embeddings.npy",
        "**/neighbors.parquet",
        "**/scores.parquet",
        "**/refine*.json*",
        "**/rejected.jsonl",
    ):
        for path in sorted((folder / "results/demo").glob(pattern)):
            twin = demo / "results/demo" / path.relative_to(folder / "results/demo")
            assert path.read_bytes() == twin.read_bytes(), path
            compared += 1
    # Of two versions what a training leaves, of one what it diagnoses, of the other what was selected and refined.
    assert compared == 13
    assert not list((folder / "results/demo").rglob(".work")), "nothing unfinished is left"
