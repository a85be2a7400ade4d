"""An OpenAI-compatible endpoint that misbehaves on purpose. Standard library only; the same seed, the same faults.

A prompt that holds `fault:<name>` gets that fault; `once:<name>` gets it on its first attempt alone; `then:<name>`
hands `fault:<name>` on to the rewritten prompt, and so to the answer. Other prompts get a fault with probability
`--rate`: one of the reply is drawn from the seed, the prompt and the number of the attempt, so that every sending gets
it; one of the transport from these and the number of the sending. Where a prompt names a fault of the transport, only
the first sending gets it, but for `dead`. `--nth 401:30` gives the 30th request a status that stops a run.

Every request is one line of the journal: {key, prompt, fault, answered, under_way, usage, time}, written before the
reply is sent. `under_way`: requests that this server had and had not replied to, this one included; `time`: when the
reply was sent. `key` is the idempotency key, or the SHA-256 of the body where there is none.

    python tests/faults/fault_server.py --port 0 --journal requests.jsonl --rate 0.3
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

LABEL = "Step 4, final prompt:"
TRANSPORT = ("429", "429_wait", "500", "503", "reset", "hang", "malformed", "no_choices")
CONTENT = ("null", "length", "content_filter", "refusal", "empty", "no_label", "two_labels", "other", "400")
# The reply is one to its request, though not a usable one.
REPLIED = (None, *CONTENT, "echo")
DIRECTIVE = re.compile(r"(fault|once):(\w+)")


class Endpoint:
    """What the server was asked so far, and which fault comes next."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.sent: Counter = Counter()
        self.attempts: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self.under_way = self.requests = 0
        self.stops = {int(place): status for status, _, place in (nth.partition(":") for nth in args.nth)}
        self.journal = os.open(args.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def fault(self, key: str, prompt: str) -> str | None:
        """The fault that this sending of a request gets."""
        self.requests += 1
        self.sent[key] += 1
        self.attempts[prompt][key] = None
        if self.requests in self.stops or self.args.always:
            return self.stops.get(self.requests, self.args.always)
        directive = DIRECTIVE.search(prompt)
        if not directive:
            return self.drawn(key, prompt)
        kind, name = directive.groups()
        if kind == "once" and self.attempt(key, prompt) > 1:
            return None
        return None if name in TRANSPORT and self.sent[key] > 1 else name

    def attempt(self, key: str, prompt: str) -> int:
        """How many requests with this prompt there were, this one included, but not its repetitions."""
        return list(self.attempts[prompt]).index(key) + 1

    def drawn(self, key: str, prompt: str) -> str | None:
        """The fault by chance: of the transport, or else of the reply; all kinds are as likely."""
        transport = self.args.rate * len(TRANSPORT) / len(TRANSPORT + CONTENT)
        of_question = f"{self.args.seed} {self.attempt(key, prompt)} {prompt}"
        draw = random.Random(f"{self.sent[key]} {of_question}")
        if draw.random() < transport:
            return draw.choice(TRANSPORT)
        draw = random.Random(of_question)
        return draw.choice(CONTENT) if draw.random() < (self.args.rate - transport) / (1 - transport) else None

    def note(self, **line) -> None:
        """One more line of the journal."""
        os.write(self.journal, json.dumps(line | {"time": time.time()}).encode() + b"\n")


class Connection(asyncio.Protocol):
    """One connection, kept alive over its requests, which come one after another."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.received, self.timer, self.open = endpoint, b"", None, False

    def connection_made(self, transport) -> None:
        self.transport = transport

    def connection_lost(self, _) -> None:
        if self.timer:
            self.timer.cancel()
        self.replied()

    def replied(self) -> None:
        """The request is no longer under way."""
        self.endpoint.under_way -= self.open
        self.open = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        start, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(body) < int(headers.get("content-length", 0)):
            return
        self.received = b""
        if start.startswith("GET"):
            self.reply(200, {"object": "list", "data": []})
            return
        self.endpoint.under_way += 1
        self.open = True
        self.timer = asyncio.get_running_loop().call_later(
            self.endpoint.args.latency, self.complete, headers, body, self.endpoint.under_way
        )

    def complete(self, headers: dict, body: bytes, under_way: int) -> None:
        """Answer one request, or misbehave."""
        asked = json.loads(body)
        prompt = asked["messages"][0]["content"]
        key = headers.get("idempotency-key") or hashlib.sha256(body).hexdigest()
        fault = self.endpoint.fault(key, prompt)
        shown = headers.get("authorization", "").removeprefix("Bearer ")
        attempt = self.endpoint.attempt(key, prompt)
        completion = chat_completion(asked["model"], prompt, attempt, fault, shown)
        noted = {"key": key, "prompt": prompt, "fault": fault, "answered": fault in REPLIED, "under_way": under_way}
        self.endpoint.note(**noted, usage=completion["usage"] if fault != "400" else None)
        if fault == "hang":
            # Until the client gives up; while it waits, the request counts as under way.
            return
        self.replied()
        self.misbehave(fault, shown, completion)

    def misbehave(self, fault: str | None, shown: str, completion: dict) -> None:
        """Send what the fault asks for. `shown` is the key that came: as unfriendly as it gets, errors hold it."""
        if fault == "reset":
            text = json.dumps(completion).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            self.transport.write(f"Content-Length: {len(text)}\r\n\r\n".encode() + text[: len(text) // 2])
            # Aborted at once, what was written might never leave.
            asyncio.get_running_loop().call_later(0.01, self.transport.abort)
        elif fault == "malformed":
            self.reply(200, '{"choices": [{"message"')
        elif fault == "no_choices":
            self.reply(200, {**completion, "choices": []})
        elif fault == "429_wait":
            self.reply(429, {"error": {"message": "slow down"}}, "Retry-After: 1\r\n")
        elif fault == "dead":
            self.reply(503, {"error": {"message": "out of order"}})
        elif fault and fault.isdigit():
            self.reply(int(fault), {"error": {"message": f"fault {fault}; your key is {shown}"}})
        else:
            self.reply(200, completion)

    def reply(self, status: int, body: dict | str, more: str = "") -> None:
        """Send a whole response."""
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n{more}\r\n"
        self.transport.write(head.encode() + text)


def chat_completion(model: str, prompt: str, attempt: int, fault: str | None, shown: str) -> dict:
    """A reply in the form that the prompt asks for, made from the prompt and the attempt alone; or one that is spoilt.

    A rewrite quotes its row's text where that holds the label. `other` is a reply to the other kind of question, `echo`
    one that holds the key that was sent.
    """
    mark = hashlib.sha256(f"{attempt} {prompt}".encode()).hexdigest()[:8]
    if prompt.startswith("You are preparing training prompts") != (fault == "other"):
        row = re.split(r"\nThe (?:core )?prompt:\n", prompt)[-1]
        rough = row if LABEL in row else "rough"
        handed_on = re.search(r"then:(\w+)", prompt)
        task = f"New task {mark}{' fault:' + handed_on[1] if handed_on else ''}, in two\n\nparagraphs – ünï\u2028code."
        content = f"Step 1, methods:\nmany\nStep 2, plan:\nsome\nStep 3, rewritten prompt:\n{rough}\n{LABEL}\n{task}\n"
    else:
        content = f"Answer {mark} to a prompt of {len(prompt)} characters."
    changed = {
        "null": None,
        "refusal": None,
        "empty": " \n",
        "no_label": "I would rather not.",
        "two_labels": f"{LABEL}\none\n{LABEL}\ntwo",
        "echo": f"{content}\nYour key is {shown}.",
    }
    finish = fault if fault in ("length", "content_filter") else "stop"
    message = {"role": "assistant", "content": changed.get(fault, content)}
    if fault == "refusal":
        message["refusal"] = "I cannot help with that."
    return {
        "id": f"chatcmpl-{mark}",
        "object": "chat.completion",
        "created": 1,
        "model": f"{model}-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": len(prompt) // 4, "completion_tokens": 7, "total_tokens": len(prompt) // 4 + 7},
    }


async def main(args: argparse.Namespace) -> None:
    endpoint = Endpoint(args)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", args.port, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--port", type=int, default=0, help="0 for a free one; it is printed")
    made.add_argument("--journal", type=Path, required=True, help="file that each request is noted in")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--rate", type=float, default=0.0, help="share of requests that get a fault by draw")
    made.add_argument("--latency", type=float, default=0.01, help="seconds before each reply")
    made.add_argument("--always", help="one fault for every request, for instance 401")
    made.add_argument("--nth", nargs="*", default=[], metavar="STATUS:NUMBER", help="a status for the numbered request")
    asyncio.run(main(made.parse_args()))
