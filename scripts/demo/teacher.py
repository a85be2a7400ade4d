"""The demo's teacher: a small server with OpenAI's chat interface that knows the little world's right answers.

It stands in for the large model that a real experiment names. It gets the very prompts that such a model would get,
recognises them by the prompt files, and replies in the form that they ask for. The model's name says which world it
knows: little-world-1 knows world 1. The same request always gets the same reply. It stops on SIGTERM, and when the
program that started it is gone. Standard library only.

    python scripts/demo/teacher.py --port 8123
    curl localhost:8123/v1/chat/completions -d '{"model": "little-world-1", "messages": [{"role": "user",
        "content": "What is 3 plus 4?"}]}'

`--journal` names a file that gets a line per answered request, its idempotency key: tests count with it.
"""

import argparse
import functools
import hashlib
import json
import os
import random
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.replies import reply_to, template_pattern
from demo.world import World, make_world

PROMPTS = Path(__file__).resolve().parents[2] / "config" / "prompts"
world_of = functools.cache(make_world)


class Refused(Exception):
    """A request that is not answered; carries the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def complete(body: bytes, patterns: dict[str, re.Pattern]) -> dict[str, Any]:
    """The chat completion for a request's body. Raises Refused for a malformed request or an unknown model."""
    try:
        request = json.loads(body)
        model, message = request["model"], request["messages"][-1]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Refused(400, f"not a chat request: {error}") from error
    world = _known_world(model)
    if not isinstance(message, str):
        raise Refused(400, "the content of a message must be a text")
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    words = reply_to(message, patterns, world, random.Random(digest)).split(" ")
    most = request.get("max_tokens") or len(words)
    usage = {"prompt_tokens": len(message.split()), "completion_tokens": min(len(words), most)}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": " ".join(words[:most])},
        "finish_reason": "stop" if len(words) <= most else "length",
    }
    return {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }


def _known_world(model: Any) -> World:
    found = re.fullmatch(r"little-world-([0-9]{1,9})", str(model))
    if not found:
        raise Refused(404, f"there is no model {model}; little-world-<number> there is")
    return world_of(int(found[1]))


class Handler(BaseHTTPRequestHandler):
    """Answers requests; `patterns`, `delay` (seconds) and `journal` are set on the class before serving."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    patterns: dict[str, re.Pattern] = {}
    delay = 0.0
    journal: Path | None = None

    def do_GET(self) -> None:
        """The list of models, which also says that the server is up."""
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": "little-world-1", "object": "model"}]})
        else:
            self._send(404, {"error": {"message": f"there is no {self.path}"}})

    def do_POST(self) -> None:
        """One chat completion."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if self.path != "/v1/chat/completions":
                raise Refused(404, f"there is no {self.path}")
            completion = complete(body, self.patterns)
        except Refused as refusal:
            self._send(refusal.status, {"error": {"message": str(refusal)}})
            return
        time.sleep(self.delay)
        if self.journal:
            with open(self.journal, "a", encoding="utf-8") as stream:
                stream.write(f"{self.headers.get('Idempotency-Key')}\n")
        self._send(200, completion)

    def _send(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Silent: a line per request would hide what matters."""


def _stop_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def arguments() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    made.add_argument("--prompts", type=Path, default=PROMPTS, help="folder of the prompt files")
    made.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    made.add_argument("--journal", type=Path, help="file that gets a line per answered request")
    return made


def main(args: argparse.Namespace) -> None:
    for step in ("simplify", "improve", "extend"):
        text = (args.prompts / f"{step}.md").read_text(encoding="utf-8").removesuffix("\n")
        Handler.patterns[step] = template_pattern(text)
    Handler.delay, Handler.journal = args.delay, args.journal
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=_stop_with_parent, args=(os.getppid(),), daemon=True).start()
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()


if __name__ == "__main__":
    main(arguments().parse_args())
