"""The store of paid answers: what was stored comes back, what is broken is named, nothing is written by two at once."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from middo.answers import Answers, decode_record, encode_record
from middo.files import sha256_json
from middo.program import UserError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
    # As a parsed body is: the parser joins the halves of a surrogate pair.
).map(lambda value: json.loads(json.dumps(value)))


def request(number):
    return {"endpoint": "http://a/v1", "messages": [{"role": "user", "content": f"prompt {number} ünï\u2028"}]}


def lines_of(count):
    return [encode_record(request(number), {"content": f"answer {number} ünï\u2028\n"}) for number in range(count)]


@given(asked=st.dictionaries(st.text(), st.text()), said=JSON)
def test_what_is_stored_comes_back(asked, said):
    line = encode_record(asked, said)
    assert line.count(b"\n") == 1
    with tempfile.TemporaryDirectory() as root:
        own = Path(root) / "strategy" / "iter1.jsonl"
        with (answers := Answers(own, Path(root))).writing():
            answers.add([line])
        for found in (answers, Answers(own, Path(root)), Answers(Path(root) / "other.jsonl", Path(root))):
            assert found.get(sha256_json(asked)) == said
            assert found.get(sha256_json({**asked, "attempt": 2})) is None


def test_a_number_that_json_does_not_know_is_refused():
    with pytest.raises(ValueError):
        encode_record(request(0), {"logprob": float("nan")})


@settings(deadline=None)
@given(data=st.data())
def test_torn_at_any_byte_all_complete_answers_stay(data):
    lines = lines_of(3)
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    complete = whole[:cut].count(b"\n")
    with tempfile.TemporaryDirectory() as root:
        own = Path(root) / "own.jsonl"
        own.write_bytes(whole[:cut])
        with (answers := Answers(own, Path(root))).writing():
            assert own.read_bytes() == b"".join(lines[:complete])
            answers.add(lines[complete:])
        assert own.read_bytes() == whole
        assert [answers.get(sha256_json(request(n))) is not None for n in range(3)] == [True] * 3


def test_a_torn_end_is_told_once(tmp_path, capsys):
    (tmp_path / "own.jsonl").write_bytes(b"".join(lines_of(2))[:-5])
    with (answers := Answers(tmp_path / "own.jsonl", tmp_path)).writing():
        pass
    assert len(answers) == 1
    assert capsys.readouterr().err.count("cut off") == 1


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, len(b"".join(lines_of(3))) - 2), flip=st.integers(1, 255))
def test_one_changed_byte_is_found(place, flip):
    changed = bytearray(b"".join(lines_of(3)))
    changed[place] ^= flip
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "other.jsonl").write_bytes(changed)
        with pytest.raises(UserError, match=r"other\.jsonl, line [123]: this stored answer is broken"):
            Answers(Path(root) / "own.jsonl", Path(root))


def test_the_broken_line_is_named(tmp_path):
    first, second, third = lines_of(3)
    (tmp_path / "own.jsonl").write_bytes(first + b"\n" + third)
    with pytest.raises(UserError, match="line 2"):
        Answers(tmp_path / "own.jsonl", tmp_path)
    with pytest.raises(ValueError):
        decode_record(second.replace(b'"key":"', b'"key":"0'))


def test_answers_of_every_experiment_are_found_and_only_the_own_file_grows(tmp_path):
    other, own = tmp_path / "a" / "iter1.jsonl", tmp_path / "b" / "iter1.jsonl"
    lines = lines_of(2)
    with (theirs := Answers(other, tmp_path)).writing():
        theirs.add(lines[:1])
    with (ours := Answers(own, tmp_path)).writing():
        ours.add(lines[1:])
    assert other.read_bytes() == lines[0] and own.read_bytes() == lines[1]
    theirs.refresh()
    assert len(ours) == len(theirs) == 2


HOLDER = """
import sys
from pathlib import Path
from middo.answers import Answers
own, root = map(Path, sys.argv[1:])
with Answers(own, root).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the store of tmp_path/own.jsonl until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, tmp_path / "own.jsonl", tmp_path]
    environment = {"PYTHONPATH": str(ROOT / "scripts")}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_told_who_writes(tmp_path, holder):
    answers = Answers(tmp_path / "own.jsonl", tmp_path)
    with pytest.raises(UserError, match=f"own.jsonl is in use by process {holder.pid} on "), answers.writing():
        pass
    holder.kill()
    holder.wait()
    with answers.writing():
        answers.add(lines_of(1))


def test_runs_with_files_of_their_own_take_turns(tmp_path, holder):
    command = [sys.executable, "-c", HOLDER, tmp_path / "mine.jsonl", tmp_path]
    environment = {"PYTHONPATH": str(ROOT / "scripts")}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as second:
        assert f"waiting for process {holder.pid} on " in second.stderr.readline()
        holder.kill()
        assert second.stdout.readline() == "held\n"
        second.communicate("")


FULL = """
import resource, sys
from pathlib import Path
from middo.answers import Answers, encode_record
own = Path(sys.argv[1])
lines = [encode_record({"number": number}, "x" * 1000) for number in range(3)]
answers = Answers(own, own.parent)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines[0]) + 700, resource.RLIM_INFINITY))
with answers.writing():
    answers.add(lines[:1])
    answers.add(lines[1:])
"""


def test_a_full_disk_is_told_and_costs_no_earlier_answer(tmp_path):
    own = tmp_path / "own.jsonl"
    environment = {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", FULL, own], env=environment, capture_output=True, text=True)
    assert "UserError" in done.stderr and "own.jsonl: an answer could not be stored: File too large" in done.stderr
    assert own.read_bytes().count(b"\n") == 1
    assert len(Answers(own, tmp_path)) == 1
