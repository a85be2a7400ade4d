"""An OpenAI-compatible endpoint that misbehaves on purpose. Standard library only; the same seed, the same faults.

A prompt that holds `fault:<name>` gets that fault; `once:<name>` gets it on its first attempt alone; `then:<name>`
hands `fault:<name>` on to the rewritten prompt, and so to the answer. Other prompts get a fault with probability
`--rate`, drawn from the seed and the request's key. Faults of the transport strike a request's first sending only,
but for `dead`. Every request is one line of the journal: {key, prompt, fault, answered, under_way, usage}.

    python tests/faults/fault_server.py --port 0 --journal requests.jsonl --rate 0.3
"""

import argparse
import asyncio
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

LABEL = "Step 4, final prompt:"
TRANSPORT = ("429", "429_wait", "500", "503", "reset", "hang", "malformed", "no_choices")
CONTENT = ("null", "length", "content_filter", "refusal", "empty", "no_label", "two_labels")
DIRECTIVE = re.compile(r"(fault|once):(\w+)")


class Endpoint:
    """State of the server: what it was asked so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.sent: Counter = Counter()
        self.attempts: defaultdict[str, list[str]] = defaultdict(list)
        self.under_way = 0

    def fault(self, key: str, prompt: str) -> str | None:
        """The fault that this sending of a request gets."""
        if self.args.always:
            return self.args.always
        if key not in self.attempts[prompt]:
            self.attempts[prompt].append(key)
        self.sent[key] += 1
        directive = DIRECTIVE.search(prompt)
        kind, name = directive.groups() if directive else (None, None)
        if not directive:
            draw = random.Random(f"{self.args.seed} {key}")
            name = draw.choice(TRANSPORT + CONTENT) if draw.random() < self.args.rate else None
        if kind == "once" and self.attempts[prompt][0] != key:
            return None
        return None if name in TRANSPORT and self.sent[key] > 1 else name

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive over its requests."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                start, *lines = head.decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if start.startswith("GET"):
                    await reply(writer, 200, {"object": "list", "data": []})
                elif not await self.complete(reader, writer, headers, json.loads(body)):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def complete(self, reader, writer, headers: dict, body: dict) -> bool:
        """Answer one request, or misbehave; whether the connection lives on."""
        prompt = body["messages"][0]["content"]
        key = headers.get("idempotency-key") or hashlib.sha256(json.dumps(body).encode()).hexdigest()
        fault = self.fault(key, prompt)
        self.under_way += 1
        under_way = self.under_way
        try:
            await asyncio.sleep(self.args.latency)
            completion = chat_completion(body["model"], prompt, key, fault)
            status = 200 if fault is None or fault in CONTENT else 0
            with open(self.args.journal, "a", encoding="utf-8") as journal:
                line = {"key": key, "prompt": prompt, "fault": fault, "answered": status == 200}
                journal.write(json.dumps({**line, "under_way": under_way, "usage": completion["usage"]}) + "\n")
            if fault == "hang":
                # Until the client gives up; while it waits, the request counts as under way.
                await reader.read(1)
                return False
        finally:
            self.under_way -= 1
        return await misbehave(writer, fault, headers, completion)


async def misbehave(writer, fault: str | None, headers: dict, completion: dict) -> bool:
    """Send what the fault asks for; whether the connection lives on."""
    if fault == "reset":
        text = json.dumps(completion).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(f"Content-Length: {len(text)}\r\n\r\n".encode() + text[: len(text) // 2])
        await writer.drain()
        writer.transport.abort()
        return False
    if fault == "malformed":
        await reply(writer, 200, '{"choices": [{"message"')
    elif fault == "no_choices":
        await reply(writer, 200, {**completion, "choices": []})
    elif fault == "429_wait":
        await reply(writer, 429, {"error": {"message": "slow down"}}, "Retry-After: 1\r\n")
    elif fault == "dead":
        await reply(writer, 503, {"error": {"message": "out of order"}})
    elif fault and fault.isdigit():
        # As unfriendly as it gets: the message shows the key that came.
        shown = headers.get("authorization", "").removeprefix("Bearer ")
        await reply(writer, int(fault), {"error": {"message": f"fault {fault}; your key is {shown}"}})
    else:
        await reply(writer, 200, completion)
    return True


async def reply(writer, status: int, body: dict | str, more: str = "") -> None:
    """Send a whole response."""
    text = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n{more}\r\n"
    writer.write(head.encode() + text)
    await writer.drain()


def chat_completion(model: str, prompt: str, key: str, fault: str | None) -> dict:
    """A reply in the form that the prompt asks for, made from the prompt and the key alone."""
    mark = hashlib.sha256(key.encode()).hexdigest()[:8]
    if LABEL in prompt:
        handed_on = re.search(r"then:(\w+)", prompt)
        task = f"New task {mark}{' fault:' + handed_on[1] if handed_on else ''}, in two\n\nparagraphs – ünï\u2028code."
        content = f"Step 1, methods:\nmany\nStep 2, plan:\nsome\nStep 3, rewritten prompt:\nrough\n{LABEL}\n{task}\n"
    else:
        content = f"Answer {mark} to a prompt of {len(prompt)} characters."
    changed = {
        "null": None,
        "refusal": None,
        "empty": " \n",
        "no_label": "I would rather not.",
        "two_labels": f"{LABEL}\none\n{LABEL}\ntwo",
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
    server = await asyncio.start_server(Endpoint(args).serve, "127.0.0.1", args.port, limit=2**24)
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
    asyncio.run(main(made.parse_args()))
