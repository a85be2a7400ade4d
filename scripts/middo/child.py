"""Child processes that see no secrets and never outlive the program that started them."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# What torchrun may take to stop its own workers.
GRACE_SECONDS = 45.0

_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")
_NO_REPORTS = {
    "WANDB_DISABLED": "true",
    "WANDB_MODE": "disabled",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}

# Reads its standard input, which ends when the starting program does, however that dies, or wants the group stopped.
# Dead processes that nobody reaps, as in a container without an init, do not count as the group.
_GUARD = """
import glob, os, signal, sys, time
group, kind, grace, again = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
def alive():
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            state, parent, owner = open(path).read().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if owner == group and state not in "ZX":
            return True
    return False
def send(kind):
    try:
        os.killpg(int(group), kind)
    except ProcessLookupError:
        pass
sys.stdin.buffer.read()
start = due = time.monotonic()
while alive() and time.monotonic() < start + grace:
    if time.monotonic() >= due:
        send(kind)
        due += again
    time.sleep(0.05)
if alive():
    send(signal.SIGKILL)
end = time.monotonic() + 60
while alive() and time.monotonic() < end:
    time.sleep(0.05)
"""


def safe_environment() -> dict[str, str]:
    """The environment for a child: no variable whose name looks like a secret's.

    Reports to tracking services are off, and the folder of this interpreter leads PATH, so that the commands of this
    environment are found.
    """
    allowed = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith(_SECRET_ENDINGS) and name.upper() != "API_KEY"
    }
    folder = str(Path(sys.executable).parent)
    return allowed | _NO_REPORTS | {"PATH": os.pathsep.join([folder, allowed.get("PATH", os.defpath)])}


@contextmanager
def running(
    command: Sequence[str],
    environment: dict[str, str],
    output: IO | None = None,
    hold: Sequence[int] = (),
    cwd: Path | None = None,
    stop: int = signal.SIGTERM,
    grace: float = GRACE_SECONDS,
    again: float = math.inf,
) -> Iterator[subprocess.Popen]:
    """Run `command` in a process group of its own while the block runs; at its end the whole group is stopped.

    It is stopped too when this program is killed, even by SIGKILL: a guard process waits for that. SIGTERM ends the
    block (exit status 143) and so the group. The group is stopped by the signal `stop`, repeated every `again` seconds,
    and by SIGKILL after `grace` seconds. `output` takes stdout and stderr; without it they go where ours go. `hold`
    are file descriptors, for instance of a lock, that stay open in child and guard until both are gone.
    """
    child = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,
        pass_fds=hold,
        cwd=cwd,
    )
    # It inherits the mask: a SIGTERM for all processes, as Slurm sends it, must leave the guard.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    guard = subprocess.Popen(
        [sys.executable, "-c", _GUARD, *map(str, (child.pid, int(stop), grace, again))],
        stdin=subprocess.PIPE,
        start_new_session=True,
        pass_fds=hold,
    )
    previous = signal.signal(signal.SIGTERM, _exit_once)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield child
    finally:
        guard.stdin.close()
        guard.wait()
        child.wait()
        signal.signal(signal.SIGTERM, previous)


def _exit_once(*_: object) -> None:
    """Exit with status 143; further signals must not cut short the stopping."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def run_child(
    command: Sequence[str],
    environment: dict[str, str],
    output: IO | None = None,
    cwd: Path | None = None,
    watch: Callable[[], None] | None = None,
    every: float = 0.5,
) -> int:
    """Run `command` to its end as `running` does and return its exit status; call `watch` every `every` seconds."""
    with running(command, environment, output, cwd=cwd) as child:
        return wait_for(child, watch, every)


def wait_for(child: subprocess.Popen, watch: Callable[[], None] | None = None, every: float = 0.5) -> int:
    """The exit status of `child`, once it ends; until then `watch` is called every `every` seconds."""
    while True:
        try:
            return child.wait(timeout=every)
        except subprocess.TimeoutExpired:
            if watch:
                watch()
