"""One request to an OpenAI-compatible endpoint, by the openai client, and what its end means.

- A chat completion, whatever it says, is an answer.
- 408, 409, 425, 429, 5xx, no connection, no answer in time, a broken body: Transient, it may be gone next time.
- 400, 403, 413, 422, 451: Refused, for it may be about this one request (too long, filtered).
- Any other status, and a 429 for want of money: UserError, for it concerns every request.
"""

import asyncio
import json
import math
import ssl
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import openai

from middo.files import sha256_json
from middo.program import UserError
from middo.served import NO_KEY, read_key

_TRY_AGAIN = {408, 409, 425, 429}
_ONE_REQUEST = {400, 403, 413, 422, 451}
# What is shorter is a placeholder, as `EMPTY`, and may be a word of the replies.
SHORTEST_SECRET = 16
HIDDEN = "(key)"


class Transient(Exception):
    """What may be gone when the same request is sent again; `wait`: seconds that the endpoint asks to wait."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(Exception):
    """The endpoint refuses the request: `status`, and what it `said`."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"status {status}: {said}")
        self.status, self.said = status, said


def open_client(access: dict[str, Any], url: str, certificates: ssl.SSLContext, proxies: bool) -> openai.AsyncOpenAI:
    """A client with one connection: a pool of many looks through all of them for each request.

    `access`: api_key_env, timeout (s). `proxies`: whether those of the environment are used.
    """
    http_client = openai.DefaultAsyncHttpxClient(
        limits=httpx.Limits(max_connections=1), verify=certificates, trust_env=proxies
    )
    client = openai.AsyncOpenAI(
        api_key=read_key(access["api_key_env"]),
        base_url=url,
        timeout=access["timeout"],
        max_retries=0,
        http_client=http_client,
    )
    # Imported by the client at first use, for longer than a short timeout.
    _ = client.chat.completions.with_raw_response
    return client


async def send(client: openai.AsyncOpenAI, request: dict[str, Any], timeout: float) -> Any:
    """Send `request` (middo.questions) once; the body that came, without the key, should it hold it.

    Raises Transient, Refused, or UserError where every request would end like this.
    """
    asked = {name: value for name, value in request.items() if name not in ("endpoint", "attempt")}
    try:
        # The client's own timeout is for each read; a reply that trickles would never end.
        async with asyncio.timeout(timeout):
            sent = await client.chat.completions.with_raw_response.create(
                **asked, extra_headers={"Idempotency-Key": sha256_json(request)}
            )
        return _checked(sent.content, client.api_key)
    except (TimeoutError, openai.APITimeoutError) as error:
        raise Transient(f"no answer within {timeout} s") from error
    except openai.APIConnectionError as error:
        raise Transient(f"{error} {type(error.__cause__).__name__}: {error.__cause__}") from error
    except openai.APIStatusError as error:
        # Such a 429 stays until someone pays.
        spent = "insufficient_quota" in str(error.body)
        if error.status_code >= 500 or error.status_code in _TRY_AGAIN and not spent:
            raise Transient(f"status {error.status_code}", asked_wait(error.response.headers)) from error
        refused = Refused(error.status_code, _said(error.response.text, client.api_key))
        if refused.status in _ONE_REQUEST:
            raise refused from error
        raise UserError(
            f"The teacher at {str(client.base_url).rstrip('/')} refuses {name_of(request)} with {refused}"
            "\nAll answers are kept; mend this and start again to go on."
        ) from error


def name_of(request: dict[str, Any]) -> str:
    """A request's name for people: its key and the end of its prompt."""
    start = request["messages"][0]["content"][-60:]
    return f"request {sha256_json(request)[:12]} (ends {start!r})"


def asked_wait(headers: Any) -> float:
    """Seconds that Retry-After asks for, given as seconds or as a date; 0 without one that can be read."""
    asked = headers.get("retry-after", "")
    try:
        seconds = float(asked)
        return max(0.0, seconds) if math.isfinite(seconds) else 0.0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def without_key(value: Any, key: str) -> Any:
    """`value`, of JSON, in whose texts `key` is replaced."""
    if isinstance(value, str):
        return value.replace(key, HIDDEN)
    if isinstance(value, list):
        return [without_key(part, key) for part in value]
    if isinstance(value, dict):
        return {without_key(name, key): without_key(part, key) for name, part in value.items()}
    return value


def _checked(body: bytes, key: str) -> Any:
    """The body as JSON. Raises Transient unless it is a chat completion with a choice, whatever that says."""
    try:
        response = json.loads(body)
        text = json.dumps(response, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise Transient(f"the reply is no JSON ({error})") from error
    try:
        response["choices"][0]["message"].get("content")
        response.get("usage", {}) and response["usage"].get("prompt_tokens")
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise Transient("the reply holds no choice with a message") from error
    if len(key) >= SHORTEST_SECRET and json.dumps(key)[1:-1] in text:
        return without_key(response, key)
    return response


def _said(text: str, key: str) -> str:
    """What an error's body says, on one line and without the key, however the endpoint has escaped it."""
    if key == NO_KEY:
        return text.strip()[:2000]
    text = text.replace(key, HIDDEN)
    # Where it is JSON, an escape may have hidden the key.
    with suppress(ValueError, RecursionError):
        text = json.dumps(without_key(json.loads(text), key), ensure_ascii=False)
    return text.strip()[:2000]
