"""The sandbox for generated code: programs that try to get out do so in a plain interpreter, and never in it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import psutil
import pytest
from checks import lacks_namespaces
from conftest import ROOT

from middo.sandbox import LIMITS, verdict

SECONDS = 3.0
pytestmark = pytest.mark.skipif(lacks_namespaces(), reason="this machine refuses namespaces (unshare)")


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What an attack must not reach: a listener, a secret in the environment and in a file, a folder to write in."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_text("hidden")
    os.environ["MIDDO_TEST_MARK"] = "hidden"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield {"port": listener.getsockname()[1], "folder": str(folder), "listener": listener, "pid": os.getpid()}
    del os.environ["MIDDO_TEST_MARK"]


ATTACKS = {
    "connects to this machine": "import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=5)",
    "reads the environment": "import os\nassert os.environ['MIDDO_TEST_MARK'] == 'hidden'",
    "reads the parent's environment": "import os\nassert b'PATH=' in open('/proc/{pid}/environ', 'rb').read()",
    "reads a file": "assert open('{folder}/secret').read() == 'hidden'",
    "writes a file": "open('{folder}/written', 'w').write('x')",
    "writes beside the interpreter": "import sys\nopen(sys.prefix + '/written', 'w').write('x')",
    "sees our processes": "import os\nos.kill({pid}, 0)",
    "allocates more than its memory": f"b = bytearray({LIMITS['memory']})",
    "writes a large file": f"open('large', 'wb').write(bytes({2 * LIMITS['file']}))",
    "fills the scratch folder": f"for n in range(5):\n    open(f'f{{n}}', 'wb').write(bytes({LIMITS['file']}))",
    "starts many processes": f"import os, time\nfor n in range({LIMITS['processes'] + 1}):\n"
    "    if os.fork() == 0:\n        time.sleep(2)\n        os._exit(0)",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_succeeds_outside_fails_inside(name, outside, tmp_path):
    code = ATTACKS[name].replace("{{", "{").replace("}}", "}")
    for key in ("port", "folder", "pid"):
        code = code.replace(f"{{{key}}}", str(outside[key]))
    written = [os.path.join(outside["folder"], "written"), os.path.join(sys.prefix, "written")]
    plain = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    succeeded = plain.returncode == 0
    for path in filter(os.path.exists, written):
        os.remove(path)
    if outside_connection(outside["listener"]):
        assert name == "connects to this machine"
    assert succeeded, plain.stderr
    assert verdict([code], SECONDS) == "failed"
    assert not outside_connection(outside["listener"])
    assert not any(map(os.path.exists, written))


def outside_connection(listener):
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import ctypes, os, signal, time\nctypes.CDLL(None).prctl(1, 0)\nos.setsid()\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "while True:\n    try: time.sleep(60)\n    except BaseException: pass",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    ],
    ids=["loop", "sleep", "ignores its alarm", "fork bomb"],
)
def test_time_is_limited_and_nothing_lives_on(code):
    started = time.monotonic()
    assert verdict([code], 1.0) == "timeout"
    assert time.monotonic() - started < 10
    time.sleep(0.2)
    inside = [p for p in psutil.process_iter(["cmdline"]) if "sandboxed.py" in " ".join(p.info["cmdline"] or [])]
    assert inside == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["def f(): return 2", "assert f() == 2"], "pass"),
        (["def f(): return 3", "assert f() == 2"], "wrong_answer"),
        (["def f(: return 3"], "failed"),
        (["import os; os._exit(0)"], "failed"),
        (["import sys; sys.exit(0)"], "failed"),
        (["raise KeyboardInterrupt"], "failed"),
        (["import os; os.write(1, b'pass')", "assert 0"], "failed"),
        (["print('x' * 10**6); open('note', 'w').write('x'); import re, math, heapq, collections, json"], "pass"),
        (["import threading; threading.Thread(target=lambda: __import__('time').sleep(60)).start()"], "pass"),
    ],
)
def test_verdicts(sources, expected):
    assert verdict(sources, SECONDS) == expected


PROGRAM = "import sys; sys.path.insert(0, 'scripts'); from middo.sandbox import verdict; print(verdict(['x = 1'], 3.0))"


def test_users_other_than_root_have_it_too():
    if os.geteuid():
        pytest.skip("these tests do not run as root anyway")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no interpreter that everybody may run")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(ROOT / "scripts", f"{folder}/scripts")
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", PROGRAM]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PATH": os.defpath})
    assert done.stdout == "pass\n", done.stderr


@pytest.mark.parametrize("lacking", ["--net", "--pid", "--mount", "--ipc", "all"])
def test_a_machine_that_does_not_isolate_is_found_out(lacking, tmp_path):
    real = shutil.which("unshare")
    fake = tmp_path / "unshare"
    if lacking == "all":
        fake.write_text("#!/bin/sh\nexit 1\n")
    else:
        fake.write_text(
            f'#!/bin/bash\nwords=()\nfor word in "$@"; do [ "$word" = {lacking} ] || words+=("$word"); done\n'
            f'exec {real} "${{words[@]}}"\n'
        )
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode and b"cannot be isolated" in done.stderr


def test_an_interpreter_below_tmp_has_it_too(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    code = 'from middo.sandbox import verdict; print(verdict([\'open("x", "w").write("y")\'], 5))'
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "scripts")}
    command = [tmp_path / "venv/bin/python", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "pass\n", done.stderr
