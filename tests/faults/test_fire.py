"""Thousands of requests, nearly a third with a fault, and runs killed at random: nothing is lost or paid for twice.

MIDDO_FIRE_REQUESTS and MIDDO_FIRE_KILLS say how many; the full figures are 10000 and 50.
"""

import json
import os
import random
import time
from collections import Counter

import polars as pl
import pytest
from fault_server import CONTENT, LABEL, TRANSPORT
from refining import Run, assert_no_key, command, ended, endpoint, refine, results, write_world

from middo.actions import ORIGIN
from middo.files import read_json, read_jsonl

REQUESTS = int(os.environ.get("MIDDO_FIRE_REQUESTS", "1500"))
KILLS = int(os.environ.get("MIDDO_FIRE_KILLS", "6"))
BOUND = 32
KILLED_BOUND = 8
SEED = 11

# The reason by the fault, for a rewrite and for an answer; where an answer has none, it can be used.
REWRITE = {
    "null": "null content",
    "length": "cut off by max_tokens",
    "content_filter": "stopped by the content filter",
    "refusal": "refusal",
    "empty": "empty",
    "no_label": "no label",
    "two_labels": "label more than once",
    "other": "no label",
    "400": "refused with status 400",
}
ANSWER = REWRITE | {
    "no_label": None,
    "two_labels": "a rewrite in place of an answer",
    "other": "a rewrite in place of an answer",
}
assert set(REWRITE) == set(CONTENT)


def text(number: int) -> str:
    """Row by row other texts; some hold the label, within a line or at the beginning of one."""
    inside = {3: f"\nWhat does '{LABEL}' mean?", 5: f"\n{LABEL}\nSay no more."}.get(number % 40, "")
    return f"Task {number}: name a river, a lake and {number % 7} ünï\u2028code mountains.{inside}"


def make_world(folder, count):
    """`count` rows, all hard, every tenth low and sparse too."""
    kinds = ["hard low sparse" if number % 10 == 0 else "hard" for number in range(count)]
    return write_world(folder, [{"instruction": text(number)} for number in range(count)], kinds)


def expected_outcomes(journal):
    """{key: reason, or None for a usable reply} of every request that was replied to, from the faults it got."""
    found = {}
    for line in journal:
        if line["answered"]:
            rewrite = line["prompt"].startswith("You are preparing")
            # The teacher quotes a row's text, here with the label at the beginning of a line.
            spoilt = rewrite and line["fault"] is None and f"\n{LABEL}\nSay no more." in line["prompt"]
            reasons = REWRITE if rewrite else ANSWER
            found[line["key"]] = "label more than once" if spoilt else reasons.get(line["fault"])
    return found


def assert_every_row_ended(world, out, journal):
    """Each selected row is refined or rejected, with the reason that the faults it got give it."""
    selection = pl.read_parquet(world / "selection.parquet")
    chosen = {
        (row, origin) for kind, origin in ORIGIN.items() for row in selection.filter(pl.col(kind))["id"].to_list()
    }
    outcomes = expected_outcomes(journal)
    lines = ended(out)
    assert set(lines) == chosen
    for line in lines.values():
        assert outcomes[line["requests"][-1]] == line.get("reason")
    assert read_json(out / "refine.json")["requests"] == len(outcomes)


def sent_again(journal):
    """How many replies were to a request that had been replied to before."""
    answered = Counter(line["key"] for line in journal if line["answered"])
    return sum(answered.values()) - len(answered)


@pytest.fixture(scope="module")
def fire(tmp_path_factory):
    """A run under fire, started again where a 401 and a 404 stop it: the folder, the journal, what the stops said."""
    out = tmp_path_factory.mktemp("fire")
    world = make_world(out / "world", round(REQUESTS * 0.345))
    moments = random.Random(SEED).sample(range(REQUESTS // 5, REQUESTS * 4 // 5), 2)
    faults = ("--rate", "0.3", "--seed", str(SEED), "--nth", f"401:{moments[0]}", f"404:{moments[1]}")
    stops = []
    with endpoint(out / "journal.jsonl", *faults) as url:
        words = command(world, out, url, max_concurrency=BOUND, max_retries=8)
        while (done := refine(words)).returncode and len(stops) < 3:
            stops.append(done.stderr)
    assert done.returncode == 0, done.stderr
    return dict(world=world, out=out, journal=read_jsonl(out / "journal.jsonl"), stops=stops)


def test_every_selected_row_ends_refined_or_rejected_with_its_reason(fire):
    assert_every_row_ended(fire["world"], fire["out"], fire["journal"])


def test_every_kind_of_fault_struck_and_nearly_a_third_of_all_requests(fire):
    faults = Counter(line["fault"] for line in fire["journal"])
    assert len(fire["journal"]) >= REQUESTS
    assert set(faults) == {None, "401", "404", *TRANSPORT, *CONTENT}
    assert 0.26 < 1 - faults[None] / len(fire["journal"]) < 0.34


def test_no_request_that_was_answered_is_sent_again(fire):
    assert sent_again(fire["journal"]) == 0


def test_concurrency_never_exceeds_its_bound(fire):
    assert max(line["under_way"] for line in fire["journal"]) == BOUND


def test_what_concerns_all_requests_stops_the_run_and_keeps_everything(fire):
    assert len(fire["stops"]) == 2
    for status in ("401", "404"):
        (said,) = (stop for stop in fire["stops"] if f"with status {status}" in stop)
        assert "All answers are kept; mend this and start again" in said and "Traceback" not in said


def test_the_fire_leaves_no_key_behind(fire):
    assert_no_key(fire["out"], *fire["stops"])


class Journal:
    """Counts the lines of a journal that grows."""

    def __init__(self, path):
        self.stream, self.lines = open(path, "rb"), 0  # noqa: SIM115

    def count(self):
        self.lines += self.stream.read().count(b"\n")
        return self.lines


def kill_at(words, journal, lines, seconds):
    """Start refining; kill it when the journal has so many lines, or so many seconds after the start."""
    started = time.monotonic()
    run = Run(words)
    while (journal.count() < lines) if seconds is None else (time.monotonic() < started + seconds):
        assert run.running()
        time.sleep(0.002)
    run.kill()
    # What the server had in hand meets a closed connection.
    time.sleep(0.1)


def lost_in_flight(since, stored):
    """How many replies of these journal lines the store lacks; a refusal costs nothing and does not count."""
    kept = {json.loads(line)["key"] for line in complete(stored).splitlines()}
    return sum(line["answered"] and line["fault"] != "400" and line["key"] not in kept for line in since)


def complete(path):
    """The store's complete lines."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def test_killed_at_random_moments_it_ends_with_the_bytes_of_an_undisturbed_run(tmp_path):
    world = make_world(tmp_path / "world", 40 + 6 * KILLS)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    faults = ("--rate", "0.3", "--seed", str(SEED), "--latency", "0.02")
    reach = dict(max_concurrency=KILLED_BOUND, max_retries=8, timeout=2)
    whole.mkdir()
    with endpoint(whole / "journal.jsonl", *faults) as url:
        done = refine(command(world, whole, url, **reach))
        assert done.returncode == 0, done.stderr
    undisturbed = read_jsonl(whole / "journal.jsonl")
    # The endpoint is a part of what is asked: at the same port the questions are the undisturbed run's.
    port = url.removesuffix("/v1").rpartition(":")[2]
    out.mkdir()
    stored, draw = out / "answers" / "test" / "iter1.jsonl", random.Random(SEED)
    in_seconds = KILLS // 6
    moments = sorted(draw.sample(range(1, len(undisturbed)), KILLS - in_seconds))
    plan = [(lines, None) for lines in moments]
    for _ in range(in_seconds):
        plan.insert(draw.randrange(len(plan) + 1), (None, draw.uniform(0, 2)))
    lost = []
    with endpoint(out / "journal.jsonl", *faults, "--port", port) as url:
        words = command(world, out, url, **reach)
        journal = Journal(out / "journal.jsonl")
        for lines, seconds in plan:
            before, seen = complete(stored), journal.count()
            kill_at(words, journal, lines, seconds)
            assert complete(stored).startswith(before), "what was answered stays as it was"
            lost.append(lost_in_flight(read_jsonl(out / "journal.jsonl")[seen:], stored))
        stored.write_bytes(complete(stored) + b'{"key":"torn')
        done = finish_beside_a_second_run(words, stored)
    disturbed = read_jsonl(out / "journal.jsonl")
    assert done.returncode == 0 and "the last answer was cut off" in done.stderr, done.stderr
    assert results(out) == results(whole)
    whole_store = whole / "answers" / "test" / "iter1.jsonl"
    assert sorted(stored.read_bytes().splitlines()) == sorted(whole_store.read_bytes().splitlines())
    assert_every_row_ended(world, out, disturbed)
    refused_again = sent_again([line for line in disturbed if line["fault"] == "400"])
    repeated = sent_again(disturbed) - refused_again
    print(
        f"{KILLS} kills: {len(disturbed)} requests, {repeated} repeated, {sum(lost)} in flight, {refused_again} refused"
    )
    assert max(lost) <= KILLED_BOUND and repeated <= sum(lost)
    assert max(line["under_way"] for line in disturbed) <= KILLED_BOUND
    assert_no_key(tmp_path, done.stderr)


def finish_beside_a_second_run(words, stored):
    """The end of a run beside which a second one is started, which must stop."""
    first = Run(words)
    while b"torn" in stored.read_bytes():
        assert first.running()
        time.sleep(0.01)
    second = refine(words)
    assert second.returncode == 1 and f"is in use by process {first.pid} on " in second.stderr, second.stderr
    return first.end()
