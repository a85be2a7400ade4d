"""A held file: who holds it is named, others wait or are refused, and the last of its holders frees it."""

import subprocess
import sys

import pytest

from middo.lock import hold
from middo.program import UserError

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_others_wait_say_so_once_and_are_refused(tmp_path, capsys):
    refused = pytest.raises(UserError, match="the store is in use by process [0-9]+ on ")
    with hold(tmp_path / "lock", "the store"), refused, hold(tmp_path / "lock", "the store", 0.5):
        pytest.fail("it is held twice")
    assert capsys.readouterr().err.count("waiting for process ") == 1
    with hold(tmp_path / "lock", "the store"):
        assert (tmp_path / "lock").read_text().count("process ") == 1


def test_a_child_goes_on_holding(tmp_path):
    with hold(tmp_path / "lock", "world 1") as descriptor:
        child = subprocess.Popen(SLEEP, stdin=subprocess.PIPE, pass_fds=[descriptor])
    with pytest.raises(UserError, match="or one that it started"), hold(tmp_path / "lock", "world 1"):
        pytest.fail("it is held twice")
    child.communicate(b"")
    with hold(tmp_path / "lock", "world 1"):
        pass
