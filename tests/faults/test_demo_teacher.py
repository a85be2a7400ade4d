"""The demo's teacher over HTTP: right on the little world, well formed on anything else, errors that say why."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from demo.kinds import KINDS
from demo.world import (
    answer,
    draw_hard_question,
    draw_question,
    heldout_wordings,
    is_hard,
    make_world,
    parse,
    render_unclear,
    word_question,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from middo.prompts import fill
from middo.replies import read_reply

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/demo/teacher.py"
TEMPLATES = {
    step: (ROOT / f"config/prompts/{step}.md").read_text(encoding="utf-8").removesuffix("\n")
    for step in ("simplify", "improve", "extend", "answer")
}
WORLD = make_world(1)


def start(*arguments: str) -> tuple[subprocess.Popen, str]:
    """The running teacher and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SCRIPT), "--port", str(port), *arguments])
    address = f"http://127.0.0.1:{port}"
    wait_for(address)
    return process, address


def wait_for(address: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/v1/models", timeout=5).read()
            return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the teacher did not come up")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    journal = tmp_path_factory.mktemp("teacher") / "journal"
    process, address = start("--journal", str(journal))
    yield address, journal
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0


def post(address: str, body: bytes) -> dict:
    request = urllib.request.Request(f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def body_of(message: str, model: str = "little-world-1", **sampling) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": message}], **sampling}).encode()


def ask(
    address: str, step: str, prompt: str, hints: str = "Hint 1:\n> Count the words.\n> cat dog\n", **sampling
) -> str:
    """The text of the reply to a filled prompt file, read as the workflow reads it."""
    places = {"prompt": prompt, "hints": hints} if step == "extend" else {"prompt": prompt}
    response = post(address, body_of(fill(TEMPLATES[step], **places), **sampling))
    text, reason = read_reply("answer" if step == "answer" else "rewrite", prompt, response)
    assert reason is None, reason
    return text


def free_for_training(prompt: str) -> bool:
    question = parse(prompt)
    kept = {wording for wording in heldout_wordings(WORLD, question)}
    wordings = KINDS[question.kind].wordings
    values = dict(zip(KINDS[question.kind].places, question.data, strict=True))
    return not any(wordings[number].format(**values) == prompt for number in kept)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_world_is_rewritten_and_answered_rightly(teacher, kind):
    address, _ = teacher
    rng = random.Random(kind)
    for _ in range(4):
        core = draw_question(WORLD, rng, kind)
        extended = ask(address, "extend", word_question(WORLD, rng, core))
        assert parse(extended).kind == kind and parse(extended) != core
        improved = ask(address, "improve", render_unclear(WORLD, rng, kind))
        assert parse(improved).kind == kind and parse(improved).clear
        fine = word_question(WORLD, rng, core)
        assert parse(ask(address, "improve", fine)) == core, "a question that is clear already keeps its meaning"
        rewritten = [extended, improved]
        if kind != "letter":
            hard = draw_hard_question(WORLD, rng, kind)
            simplified = ask(address, "simplify", word_question(WORLD, rng, hard))
            assert parse(simplified).kind == kind and not is_hard(parse(simplified))
            assert ask(address, "answer", word_question(WORLD, rng, hard)) == answer(WORLD, hard)
            rewritten.append(simplified)
        for prompt in rewritten:
            assert free_for_training(prompt), "held-out questions are never written"
            assert ask(address, "answer", prompt) == answer(WORLD, parse(prompt))


def test_the_model_names_the_world(teacher):
    address, _ = teacher
    capitals = make_world(2).capitals
    country = next(name for name in capitals if name not in WORLD.capitals)
    response = post(address, body_of(f"What is the capital of {country}?", model="little-world-2"))
    assert response["choices"][0]["message"]["content"] == capitals[country]


def test_a_reply_is_a_chat_completion(teacher):
    address, _ = teacher
    response = post(address, body_of("What is 3 plus 4?"))
    assert response["object"] == "chat.completion" and response["model"] == "little-world-1"
    assert response["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "7"}, "finish_reason": "stop"}
    ]
    usage = response["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    short = post(address, body_of("Reverse the list.\ncat dog", max_tokens=1))["choices"][0]
    assert short["finish_reason"] == "length"


def test_the_reply_depends_on_the_request_alone(teacher):
    address, _ = teacher
    bodies = [
        body_of(fill(TEMPLATES["extend"], prompt="What is 3 plus 4?", hints=""), temperature=1.0, seed=seed)
        for seed in range(12)
    ]
    with ThreadPoolExecutor(6) as pool:
        first = list(pool.map(lambda body: post(address, body), bodies))
        again = list(pool.map(lambda body: post(address, body), reversed(bodies)))
    assert first == again[::-1]
    assert len({reply["choices"][0]["message"]["content"] for reply in first}) > 6


def test_the_journal_counts_answered_requests(teacher):
    address, journal = teacher
    before = len(journal.read_text().splitlines()) if journal.exists() else 0
    post(address, body_of("What is 3 plus 5?"))
    post(address, body_of("What is 3 plus 5?"))
    with pytest.raises(urllib.error.HTTPError):
        post(address, b"{}")
    lines = journal.read_text().splitlines()
    assert len(lines) == before + 2 and lines[-1] == lines[-2]


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=300), step=st.sampled_from(sorted(TEMPLATES)))
def test_any_text_gets_a_well_formed_reply(teacher, text, step):
    prompt = text if text.strip() else "x" + text
    assert ask(teacher[0], step, prompt, hints=text).strip()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"model": "little-world-1", "messages": []}', 400),
        (b'{"model": "little-world-1", "messages": [{"role": "user", "content": null}]}', 400),
        (body_of("What is 3 plus 4?", model="gpt-4o-mini"), 404),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(teacher, body, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(teacher[0], body)
    assert caught.value.code == status and json.load(caught.value)["error"]["message"]


def test_it_stops_when_its_parent_is_gone():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(SCRIPT), "--port", port]
    parent = f"import subprocess, sys; subprocess.Popen({command!r}); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        wait_for(f"http://127.0.0.1:{port}")
        process.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(port))):
                return
        time.sleep(0.1)
    raise AssertionError("the teacher lives on")
