"""A disk that fills while the teacher answers: a clear error, and what was answered before is there."""

import json
import shlex
import subprocess

import pytest
from conftest import ROOT
from refining import CONCURRENCY, command, endpoint, environment, refine, write_world

from middo.files import read_jsonl

ROWS = 40


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    texts = [f"Task {number}" for number in range(ROWS)]
    return write_world(tmp_path_factory.mktemp("world"), [{"instruction": text} for text in texts], ["hard"] * ROWS)


def assert_kept_and_goes_on(world, out, url, journal):
    """The store holds whole lines; the next run asks for nothing that they hold, and ends well."""
    stored = out / "answers" / "test" / "iter1.jsonl"
    before = stored.read_bytes()
    assert before.endswith(b"\n")
    kept = {json.loads(line)["key"] for line in before.splitlines()}
    sent = read_jsonl(journal)
    # Those of the last write, and those under way then.
    assert len(kept) > 10 and len({line["key"] for line in sent} - kept) <= 2 * CONCURRENCY
    done = refine(command(world, out, url))
    assert done.returncode == 0, done.stderr
    assert stored.read_bytes().startswith(before)
    assert not {line["key"] for line in read_jsonl(journal)[len(sent) :]} & kept


def test_a_file_that_may_not_grow(world, tmp_path):
    """The limit of the kernel on a file's size: the store meets it first."""
    with endpoint(tmp_path / "journal.jsonl") as url:
        done = refine(command(world, tmp_path, url), longest_file=70_000)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "iter1.jsonl: an answer could not be stored: File too large. All earlier answers are safe" in done.stderr
        assert_kept_and_goes_on(world, tmp_path, url, tmp_path / "journal.jsonl")


def test_a_disk_without_room_for_anything(world, tmp_path):
    """A small file system of its own, in a namespace of mounts: log, store and DataDreamer's files fill it."""
    small, out = tmp_path / "small", tmp_path / "out"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=200k none {small}"
    if subprocess.run(["unshare", "--map-root-user", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    with endpoint(tmp_path / "journal.jsonl") as url:
        words = shlex.join(map(str, command(world, small, url)))
        script = f"{mount} && {words}; code=$?; cp -r {small} {out}; exit $code"
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done.stderr
        assert "error: " in done.stderr and "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr and "refine] error: " in done.stderr
        assert_kept_and_goes_on(world, out, url, tmp_path / "journal.jsonl")
