"""refine.py for real, with DataDreamer and the openai client, against an endpoint that fails in every way it can."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
import psutil
import pytest
from refining import (
    ATTEMPTS,
    CONCURRENCY,
    SERVER,
    assert_no_key,
    command,
    ended,
    endpoint,
    refine,
    refine_anew,
    results,
    write_world,
)

from middo.files import read_json, read_jsonl
from middo.rows import content_hash, prompt_text

# One row each, all hard. A fault of the transport strikes once and is got over.
RECOVERED = ["429", "429_wait", "500", "503", "reset", "hang", "malformed", "no_choices"]
# A fault of the reply strikes on each attempt (`fault:`), so that the row is rejected, or on the first (`once:`).
REASONS = {
    "null": "null content",
    "length": "cut off by max_tokens",
    "content_filter": "stopped by the content filter",
    "refusal": "refusal",
    "empty": "empty",
    "no_label": "no label",
    "two_labels": "label more than once",
    "other": "no label",
}
IN_ANSWER = ["null", "length", "content_filter", "refusal", "empty"]


def make_world(folder: Path) -> Path:
    """dataset.jsonl, selection.parquet and neighbors.parquet of 43 rows; two of them share their prompt."""
    marks = [f"fault:{name}" for name in [*RECOVERED, *REASONS, "400"]]
    marks += [f"once:{name}" for name in REASONS] + [f"then:{name}" for name in IN_ANSWER]
    plain = ["", "", "hard low sparse", "hard low", "hard sparse", "low sparse", "low", "sparse", "hard", "hard"]
    chosen = ["hard"] * len(marks) + plain
    texts = [f"Do this. {mark}" for mark in marks] + [f"Plain ünï {number}" for number in range(8)] + ["Twins"] * 2
    rows = [
        {"instruction": text, "input": "over\ntwo lines" if number % 2 and text != "Twins" else ""}
        for number, text in enumerate(texts)
    ]
    return write_world(folder, rows, chosen)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """One whole run that nothing interrupts, with every fault: its folder, URL, journal and what it printed."""
    out = tmp_path_factory.mktemp("undisturbed")
    with endpoint(out / "journal.jsonl") as url:
        done = refine_anew(command(world, out, url))
    assert done.returncode == 0, done.stderr
    return dict(out=out, url=url, journal=read_jsonl(out / "journal.jsonl"), printed=done.stdout + done.stderr)


def by_mark(world: Path, mark: str) -> str:
    (row,) = (row for row in read_jsonl(world / "dataset.jsonl") if row["instruction"] == f"Do this. {mark}")
    return row["id"]


@pytest.mark.parametrize("name", RECOVERED)
def test_a_fault_of_the_transport_is_got_over(run, world, name):
    row = ended(run["out"])[by_mark(world, f"fault:{name}"), "simplified"]
    assert row["output"].startswith("Answer ")
    sendings = [line for line in run["journal"] if line["key"] == row["requests"][0]]
    assert [line["fault"] for line in sendings] == [name, None]


@pytest.mark.parametrize("name", REASONS)
def test_a_reply_that_stays_unusable_rejects_the_row(run, world, name):
    line = ended(run["out"])[by_mark(world, f"fault:{name}"), "simplified"]
    assert (line["step"], line["reason"], line["attempts"]) == ("rewrite", REASONS[name], ATTEMPTS)
    if name == "no_label":
        assert line["reply"] == "I would rather not."


def test_a_refused_request_rejects_its_row_at_once(run, world):
    line = ended(run["out"])[by_mark(world, "fault:400"), "simplified"]
    assert (line["step"], line["reason"], line["attempts"]) == ("rewrite", "refused with status 400", 1)
    assert line["reply"] == '{"error": {"message": "fault 400; your key is (key)"}}'
    sendings = [sent for sent in run["journal"] if "fault:400" in sent["prompt"]]
    assert len(sendings) == 1


@pytest.mark.parametrize("name", REASONS)
def test_an_unusable_reply_is_asked_for_again(run, world, name):
    row = ended(run["out"])[by_mark(world, f"once:{name}"), "simplified"]
    faults = [line["fault"] for line in run["journal"] if f"once:{name}" in line["prompt"] and line["answered"]]
    assert row["output"].startswith("Answer ") and faults == [name, None]


@pytest.mark.parametrize("name", IN_ANSWER)
def test_an_unusable_answer_rejects_the_row(run, world, name):
    line = ended(run["out"])[by_mark(world, f"then:{name}"), "simplified"]
    assert (line["step"], line["reason"], line["attempts"]) == ("answer", REASONS[name], ATTEMPTS)
    assert len(line["requests"]) == 2


def test_new_rows_stand_in_order_and_tell_where_they_come_from(run, world):
    rows = {row["id"]: row for row in read_jsonl(world / "dataset.jsonl")}
    place = list(rows)
    refined = read_jsonl(run["out"] / "refined.jsonl")
    origins = ["simplified", "improved", "extended"]
    order = [(place.index(row["parents"][0]), origins.index(row["origin"])) for row in refined]
    assert order == sorted(order)
    plain = {
        (rows[row["parents"][0]]["instruction"], row["origin"]): row
        for row in refined
        if rows[row["parents"][0]]["instruction"].startswith("Plain")
    }
    expected = {2: "sie", 3: "si", 4: "se", 5: "ie", 6: "i", 7: "e"}
    initials = {"s": "simplified", "i": "improved", "e": "extended"}
    assert set(plain) == {(f"Plain ünï {n}", initials[i]) for n, kinds in expected.items() for i in kinds}
    for row in refined:
        hints = [place[place.index(row["parents"][0]) - back] for back in (1, 2)]
        assert row["parents"][1:] == (hints if row["origin"] == "extended" else [])
        assert (row["input"], row["iteration"]) == ("", 1)
        assert row["id"].rpartition("-")[0] == content_hash(row)
        assert row["instruction"].startswith("New task ") and row["instruction"].endswith("code.")


def test_the_teacher_gets_the_rows_text_and_the_hints_quoted(run, world):
    rows = {row["id"]: row for row in read_jsonl(world / "dataset.jsonl")}
    asked = {line["key"]: line["prompt"] for line in run["journal"]}
    for row in read_jsonl(run["out"] / "refined.jsonl"):
        rewrite, answer = (asked[key] for key in row["requests"])
        parent, *hints = (rows[parent] for parent in row["parents"])
        assert rewrite.endswith("\n" + prompt_text(parent)) and answer == row["instruction"]
        for number, hint in enumerate(hints, start=1):
            quoted = prompt_text(hint).replace("\n", "\n> ")
            assert f"Hint {number}:\n> {quoted}\n" in rewrite


def test_the_same_question_is_asked_once(run):
    twins = [line for line in run["journal"] if line["prompt"].endswith("\nTwins")]
    assert len(twins) == 1
    assert max(Counter(line["key"] for line in run["journal"] if line["answered"]).values()) == 1


def test_the_bound_on_concurrency_is_reached_and_kept(run):
    assert max(line["under_way"] for line in run["journal"]) == CONCURRENCY


def test_the_report_counts_what_was_asked(run):
    report = read_json(run["out"] / "refine.json")
    answered = [line for line in run["journal"] if line["answered"]]
    rejected = Counter(f"{line['step']}: {line['reason']}" for line in read_jsonl(run["out"] / "rejected.jsonl"))
    assert report["requests"] == len(answered)
    assert report["tokens"] == {
        kind: sum(line["usage"][f"{kind}_tokens"] for line in answered if line["usage"])
        for kind in ("prompt", "completion")
    }
    assert report["cost"] is None
    assert report["teacher_models"] == ["m-2024-07-18"]
    hard = len(RECOVERED) + 1 + 2 * len(REASONS) + len(IN_ANSWER) + 5
    lost = len(REASONS) + 1 + len(IN_ANSWER)
    assert report["rows"] == {
        "simplified": {"asked": hard, "refined": hard - lost, "rejected": dict(rejected)},
        "improved": {"asked": 4, "refined": 4, "rejected": {}},
        "extended": {"asked": 4, "refined": 4, "rejected": {}},
    }


def test_the_key_reaches_the_endpoint_alone(run):
    assert_no_key(run["out"], run["printed"])


def test_nothing_is_left_behind_but_results_and_answers(run):
    names = {path.name for path in run["out"].iterdir()}
    assert not list(Path(tempfile.gettempdir()).glob("Teacher-*")), "DataDreamer's lock"
    assert names == {"answers", "journal.jsonl", "logs", "refined.jsonl", "rejected.jsonl", "refine.json"}


def test_stored_answers_serve_again_without_endpoint_or_key(run, world, tmp_path):
    stored = run["out"] / "answers" / "test" / "iter1.jsonl"
    done = refine(command(world, tmp_path, run["url"], stored), key=None)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == results(run["out"])


def test_complexity_first_gives_a_row_in_both_one_child(run, world, tmp_path):
    stored = run["out"] / "answers" / "other" / "iter1.jsonl"
    done = refine(command(world, tmp_path, run["url"], stored, "--overlap", "complexity_first"))
    assert done.returncode == 0, done.stderr
    before, after = ended(run["out"]), ended(tmp_path)
    hard = {row for row, origin in before if origin == "simplified"}
    assert set(after) == {(row, origin) for row, origin in before if origin != "improved" or row not in hard}
    assert len(before) - len(after) == 2


def test_estimate_sends_nothing_and_needs_no_key(run, world, tmp_path):
    done = refine(command(world, tmp_path, run["url"], None, "--estimate"), key=None)
    assert done.returncode == 0, done.stderr
    distinct = len(ended(run["out"])) - 1
    assert f"{distinct} rewrites and up to {distinct} answers" in done.stderr
    assert f"{2 * distinct} calls" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    stored = run["out"] / "answers" / "test" / "iter1.jsonl"
    done = refine(command(world, tmp_path, run["url"], stored, "--estimate"), key=None)
    assert "0 calls" in done.stderr


@pytest.mark.parametrize(("key", "said"), [(None, "is not set"), ("", "is not set"), ("sk-a\nb", "no key has")])
def test_without_a_proper_key_nothing_starts(world, tmp_path, key, said):
    done = refine(command(world, tmp_path, "http://127.0.0.1:9/v1"), key=key)
    assert done.returncode == 1 and "REFINE_TEST_KEY" in done.stderr and said in done.stderr
    assert "sk-a" not in done.stderr and "DataDreamer" not in done.stderr


def test_no_selected_row_is_no_work(world, tmp_path):
    for name in ("dataset.jsonl", "neighbors.parquet"):
        (tmp_path / name).write_bytes((world / name).read_bytes())
    nothing = pl.read_parquet(world / "selection.parquet").with_columns(hard=False, low=False, sparse=False)
    nothing.write_parquet(tmp_path / "selection.parquet")
    done = refine(command(tmp_path, tmp_path / "out", "http://127.0.0.1:9/v1"), key=None)
    assert done.returncode == 0, done.stderr
    refined, rejected, report = results(tmp_path / "out")
    assert (refined, rejected, json.loads(report)["requests"]) == (b"", b"", 0)
    assert not (tmp_path / "out" / "answers").exists()


def test_a_selection_of_other_rows_is_refused(world, tmp_path):
    for name in ("dataset.jsonl", "neighbors.parquet"):
        (tmp_path / name).write_bytes((world / name).read_bytes())
    pl.read_parquet(world / "selection.parquet").head(5).write_parquet(tmp_path / "selection.parquet")
    done = refine(command(tmp_path, tmp_path / "out", "http://127.0.0.1:9/v1"))
    assert done.returncode == 1 and "selection.parquet" in done.stderr and "Missing" in done.stderr


@pytest.fixture(scope="module")
def refusals(world, tmp_path_factory):
    """Runs against endpoints that refuse everything, by status: (exit status, what it printed, journal, folder)."""
    found = {}
    for status in ("400", "401", "404"):
        out = tmp_path_factory.mktemp(f"refused-{status}")
        with endpoint(out / "journal.jsonl", "--always", status) as url:
            done = refine(command(world, out, url))
        found[status] = (done.returncode, done.stderr, read_jsonl(out / "journal.jsonl"), out)
    return found


@pytest.mark.parametrize("status", ["400", "401", "404"])
def test_a_refusal_of_every_request_stops_everything(refusals, status):
    end, printed, journal, out = refusals[status]
    assert end == 1
    assert f"with status {status}" in printed and f"fault {status}; your key is (key)" in printed
    assert "trying again" not in printed and "Traceback" not in printed
    # A 400 may be about one row, but not that often in a row.
    most = 20 if status == "400" else 1
    assert most <= len(journal) < most + CONCURRENCY
    assert max(Counter(line["key"] for line in journal).values()) == 1
    assert "are kept" in printed and ("no fault of single rows" in printed) == (status == "400")
    assert (out / "answers" / "test" / "iter1.jsonl").read_bytes() == b""
    assert not (out / "refined.jsonl").exists()
    assert_no_key(out, printed)


def test_a_local_teacher_is_started_asked_and_stopped_and_given_up_in_the_end(tmp_path):
    """One request that never succeeds: the others are stored, the message names it, the server is gone."""
    texts = ["Plain a", "Plain b", "Plain c", "Do this. fault:dead"]
    write_world(tmp_path, [{"instruction": text} for text in texts], ["hard"] * len(texts))
    served = ["python", str(SERVER), "--port", "{port}", "--journal", str(tmp_path / "journal.jsonl")]
    url = "http://127.0.0.1:{port}/v1"
    words = command(tmp_path, tmp_path / "out", url, api_key_env=None, command=served, max_retries=2)
    done = refine(words, key=None)
    assert done.returncode == 1
    assert "did not answer request" in done.stderr and "fault:dead" in done.stderr
    assert "in 3 tries; the last time: status 503" in done.stderr
    journal = read_jsonl(tmp_path / "journal.jsonl")
    assert Counter(line["fault"] for line in journal) == {None: 3, "dead": 3}
    stored = read_jsonl(tmp_path / "out" / "answers" / "test" / "iter1.jsonl")
    assert {record["key"] for record in stored} == {line["key"] for line in journal if line["answered"]}
    assert {record["request"]["endpoint"] for record in stored} == {url}
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not any(str(tmp_path) in " ".join(words) for words in running)


def test_a_local_teacher_that_does_not_come_up_is_shown(world, tmp_path):
    served = ["python", "-c", "print('no model here'); raise SystemExit(3)", "{port}"]
    done = refine(command(world, tmp_path, "http://127.0.0.1:{port}/v1", command=served))
    assert done.returncode == 1
    assert "ended by itself with status 3" in done.stderr and "no model here" in done.stderr
