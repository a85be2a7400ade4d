"""A Snakemake that works on the cluster, and everything that Slurm says of its jobs while it does."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

FINISHED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED"}


def slurm(*command: str) -> str:
    """Run one of Slurm's commands; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def described() -> dict[str, dict[str, str]]:
    """All jobs that Slurm remembers, by id, with the fields of `scontrol show job`."""
    listed = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True).stdout
    jobs = [dict(re.findall(r"(?:^|\s)([A-Za-z:/]+)=(\S*)", line)) for line in listed.splitlines()]
    return {job["JobId"]: job for job in jobs if "JobId" in job}


class Watched:
    """A Snakemake with `--profile slurm` in a checkout; `jobs` holds the last that Slurm said of each of its jobs."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder, self.arguments = folder, arguments
        self.output = folder / "slurm-output.txt"
        self.jobs: dict[str, dict[str, str]] = {}
        # Comments of jobs that were seen running twice at one time: there must be none.
        self.doubled: set[str] = set()
        self.older = set(described())
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self.start()

    def start(self) -> None:
        """Start Snakemake, or start it again."""
        command = [sys.executable, "-m", "snakemake", *self.arguments, "--profile", "slurm"]
        with open(self.output, "a") as stream:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )

    def finish(self, seconds: float) -> None:
        """Wait for Snakemake's end, which must be a success."""
        status = self.process.wait(timeout=seconds)
        self.stop()
        assert status == 0, self.output.read_text()[-8000:]

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._watcher.join()

    def wait(self, what: str, reached, seconds: float = 300):
        """What `reached` returns as soon as that is true; Snakemake has to live meanwhile."""
        deadline = time.monotonic() + seconds
        while not (result := reached()):
            assert self.process.poll() is None, self.output.read_text()[-8000:]
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{self.output.read_text()[-4000:]}"
            time.sleep(0.1)
        return result

    def running(self, comment: str) -> dict[str, str] | None:
        """A running job whose comment starts with `comment`."""
        found = [job for job in self.jobs.values() if job["Comment"].startswith(comment)]
        return next((job for job in found if job["JobState"] == "RUNNING"), None)

    def all(self, comment: str) -> list[dict[str, str]]:
        """All jobs whose comment starts with `comment`."""
        return [job for job in self.jobs.values() if job["Comment"].startswith(comment)]

    def _watch(self) -> None:
        while not self._stopped.wait(0.2):
            now = {i: job for i, job in described().items() if i not in self.older and "Comment" in job}
            self.jobs |= now
            active = [job["Comment"] for job in now.values() if job["JobState"] in ("RUNNING", "COMPLETING")]
            self.doubled |= {comment for comment in active if active.count(comment) > 1}
