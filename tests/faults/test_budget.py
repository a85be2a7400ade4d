"""The caps teacher.max_requests and teacher.max_cost: what is spent is known, nothing goes beyond, nothing is lost."""

import json

import pytest
from refining import CONCURRENCY, command, endpoint, refine, results, write_world

from middo.answers import encode_record
from middo.files import read_json, read_jsonl

PRICES = {"input": 150.0, "output": 600.0}
ROWS = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    texts = [f"Task {number}" for number in range(ROWS)]
    return write_world(tmp_path_factory.mktemp("world"), [{"instruction": text} for text in texts], ["hard"] * ROWS)


def cost(journal):
    """By hand, from what the endpoint said of each reply; its replies are 7 tokens long."""
    return sum(150 * line["usage"]["prompt_tokens"] + 600 * 7 for line in journal if line["answered"]) / 1e6


def stopped(done):
    """What a run that a cap has stopped says; it is no crash."""
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (said,) = (line for line in done.stderr.splitlines() if "The budget of this experiment is used up" in line)
    return said.partition("error: ")[2]


def test_max_requests_is_never_exceeded_and_a_higher_one_goes_on(world, tmp_path):
    journal = tmp_path / "journal.jsonl"
    with endpoint(journal) as url:
        done = refine(command(world, tmp_path, url, max_requests=7))
        assert stopped(done) == (
            "The budget of this experiment is used up: 7 of 7 requests. 20 of 20 rows are still to be made. "
            "All answers are kept; raise teacher.max_requests and start again to go on."
        )
        assert "spent in this experiment so far: 0 of 7 requests" in done.stderr
        assert len(read_jsonl(journal)) == 7
        again = refine(command(world, tmp_path, url, max_requests=7))
        assert stopped(again) == stopped(done) and "starting DataDreamer" not in again.stderr
        assert len(read_jsonl(journal)) == 7
        done = refine(command(world, tmp_path, url, max_requests=29))
        assert "29 of 29 requests. 11 of 20 rows are still to be made" in stopped(done)
        assert len(read_jsonl(journal)) == 29 and not (tmp_path / "refined.jsonl").exists()
        # Exactly what is needed is no cap.
        done = refine(command(world, tmp_path, url, max_requests=40))
    assert done.returncode == 0, done.stderr
    keys = [line["key"] for line in read_jsonl(journal)]
    assert len(keys) == len(set(keys)) == 2 * ROWS
    # All is there: whatever the cap, the results need no request.
    assert refine(command(world, tmp_path, url, max_requests=1)).returncode == 0


def test_max_cost_counts_what_other_versions_of_the_experiment_spent(world, tmp_path):
    """Two iterations, two folders of answers: the first counts for the second, another experiment's does not."""
    journal = tmp_path / "journal.jsonl"
    mine, other = tmp_path / "answers" / "mine" / "middo", tmp_path / "answers" / "other" / "middo"
    with endpoint(journal) as url:

        def at_most(most, answers):
            words = command(world, tmp_path, url, answers, prices=PRICES, max_cost=most)
            place = words.index("--answers-root") + 1
            return refine([*words[:place], tmp_path / "answers", *words[place + 1 :]])

        first = at_most(0.4, mine / "iter1.jsonl")
        said = stopped(first)
        asked = read_jsonl(journal)
        most = max(cost([line]) for line in asked)
        assert 0.4 <= cost(asked) < 0.4 + CONCURRENCY * most
        assert f"requests, cost {cost(asked):.4f} of 0.4. " in said and said.endswith(
            "raise teacher.max_cost and start again to go on."
        )
        assert len(asked) < 2 * ROWS - CONCURRENCY, "the cap has to be what stopped it"
        # As much again would go, were the first iteration's not counted.
        second = at_most(0.4, mine / "iter2.jsonl")
        assert stopped(second) == said and len(read_jsonl(journal)) == len(asked)
        third = at_most(100, mine / "iter2.jsonl")
        assert third.returncode == 0, third.stderr
        asked = read_jsonl(journal)
        # Nothing was spent in that one, though all its answers are looked up in the first.
        assert at_most(0.001, other / "iter1.jsonl").returncode == 0 and len(read_jsonl(journal)) == len(asked)
    assert read_json(tmp_path / "refine.json")["cost"] == pytest.approx(cost(asked), abs=1e-6)
    assert f"40 requests, cost {cost(asked):.4f} of 100 in this experiment" in third.stderr, "the progress line"


def test_the_estimate_has_a_price(world, tmp_path):
    words = command(world, tmp_path, "http://127.0.0.1:9/v1", None, "--estimate", prices=PRICES, max_cost=3)
    done = refine(words, key=None)
    (tokens,) = (line for line in done.stderr.splitlines() if "prompt tokens" in line)
    prompt = int(tokens.partition("about ")[2].split()[0])
    # 40 calls of at most 100 tokens.
    assert f"about {prompt * 150 / 1e6:.4f} for the prompts, at most {40 * 100 * 600 / 1e6:.4f} for" in done.stderr
    assert "spent in this experiment so far: 0 requests, cost 0.0000 of 3" in done.stderr


def test_without_counted_tokens_no_cost_can_be_kept(world, tmp_path):
    """The endpoint of the store says nothing of tokens."""
    with endpoint(tmp_path / "journal.jsonl") as url:
        stopped(refine(command(world, tmp_path, url, max_requests=1)))
        stored = tmp_path / "answers" / "test" / "iter1.jsonl"
        (record,) = read_jsonl(stored)
        del record["response"]["usage"]

        stored.write_bytes(encode_record(record["request"], record["response"]))
        done = refine(command(world, tmp_path, url, prices=PRICES, max_cost=3))
        assert done.returncode == 1 and "do not say how many tokens" in done.stderr
        assert "teacher.max_requests" in done.stderr and len(read_jsonl(tmp_path / "journal.jsonl")) == 1
        done = refine(command(world, tmp_path, url, prices=PRICES))
    assert done.returncode == 0, done.stderr
    assert json.loads(results(tmp_path)[2])["requests"] == 2 * ROWS
