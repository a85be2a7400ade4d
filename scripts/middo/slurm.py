"""What the workflow asks of Slurm beyond its executor: which jobs an earlier Snakemake has left behind.

A Snakemake that was killed leaves its jobs in the queue. The next one would submit them again, and two would make the
same files. Jobs carry the experiment in their names, and rule and wildcards as their comment, so they can be found.
"""

import getpass
import hashlib
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from middo.program import UserError, say

# What a training of billions of parameters may take to save its state.
SAVE_SECONDS = 600
# What Slurm may take to clean up after a job that it has killed.
KILL_SECONDS = 180
POLL_SECONDS = 2.0
# Longest wait between two looks at the queue by snakemake-executor-plugin-slurm; forgotten jobs would be waited for
# without end.
LONGEST_STATUS_INTERVAL = 180


class Job(NamedTuple):
    """A job of the queue: id, state, and the comment that the executor gave it."""

    id: str
    state: str
    comment: str


def run_name(experiment: str, folder: Path, run: str) -> str:
    """The name of all jobs of one run: experiment, a hash of the folder that it works in, the executor's own name."""
    return f"{_prefix(experiment, folder)}_{run}"


def comment(rule: str, wildcards: Iterable[str]) -> str:
    """The comment that snakemake-executor-plugin-slurm 2.8.0 gives a job."""
    values = "_".join(wildcards).replace("/", "_")
    return f"rule_{rule}_wildcards_{values}" if values else f"rule_{rule}"


def cancel_left_behind(experiment: str, folder: Path, comments: set[str]) -> None:
    """Cancel the jobs of `experiment` in `folder` that have one of `comments`, and wait until they are gone.

    Running ones get SIGTERM first, and time to save what they have. Raises UserError where some don't end.
    """
    left = _left_behind(experiment, folder, comments)
    if not left:
        return
    named = ", ".join(f"{job.id} ({job.comment.removeprefix('rule_')}, {job.state.lower()})" for job in left)
    say(f"an earlier run has left jobs in the queue; they are cancelled first: {named}")
    ids = [job.id for job in left]
    _slurm("scancel", "--state=PENDING", *ids)
    _slurm("scancel", "--signal=TERM", *ids)
    if _gone(ids, SAVE_SECONDS):
        return
    _slurm("scancel", *ids)
    if not _gone(ids, KILL_SECONDS):
        raise UserError(f"Jobs of an earlier run do not end: {named}. Cancel them, or ask who runs the cluster.")


def check_memory_of_jobs() -> None:
    """Warn where Slurm forgets ended jobs so soon that their end could be missed."""
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", _slurm("scontrol", "show", "config"), re.MULTILINE)
    if found and int(found[1]) <= LONGEST_STATUS_INTERVAL:
        say(
            f"warning: this cluster forgets jobs {found[1]} s after their end (MinJobAge): Snakemake may miss that "
            "and wait for ever. Set slurm-status-command: sacct in slurm/config.yaml; see slurm/README.md."
        )


def _prefix(experiment: str, folder: Path) -> str:
    return f"{experiment}-{hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:8]}"


def _left_behind(experiment: str, folder: Path, comments: set[str]) -> list[Job]:
    listed = _slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%T|%j|%k")
    jobs = [line.split("|", 3) for line in listed.splitlines()]
    ours = [Job(i, state, said) for i, state, name, said in jobs if name.startswith(f"{_prefix(experiment, folder)}_")]
    return [job for job in ours if job.comment in comments]


def _gone(ids: list[str], seconds: float) -> bool:
    """Whether the queue holds none of `ids` any more, within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        listed = set(_slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i").split())
        if not listed & set(ids):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)


def _slurm(*command: str) -> str:
    """The output of a command of Slurm's. Raises UserError where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError as error:
        raise UserError(f"{command[0]}: there is no such command; is this a login node of the cluster?") from error
    # A job that has ended meanwhile needs no cancelling.
    if done.returncode and command[0] != "scancel":
        raise UserError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
