"""What single replies mean: pauses that the endpoint asks for, keys that it sends back, refusals of some or all."""

import email.utils
import json
import subprocess
import time

from conftest import ROOT
from refining import KEY, PYTHON, command, ended, endpoint, refine, write_world

from middo.files import read_jsonl

ESCAPED = KEY.replace("s", "\\u0073", 1)
CALLS = """
import json, sys
from middo import endpoint
print(json.dumps([getattr(endpoint, name)(*arguments) for name, *arguments in json.load(sys.stdin)]))
"""


def call(*calls):
    """Results of functions of middo.endpoint, which only the environment of refining can import."""
    done = subprocess.run(
        [PYTHON, "-c", CALLS],
        env={"PYTHONPATH": str(ROOT / "scripts")},
        input=json.dumps(calls),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_pauses_that_are_asked_for():
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    asked = ["7", "2.5", date, "-3", "nan", "inf", "soon", "", "Fri, 31 Dec 99999 23:59:59 GMT"]
    *waits, absent = call(*(("asked_wait", {"retry-after": text}) for text in asked), ("asked_wait", {}))
    assert waits[:2] == [7, 2.5] and 60 < waits[2] <= 100
    assert waits[3:] == [0] * 6 and absent == 0


def test_the_key_is_hidden_in_replies_and_errors_however_it_is_escaped():
    reply = {"choices": [{"message": {"content": f"It is {KEY}, {KEY}."}}], "usage": None, KEY: [1, KEY]}
    found, said, plain, unescaped = call(
        ("without_key", reply, KEY),
        ("_said", f'{{"error": "no {ESCAPED}"}}', KEY),
        ("_said", f"no {'x' * 1990}{KEY}", KEY),
        ("_said", "none of these", "none"),
    )
    assert found == {
        "choices": [{"message": {"content": "It is (key), (key)."}}],
        "usage": None,
        "(key)": [1, "(key)"],
    }
    assert said == '{"error": "no (key)"}' and plain.endswith("x(key)") and unescaped == "none of these"


def test_a_few_rows_that_are_all_refused_are_no_fault_of_theirs(tmp_path):
    world = write_world(tmp_path, [{"instruction": f"Do {number}. fault:400"} for number in range(3)], ["hard"] * 3)
    with endpoint(tmp_path / "journal.jsonl") as url:
        done = refine(command(world, tmp_path, url))
    assert done.returncode == 1 and "So it did 3 times with no answer in between" in done.stderr
    assert (tmp_path / "answers" / "test" / "iter1.jsonl").read_bytes() == b""


def test_a_refusal_after_a_restart_counts_by_what_was_answered_before(tmp_path):
    world = write_world(tmp_path, [{"instruction": "Plain"}, {"instruction": "Do this. fault:400"}], ["hard"] * 2)
    with endpoint(tmp_path / "journal.jsonl") as url:
        assert refine(command(world, tmp_path, url, max_requests=1, max_concurrency=1)).returncode == 1
        done = refine(command(world, tmp_path, url, max_concurrency=1))
    assert done.returncode == 0, done.stderr
    assert sorted(line.get("reason", "") for line in ended(tmp_path).values()) == ["", "refused with status 400"]
    assert [line["fault"] for line in read_jsonl(tmp_path / "journal.jsonl")] == [None, "400", None]


def test_a_placeholder_of_a_key_stays_a_word_of_the_replies(tmp_path):
    world = write_world(tmp_path, [{"instruction": "Do. fault:echo"}, {"instruction": "Other"}], ["hard", ""])
    with endpoint(tmp_path / "journal.jsonl") as url:
        done = refine(command(world, tmp_path, url), key="EMPTY")
    assert done.returncode == 0, done.stderr
    (row,) = read_jsonl(tmp_path / "refined.jsonl")
    assert row["instruction"].endswith("Your key is EMPTY.")
