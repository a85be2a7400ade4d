"""What the teacher is asked, and what the stored answers say to it so far."""

from dataclasses import dataclass
from typing import Any

from middo.answers import Answers
from middo.files import sha256_json
from middo.replies import is_refusal, raw_text, read_reply


@dataclass(frozen=True)
class Outcome:
    """How far a question has got. It is settled where `next_request` is None."""

    text: str | None
    reason: str | None
    reply: str
    requests: list[str]
    next_request: dict[str, Any] | None


def request_for(settings: dict[str, Any], prompt: str, attempt: int) -> dict[str, Any]:
    """Everything that is asked, and so everything that an answer is stored under. One user message (method section 3).

    `settings` are the teacher's: model, base_url, temperature, top_p, max_tokens. `attempt` counts from 1.
    """
    return {
        "endpoint": settings["base_url"],
        "model": settings["model"],
        "messages": [{"role": "user", "content": prompt}],
        "temperature": float(settings["temperature"]),
        "top_p": float(settings["top_p"]),
        "max_tokens": settings["max_tokens"],
        "attempt": attempt,
    }


def follow(answers: Answers, settings: dict[str, Any], prompt: str, step: str) -> Outcome:
    """Follow a question through its stored attempts, up to `settings["attempts"]`, until one can be used.

    `step` is `rewrite` or `answer`. The outcome holds the text of the usable reply; or the request to send next; or,
    with neither, the reason and the raw text of the last reply: the question is given up. What the endpoint refused
    is not asked again.
    """
    requests: list[str] = []
    reason, reply = None, ""
    for attempt in range(1, settings["attempts"] + 1):
        request = request_for(settings, prompt, attempt)
        key = sha256_json(request)
        response = answers.get(key)
        if response is None:
            return Outcome(None, reason, reply, requests, request)
        requests.append(key)
        text, reason = read_reply(step, prompt, response)
        reply = raw_text(response)
        if text is not None:
            return Outcome(text, None, reply, requests, None)
        if is_refusal(response):
            break
    return Outcome(None, reason, reply, requests, None)
