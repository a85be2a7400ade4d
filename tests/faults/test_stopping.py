"""Finetunings that a signal stops, in one process and in several, end with the weights of an undisturbed one."""

import signal
import subprocess
import time

import psutil
import pytest
from heavy import tiny, train_python  # noqa: F401
from trainings import command, kill_after_a_state, processes_naming, start_until, whole  # noqa: F401

from middo.files import read_json
from middo.launch import launch_command, launch_environment
from middo.program import UserError
from middo.trainer import slurm_rendezvous

LOG = "trainer_log.jsonl"


def finish_and_compare(arguments: list, out, whole) -> str:  # noqa: F811
    done = train_python(*arguments)
    assert done.returncode == 0, done.stdout
    assert (out / "checkpoint.sha256").read_bytes() == (whole / "checkpoint.sha256").read_bytes()
    return done.stdout


def stopped_at(out) -> int:
    """The step that the program named when it was stopped."""
    said = [line for line in (out / "finetune.log").read_text().splitlines() if "stopped by a signal" in line]
    assert said[-1].endswith("when started again")
    return int(said[-1].split("goes on from step ")[1].split()[0])


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT], ids=lambda kind: kind.name)
def test_a_signal_to_the_program_alone_saves_a_state(tiny, whole, tmp_path, kind):  # noqa: F811
    arguments = command(tiny, tmp_path, "--save-steps", "1000")
    process = start_until(arguments, tmp_path, LOG)
    process.send_signal(kind)
    assert process.wait(60) == 143
    step = stopped_at(tmp_path)
    assert 0 < step < 60 and not (tmp_path / "checkpoint").exists()
    if kind == signal.SIGINT:
        return
    said = finish_and_compare(arguments, tmp_path, whole)
    assert f"going on from the state after {step} steps" in said


def test_a_signal_at_the_very_end_loses_nothing(tiny, whole, tmp_path):  # noqa: F811
    arguments = command(tiny, tmp_path)
    process = start_until(arguments, tmp_path, "checkpoint-60")
    process.send_signal(signal.SIGTERM)
    # It may have ended its training: then nothing holds the signal up.
    assert process.wait(60) in (143, -signal.SIGTERM)
    finish_and_compare(arguments, tmp_path, whole)


def test_what_ended_without_being_recorded_is_not_trained_again(tiny, whole, tmp_path):  # noqa: F811
    arguments = command(tiny, tmp_path)
    finish_and_compare(arguments, tmp_path, whole)
    report = (tmp_path / "finetune.json").read_bytes()
    # As Snakemake does with outputs of which it does not know that they are whole.
    for name in ("checkpoint.sha256", "finetune.json", "dropped.jsonl"):
        (tmp_path / name).unlink()
    subprocess.run(["rm", "-r", tmp_path / "checkpoint"], check=True)
    started = time.monotonic()
    said = finish_and_compare(arguments, tmp_path, whole)
    assert "was finished before" in said and "training on" not in said and time.monotonic() - started < 5
    assert (tmp_path / "finetune.json").read_bytes() == report
    subprocess.run(["sha256sum", "-c", "--quiet", "../checkpoint.sha256"], cwd=tmp_path / "checkpoint", check=True)


def test_two_processes_signalled_all_at_once_and_killed_end_with_the_same_weights(tiny, tmp_path):  # noqa: F811
    whole, out = tmp_path / "whole", tmp_path / "out"  # noqa: F811
    done = train_python(*command(tiny, whole, "--processes", "2"))
    assert done.returncode == 0, done.stdout
    report = read_json(whole / "finetune.json")
    assert (report["processes"], report["rows_per_update"], report["steps"]) == (2, 8, 30)

    arguments = command(tiny, out, "--processes", "2", "--save-steps", "4")
    process = start_until(arguments, out, LOG)
    tree = [process, *process.children(recursive=True)]
    assert len(tree) == 6, "the program, its guard, launcher, torchrun, two workers"
    for victim in [*tree, *reversed(tree)]:
        try:
            victim.send_signal(signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    assert process.wait(60) == 143
    step = stopped_at(out)
    assert 0 < step < 30 and processes_naming(str(out / ".work")) == []

    kill_after_a_state(arguments, out)
    assert f"going on from the state after {step} steps" in (out / "finetune.log").read_text()
    finish_and_compare(arguments, out, whole)


def test_several_nodes_are_a_step_of_the_slurm_job(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="need Slurm"):
        launch_command(tmp_path / "options.yaml", 2)
    monkeypatch.setenv("SLURM_JOB_ID", "61234")
    command = launch_command(tmp_path / "options.yaml", 2)
    assert command[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert command[-2:] == launch_command(tmp_path / "options.yaml", 1)[1:]


def test_processes_share_the_threads_and_know_their_number(monkeypatch, tmp_path):
    for name in ("MASTER_PORT", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    alone = launch_environment("cpu", 1, 1)
    assert "FORCE_TORCHRUN" not in alone and alone["OMP_NUM_THREADS"] == "9"
    several = launch_environment("cpu", 4, 3)
    expected = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "4", "NNODES": "3", "OMP_NUM_THREADS": "2"}
    assert {name: several[name] for name in expected} == expected
    assert launch_environment("cpu", 12, 1)["OMP_NUM_THREADS"] == "1"
    assert launch_environment("cuda", 1, 1)["FORCE_TORCHRUN"] == "1"
    assert not {"MASTER_PORT", "LOCAL_RANK", "NODE_RANK"} & set(several), "what another launcher left"


def test_nodes_meet_on_the_first_of_the_step(monkeypatch, tmp_path):
    scontrol = tmp_path / "scontrol"
    # Answers as Slurm 22.05 gives them.
    scontrol.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n"show hostnames n[3-4]") echo n3; echo n4;;\n'
        '"show node n3") printf "NodeName=n3 Arch=x86_64 \\n   NodeAddr=10.0.0.3 NodeHostName=n3 Port=17001\\n";;\n'
        "*) exit 1;;\nesac\n"
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, value in {"STEP_NODELIST": "n[3-4]", "NODEID": "1", "JOB_ID": "61234"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert slurm_rendezvous() == {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.3", "MASTER_PORT": "11234"}
