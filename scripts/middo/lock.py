"""One writer at a time: a file that a process holds, named to whoever else wants it."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from middo.program import UserError, say


@contextmanager
def hold(path: Path, what: str, seconds: float = 0.0) -> Iterator[int]:
    """Hold the lock file `path` of `what`, and write into it who does.

    Yields its descriptor: a child process that inherits it goes on holding. The kernel frees it with the last of them,
    even if killed. Raises UserError where another process has it for longer than `seconds`.
    """
    with open(path, "a+", encoding="utf-8") as stream:
        deadline = time.monotonic() + seconds
        told = False
        while not _taken(stream.fileno()):
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            if time.monotonic() >= deadline:
                raise UserError(f"{what} is in use by {holder}. Wait for it, or stop it, then start again.")
            if not told:
                say(f"waiting for {holder}, which uses {what}")
                told = True
            time.sleep(0.2)
        stream.truncate(0)
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        stream.write(f"process {os.getpid()} on {socket.gethostname()} or one that it started, since {now}\n")
        stream.flush()
        yield stream.fileno()


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
