"""Child processes that see no secrets and never outlive the program that started them."""

import os
import signal
import subprocess
import sys
import time
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

# Reads its standard input, which ends when the starting program does, however that dies; then stops the process group.
# Dead processes that nobody reaps, as in a container without an init, do not count as the group.
_GUARD = """
import glob, os, signal, sys, time
group, grace = sys.argv[1], float(sys.argv[2])
def alive():
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            state, parent, owner = open(path).read().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if owner == group and state not in "ZX":
            return True
    return False
if sys.stdin.buffer.read():
    sys.exit()
for kind in (signal.SIGTERM, signal.SIGKILL):
    deadline = time.monotonic() + grace
    if alive():
        os.killpg(int(group), kind)
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
"""


def safe_environment(keep: Sequence[str] = ()) -> dict[str, str]:
    """The environment for a child: no variable whose name looks like a secret's, except those in `keep`.

    Reports to tracking services are off, and the folder of this interpreter leads PATH, so that the commands of this
    environment are found.
    """
    allowed = {
        name: value
        for name, value in os.environ.items()
        if name in keep or not name.upper().endswith(_SECRET_ENDINGS) and name.upper() != "API_KEY"
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
) -> Iterator[subprocess.Popen]:
    """Run `command` in a process group of its own while the block runs; at its end the whole group is stopped.

    It is stopped too when this program is killed, even by SIGKILL: a guard process waits for that. SIGTERM ends the
    block (exit status 143) and so the group. `output` takes stdout and stderr; without it they go where ours go. `hold`
    are file descriptors, for instance of a lock, that stay open in child and guard until both are gone.
    """
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
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
    guard = subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(child.pid), str(GRACE_SECONDS)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        pass_fds=hold,
    )
    try:
        yield child
    finally:
        _stop(child)
        guard.communicate(b"stopped")
        signal.signal(signal.SIGTERM, previous)


def run_child(
    command: Sequence[str],
    environment: dict[str, str],
    output: IO | None = None,
    hold: Sequence[int] = (),
    cwd: Path | None = None,
    watch: Callable[[], None] | None = None,
    every: float = 0.5,
) -> int:
    """Run `command` to its end as `running` does and return its exit status; call `watch` every `every` seconds."""
    with running(command, environment, output, hold, cwd) as child:
        while True:
            try:
                return child.wait(timeout=every)
            except subprocess.TimeoutExpired:
                if watch:
                    watch()


def _stop(child: subprocess.Popen) -> None:
    """SIGTERM for the group, SIGKILL for what is left of it after the grace period."""
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while _signal_group(child.pid, 0) and time.monotonic() < deadline:
        # Reaped here, or the group would seem to live on as a zombie.
        child.poll()
        time.sleep(0.02)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, kind: int) -> bool:
    """Whether the group still existed to take the signal."""
    try:
        os.killpg(group, kind)
    except ProcessLookupError:
        return False
    return True
