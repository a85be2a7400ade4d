"""A sandbox for programs that a model wrote: namespaces of their own for files, network and processes, and limits.

Each program is a fresh interpreter without our environment: no network, no secret, no file but the interpreter's own
and a small scratch folder, a wall clock, bounds on memory, files and processes. When its time is over all that it
started is gone with it. A program that sets out to forge its own verdict can, as it can with OpenCompass.

Made with `unshare` (util-linux) and what the kernel offers to every user, 5.12 or later; where that is forbidden,
`check_isolation` says so.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from middo.program import UserError

MEGABYTE = 2**20
LIMITS = {
    "memory": 1024 * MEGABYTE,  # address space of a process
    "scratch": 64 * MEGABYTE,
    "file": 16 * MEGABYTE,
    "files": 64,  # open at once
    "processes": 8,
}
# Where a program may write. Not /tmp: our interpreter may lie below it, and would be hidden.
SCRATCH = "/middo-scratch"
# What starting interpreter and sandbox may take on a busy machine.
START_SECONDS = 20.0
# User ids that no account has: each program gets one of its own, so that the bound on processes is its own too.
_FIRST_USER, _USERS = 2_000_000_000, 100_000_000
_NAMESPACES = ["--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child"]
_SYSTEM = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom"]
_INSIDE = Path(__file__).with_name("sandboxed.py")
# Passes only where nothing is to be had and everything is bounded.
_PROBE = """
import os, socket, sys, time
def refused(action, *kinds):
    try:
        action()
    except kinds:
        return
    raise RuntimeError(action)
def fork_often():
    for _ in range({processes} + 2):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
refused(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=2), OSError)
refused(lambda: open({outside!r}).read(), OSError)
for folder in ("/", "/usr", sys.prefix):
    refused(lambda: open(folder + "/middo-probe", "w"), OSError)
refused(lambda: bytearray({memory}), MemoryError)
refused(fork_often, OSError)
assert not [name for name in os.environ if name.startswith("MIDDO")]
open("allowed", "w").write("x")
"""


def verdict(sources: Sequence[str], seconds: float, equal: Path | None = None) -> str:
    """What becomes of a program: `pass`, `wrong_answer` (an assertion), `failed`, or `timeout` after `seconds`.

    `sources` run one after another with the same names. `equal` is OpenCompass's file with `type_aware_equal`, which
    MBPP's tests call. Raises UserError where this machine has no sandbox.
    """
    way = _way()
    if way is None:
        check_isolation()
    return _run(way, sources, seconds, equal)


def check_isolation() -> None:
    """Raise UserError unless a program that tries to get out really is held on this machine."""
    if _way() is None:
        raise UserError(
            "Generated code cannot be isolated on this machine: `unshare` (util-linux) is missing, or user namespaces "
            "or mount_setattr (Linux 5.12) are not allowed here. MBPP and HumanEval run code that the model wrote, so "
            "they are refused. Allow user namespaces, leave the two out of evaluation.benchmarks, or accept the risk "
            "with execution.allow_unisolated_code: true."
        )


@cache
def _way() -> tuple[str, ...] | None:
    """The namespaces by which a sandbox holds here, tried by a program that wants out; None where none does."""
    if not shutil.which("unshare"):
        return None
    # The bound on processes does not bind root, whatever namespace it is in; root can become somebody else.
    ways = [(), ("--user", "--map-root-user")] if os.geteuid() == 0 else [("--user", "--map-root-user")]
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.NamedTemporaryFile() as outside:
        os.chmod(outside.name, 0o644)
        facts = {"port": listener.getsockname()[1], "outside": outside.name}
        probe = _PROBE.format(**facts, processes=LIMITS["processes"], memory=LIMITS["memory"])
        with _marked():
            return next((way for way in ways if _run(way, [probe], 10.0) == "pass"), None)


@contextmanager
def _marked() -> Iterator[None]:
    os.environ["MIDDO_PROBE"] = "secret"
    try:
        yield
    finally:
        del os.environ["MIDDO_PROBE"]


def _run(way: tuple[str, ...], sources: Sequence[str], seconds: float, equal: Path | None = None) -> str:
    nonce, started = secrets.token_hex(16), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="middo-sandbox-") as root, tempfile.TemporaryFile() as output:
        request = {
            "within": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "pid", "ipc", "uts")},
            "root": root,
            "shown": _shown(),
            "user": None if way else _FIRST_USER + secrets.randbelow(_USERS),
            "limits": LIMITS,
            "scratch": SCRATCH,
            "sources": list(sources),
            "equal": equal and str(equal.resolve()),
            "seconds": seconds,
            "nonce": nonce,
        }
        command = ["unshare", *_NAMESPACES, *way, _python(), "-I", str(_INSIDE)]
        try:
            subprocess.run(
                command,
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                timeout=seconds + START_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return "timeout"
        output.seek(0)
        signed, _, said = output.read(100).decode(errors="replace").partition(" ")
    # Process 1 ended it where nothing was said.
    return said if signed == nonce else "timeout" if time.monotonic() - started > seconds else "failed"


def _environment() -> dict[str, str]:
    """All that a program sees of our environment: what its interpreter may need to start."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    # A thread per core would break the bound on processes.
    return kept | {"HOME": SCRATCH, "TMPDIR": SCRATCH, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@cache
def _shown() -> list[str]:
    """What a program can read: the system's libraries and this interpreter with its packages."""
    paths = [*_SYSTEM, *(os.path.realpath(prefix) for prefix in (sys.base_prefix, sys.prefix))]
    # A path below another one is there already.
    return [path for path in paths if os.path.lexists(path) and not any(_below(path, other) for other in paths)]


def _below(path: str, other: str) -> bool:
    return path.startswith(other.rstrip("/") + "/")


def _python() -> str:
    """This interpreter by a path that holds without symbolic links on the way to its environment."""
    return str(Path(os.path.realpath(sys.prefix)) / "bin" / Path(sys.executable).name)
