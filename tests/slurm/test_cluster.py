"""The demo on a real Slurm of two nodes, disturbed in every way that jobs die of, against an undisturbed local run."""

import json
import re
import shutil
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import cluster as toy
import numpy as np
import polars as pl
import psutil
import pytest
from build_env import fingerprint
from conftest import make_checkout, snakemake
from polars.testing import assert_frame_equal
from watched import Watched, slurm

DEMO = ("--configfile", "config/demo.yaml")
VERSIONS = ["seed", "middo/iter1", "middo/iter2", "middo/iter3"]


@pytest.fixture(scope="session")
def cluster():
    """A real Slurm on this machine; skips, with the reason, where there can be none."""
    reason = toy.why_not()
    if reason:
        pytest.skip(f"no Slurm here: {reason}")
    toy.up()
    yield
    toy.down()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def states(folder, version):
    """The saved states of a training that is under way."""
    return sorted((folder / "results/demo" / version).glob(".work/finetune-*/run/checkpoint-*/trainer_state.json"))


@contextmanager
def in_training(run, version, seconds=300):
    """The job that trains `version`, once it has saved a state, and the process that trains, held until the end of the
    block: a training of seconds would be over before Slurm looks at it."""

    def trained():
        job = run.running(f"rule_finetune_wildcards_{version.replace('/', '_')}")
        return job if job and states(run.folder, version) else None

    job = run.wait(f"{version} is trained", trained, seconds)
    (trainer,) = (process for process in psutil.process_iter() if _trains(process, run.folder, version))
    trainer.suspend()
    try:
        yield job, trainer
    finally:
        with suppress(psutil.NoSuchProcess):
            trainer.resume()


def _trains(process, folder, version):
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        command = " ".join(process.cmdline())
        return "trainer.py" in command and f"/{version}/.work/" in command and process.cwd() == str(folder)


def told_to_stop(process):
    """Whether SIGTERM waits for a process that is held, or has ended it: Slurm may let it go on by SIGCONT."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return True
    pending = re.findall(r"^(?:Sig|Shd)Pnd:\s+(\w+)", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in pending)


@pytest.fixture(scope="session")
def disturbed(cluster, tmp_path_factory):
    """The demo in three shards, while a node goes down, a shard is cancelled, time runs out, an urgent job comes, and
    Snakemake is killed."""
    folder = make_checkout(tmp_path_factory.mktemp("slurm") / "checkout")
    # Neither changes a result: three shards, and a state after every second step, so that there is time to disturb.
    edit(folder / "config/demo.yaml", "shards: 1", "shards: 3")
    edit(folder / "config/demo.yaml", "save_steps: 10", "save_steps: 2")
    run = Watched(folder, *DEMO)
    try:
        _node_goes_down(run)
        _shard_is_cancelled(run)
        _time_runs_out(run)
        _urgent_job_preempts(run)
        _snakemake_is_killed(run)
        run.finish(seconds=900)
    finally:
        run.stop()
        run.process.kill()
        slurm("scancel", "--user=root")
    return run


def _node_goes_down(run):
    with in_training(run, "seed", 1500) as (job, _):
        node, number = job["NodeList"], job["JobId"]
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        run.wait("the job is back in the queue", lambda: run.jobs[number]["Restarts"] == "1", 60)
    # A node that is given a job which it still runs is drained.
    run.wait("the node has ended it", lambda: not _steps(number), 60)
    slurm("scontrol", "update", f"nodename={node}", "state=resume")
    # Slurm itself would wait for two minutes.
    slurm("scontrol", "update", f"jobid={number}", "StartTime=now")


def _steps(job):
    """Slurm's processes that watch over the steps of a job."""
    return [p for p in psutil.process_iter(["cmdline"]) if f"slurmstepd: [{job}." in " ".join(p.info["cmdline"] or [])]


def _shard_is_cancelled(run):
    job = run.wait("a shard is rated", lambda: run.running("rule_scores_shard_wildcards_seed"))
    slurm("scancel", job["JobId"])
    run.wait("it is submitted again", lambda: len(run.all(job["Comment"])) > 1, 120)


def _time_runs_out(run):
    with in_training(run, "middo/iter1") as (job, trainer):
        # Less than the 300 s before the limit at which the profile wants the signal.
        slurm("scontrol", "update", f"jobid={job['JobId']}", "TimeLimit=2")
        run.wait("it is told to stop", lambda: told_to_stop(trainer), 90)
    run.wait("it has ended", lambda: run.jobs[job["JobId"]]["JobState"] == "FAILED", 60)


def _urgent_job_preempts(run):
    with in_training(run, "middo/iter2") as (job, trainer):
        wanted = ["--partition=urgent", f"--nodelist={job['NodeList']}", "--cpus-per-task=2", "--mem=100"]
        slurm("sbatch", *wanted, "--output=/dev/null", "--wrap=sleep 5")
        run.wait("it is told to stop", lambda: told_to_stop(trainer), 90)
    run.wait("it has made way", lambda: run.jobs[job["JobId"]]["JobState"] != "RUNNING", 60)
    if run.jobs[job["JobId"]]["JobState"] == "PENDING":
        slurm("scontrol", "update", f"jobid={job['JobId']}", "StartTime=now")


def _snakemake_is_killed(run):
    with in_training(run, "middo/iter3") as (job, _):
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        snakemake(run.folder, *DEMO, "--unlock")
        assert run.jobs[job["JobId"]]["JobState"] == "RUNNING", "the job knows nothing of it"
        run.start()
        run.wait("it is found", lambda: "an earlier run has left jobs in the queue" in run.output.read_text(), 60)


def test_every_disturbance_ends_with_the_bytes_of_an_undisturbed_run(disturbed, demo):
    for version in VERSIONS:
        ours, theirs = disturbed.folder / "results/demo" / version, demo / "results/demo" / version
        assert (ours / "dataset.jsonl").read_bytes() == (theirs / "dataset.jsonl").read_bytes(), version
        assert (ours / "checkpoint.sha256").read_bytes() == (theirs / "checkpoint.sha256").read_bytes(), version
    done = "results/demo/summary.csv"
    assert (disturbed.folder / done).read_bytes() == (demo / done).read_bytes()


def test_shards_agree(disturbed, demo):
    """Three shards here, one there: equal to 1e-5, in the order of the dataset, with the same rows selected."""
    for version in VERSIONS[:-1]:
        ours, theirs = disturbed.folder / "results/demo" / version, demo / "results/demo" / version
        for name in ("base_losses", "losses", "scores"):
            one, other = pl.read_parquet(ours / f"{name}.parquet"), pl.read_parquet(theirs / f"{name}.parquet")
            assert one.columns == other.columns and one["id"].to_list() == other["id"].to_list()
            np.testing.assert_allclose(one.drop("id").to_numpy(), other.drop("id").to_numpy(), atol=1e-5, rtol=0)
        embeddings = [np.load(folder / "embeddings.npy") for folder in (ours, theirs)]
        np.testing.assert_allclose(*embeddings, atol=1e-5, rtol=0)
    for version in VERSIONS[1:]:
        one, other = (
            pl.read_parquet(folder / "results/demo" / version / "selection.parquet")
            for folder in (disturbed.folder, demo)
        )
        assert one.select("id", "hard", "sparse", "low").equals(other.select("id", "hard", "sparse", "low"))


def test_no_stage_ran_twice_at_the_same_time(disturbed):
    assert not disturbed.doubled


def test_training_went_on_from_its_saved_states(disturbed):
    for version in VERSIONS:
        log = (disturbed.folder / "results/demo" / version / "logs/finetune.log").read_text()
        assert log.count("going on from the state after") == 1, version


def test_only_the_cancelled_shard_was_repeated(disturbed):
    repeated = [comment for comment in _comments(disturbed) if len(disturbed.all(comment)) > 1]
    shards = [comment for comment in repeated if "_shard_" in comment]
    assert len(shards) == 1 and shards[0].startswith("rule_scores_shard_wildcards_seed")


def test_jobs_left_behind_were_cancelled_first(disturbed):
    assert "an earlier run has left jobs in the queue; they are cancelled first" in disturbed.output.read_text()


def test_short_steps_wait_in_no_queue(disturbed):
    queued = {comment.removeprefix("rule_").split("_wildcards_")[0] for comment in _comments(disturbed)}
    assert queued == {
        "demo_base_model", "finetune", "base_losses_shard", "losses_shard", "scores_shard", "neighbors", "refine",
        "evaluate",
    }  # fmt: skip


def test_jobs_ask_for_what_the_profile_says(disturbed):
    """On a CPU: no GPU, the rule's threads as CPUs, memory by the size of the model, minutes of the rule.

    That model, of 4 MB, is there only since Snakemake was started again.
    """
    expected = {
        "finetune": ("gpu", "cpu=2,mem=4012M", "12:00:00"),
        "scores_shard": ("gpu", "cpu=1,mem=4000M", "04:00:00"),
        "losses_shard": ("gpu", "cpu=1,mem=4000M", "02:00:00"),
        "refine": ("cpu", "cpu=1", "12:00:00"),
        "evaluate": ("gpu", "cpu=1,mem=6008M", "08:00:00"),
    }
    for rule, (partition, asked, limit) in expected.items():
        # The last of them: no disturbance has changed its limit.
        job = disturbed.all(f"rule_{rule}_wildcards_middo_iter")[-1]
        assert job["Partition"] == partition and job["TRES"].startswith(asked), job
        assert job["TimeLimit"] == limit and "gres/gpu" not in job["TRES"], job


def _comments(run):
    return {job["Comment"] for job in run.jobs.values()}


def test_a_job_killed_for_its_memory_is_given_more(cluster, demo_world):
    memory = "base_losses_shard:mem_mb=150 if attempt == 1 else 3000"
    run = Watched(demo_world, "results/demo/seed/base_losses.parquet", *DEMO, "--set-resources", memory)
    run.finish(seconds=300)
    first, second = sorted(run.all("rule_base_losses_shard"), key=lambda job: int(job["JobId"]))
    assert "mem=150M" in first["TRES"] and first["JobState"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED"), first
    assert "mem=3000M" in second["TRES"] and second["JobState"] == "COMPLETED"


def test_a_job_over_its_time_is_given_more_and_a_draining_node_no_more_jobs(cluster, demo_world, demo):
    target = "results/demo/seed/base_losses.parquet"
    run = Watched(demo_world, target, *DEMO)
    job = run.wait("the losses are measured", lambda: run.running("rule_base_losses_shard"))
    (measuring,) = run.wait("its program runs", lambda: _programs("base_losses_shard.py", demo_world))
    measuring.suspend()
    slurm("scontrol", "update", f"nodename={job['NodeList']}", "state=drain", "reason=test")
    slurm("scontrol", "update", f"jobid={job['JobId']}", "TimeLimit=1")
    try:
        run.finish(seconds=400)
    finally:
        slurm("scontrol", "update", f"nodename={job['NodeList']}", "state=resume")
    first, second = sorted(run.all("rule_base_losses_shard"), key=lambda job: int(job["JobId"]))
    assert first["JobState"] == "TIMEOUT" and second["JobState"] == "COMPLETED"
    assert (second["TimeLimit"], second["NodeList"] != first["NodeList"]) == ("04:00:00", True)
    ours, theirs = (pl.read_parquet(folder / target) for folder in (demo_world, demo))
    assert_frame_equal(ours, theirs, abs_tol=1e-5, rel_tol=0)


def _programs(name, folder):
    """The processes that run a program of a checkout."""
    return [p for p in psutil.process_iter() if _runs(p, name, folder)]


def _runs(process, name, folder):
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        words = process.cmdline()
        return len(words) > 1 and words[1].endswith(name) and process.cwd() == str(folder)


def test_two_nodes_train_what_two_processes_on_one_do(cluster, demo_world):
    target = "results/demo/seed/checkpoint.sha256"
    edit(demo_world / "config/demo.yaml", "processes: 1", "processes: 1\n  nodes: 2")
    # One thread for each process: the number of threads shapes the last bits.
    run = Watched(demo_world, target, *DEMO, "--set-threads", "finetune=1")
    run.finish(seconds=400)
    (job,) = run.all("rule_finetune")
    assert job["NumNodes"] == "2" and job["NumTasks"] == "2" and job["JobState"] == "COMPLETED"
    over_nodes = (demo_world / target).read_bytes()
    shutil.rmtree(demo_world / "results/demo/seed")
    edit(demo_world / "config/demo.yaml", "processes: 1\n  nodes: 2", "processes: 2")
    snakemake(demo_world, target, *DEMO, "--cores", "2", "--set-threads", "finetune=2")
    assert (demo_world / target).read_bytes() == over_nodes
    report = json.loads((demo_world / "results/demo/seed/finetune.json").read_text())
    # 400 rows, two epochs.
    assert report["steps"] == 50 and report["rows_per_update"] == 16


@pytest.fixture
def eight_billion(checkout):
    """A checkout with a GPU config, the files of a model of 16 GB as far as sizes go, and a tuned seed version."""
    model, seed = checkout / "model", checkout / "results/large/seed"
    model.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (model / name).write_text("{}")
    with open(model / "model.safetensors", "wb") as stream:
        stream.truncate(16_000_000_000)
    row = {"instruction": "Say a.", "input": "", "output": "a"}
    (checkout / "rows.json").write_text(json.dumps([row]))
    (checkout / "heldout.jsonl").write_text(json.dumps({"question": "a?", "answer": "a"}) + "\n")
    config = {
        "experiment": "large",
        "base_model": {"path": "model"},
        "dataset": {"path": "rows.json"},
        "evaluation": {"benchmarks": [], "custom": [{"name": "own", "path": "heldout.jsonl", "type": "qa"}]},
        "execution": {"shards": 2},
    }
    (checkout / "large.json").write_text(json.dumps(config))
    # The environments of a GPU machine are not built for this: no job gets to its first line.
    (checkout / ".venvs").unlink()
    for name in ("train", "score", "neighbors", "refine", "evaluate"):
        (checkout / ".venvs" / name / "bin").mkdir(parents=True)
        (checkout / ".venvs" / name / "bin/python").touch()
        (checkout / ".venvs" / name / "middo-fingerprint").write_text(fingerprint(name))
    snakemake(checkout, "results/large/seed/dataset.jsonl", "--configfile", "large.json", "--cores", "1")
    (seed / "checkpoint").mkdir()
    for name in ("finetune.json", "dropped.jsonl", "checkpoint.sha256"):
        (seed / name).touch()
    return checkout


def test_an_8b_model_asks_for_a_node_of_eight_gpus_and_one_gpu_per_shard(cluster, eight_billion):
    """Memory in MB by the formulas of the profile; nothing starts, since the nodes that have so much never answer."""
    seed = "results/large/seed"
    targets = [f"{seed}/losses.parquet", f"{seed}/scores.parquet", f"{seed}/eval.json", f"{seed}/base_losses.parquet"]
    common = ["--configfile", "large.json", "--rerun-triggers", "mtime"]
    asked = {}
    for wanted, forced, jobs in ((targets, [], 7), ([f"{seed}/checkpoint.sha256"], ["--forcerun", "finetune"], 1)):
        run = Watched(eight_billion, *wanted, *forced, *common)
        run.wait("all are in the queue", lambda run=run, jobs=jobs: len(run.jobs) == jobs, 60)
        run.process.send_signal(signal.SIGINT)
        run.process.wait(timeout=60)
        run.stop()
        asked |= {job["Comment"].split("_wildcards_")[0].removeprefix("rule_"): job for job in run.jobs.values()}
    expected = {
        "finetune": ("gres:gpu:8", "388000M", "12:00:00"),
        "base_losses_shard": ("gres:gpu:1", "36000M", "02:00:00"),
        "losses_shard": ("gres:gpu:1", "36000M", "02:00:00"),
        "scores_shard": ("gres:gpu:1", "36000M", "04:00:00"),
        "evaluate": ("gres:gpu:1", "38000M", "08:00:00"),
    }
    found = {rule: (job["TresPerJob"], job["MinMemoryNode"], job["TimeLimit"]) for rule, job in asked.items()}
    assert found == expected
    assert {(job["Partition"], job["CpusPerTres"]) for job in asked.values()} == {("gpu", "gres:gpu:8")}
