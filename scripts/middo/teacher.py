"""The teacher as an LLM of DataDreamer: an OpenAI-compatible endpoint, asked through the openai client.

DataDreamer hands over the prompts of a step; here each is followed to its end (middo.questions), at most
`max_concurrency` requests at a time. An answer is in the store before its place is given to the next request.
DataDreamer's own cache of answers is off: it ignores the endpoint and pickles what it keeps.
"""

import asyncio
import json
import random
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import openai
from datadreamer.llms import OpenAI
from datadreamer.steps import DataSource, Prompt

from middo.answers import Answers, encode_record
from middo.files import sha256_json
from middo.program import Progress, UserError, say
from middo.questions import Outcome, follow
from middo.replies import tokens_used
from middo.rows import check_same_ids
from middo.served import read_key

LONGEST_PAUSE = 60.0
_TRY_AGAIN = {408, 409, 425, 429}


class _Transient(Exception):
    """What may be gone when the same request is sent again; `wait`: seconds that the endpoint asks to wait."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Teacher(OpenAI):
    """Answers prompts with the usable text of the reply, or "" where every attempt was unusable."""

    # Neither answered from nor written to.
    cache_and_lock = None

    def __init__(self, settings: dict[str, Any], access: dict[str, Any], base_url: str, answers: Answers) -> None:
        """`settings`: what is asked and how (middo.questions). `access`: api_key_env, max_concurrency, timeout (s),
        max_retries. `base_url` is where the endpoint is now; settings["base_url"] is its name in the store."""
        super().__init__(model_name=settings["model"])
        self.settings, self.access, self.answers = settings, access, answers
        self.url = base_url
        self.asked = self.tokens = self.retries = 0
        self._told = time.monotonic()

    def _create_lock(self) -> threading.Lock:
        # DataDreamer's own leaves a file in the machine's temporary folder.
        return threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # DataDreamer hashes what a step is made of; key, store and connections are no part of that.
        return {"model_name": self.model_name}

    def count_tokens(self, value: str) -> int:
        """A rough figure: no tokenizer of the teacher is at hand."""
        return len(value) // 4

    def get_max_context_length(self, max_new_tokens: int) -> int:
        """No bound of ours: the endpoint says what is too long."""
        return 1_000_000_000 - max_new_tokens

    def _get_max_output_length(self) -> None:
        return None

    def outcome(self, prompt: str, step: str) -> Outcome:
        """How far the store settles a prompt."""
        return follow(self.answers, self.settings, prompt, step)

    def _run_batch(self, max_length_func: Any, inputs: list[str], step: str, **_: Any) -> list[str]:
        """One text per prompt. DataDreamer's sampling arguments are not used: what is asked stands in the settings."""
        waiting = [prompt for prompt in dict.fromkeys(inputs) if self.outcome(prompt, step).next_request]
        if waiting:
            asyncio.run(self._ask_all(waiting, step))
        return [self.outcome(prompt, step).text or "" for prompt in inputs]

    async def _ask_all(self, prompts: list[str], step: str) -> None:
        """Settle all prompts. The first failure stops new requests; those under way are finished and stored first."""
        self._failed = asyncio.Event()
        self._unwritten: list[bytes] = []
        self._writing = asyncio.Lock()
        queue, progress = iter(prompts), Progress(len(prompts), f"{step}s")
        certificates = httpx.create_ssl_context()

        async def work() -> None:
            async with self._client(certificates) as client:
                # Imported by the client at first use, for longer than a short timeout.
                _ = client.chat.completions.with_raw_response
                for prompt in queue:
                    await self._settle(client, prompt, step)
                    if self._failed.is_set():
                        return
                    progress.advance(note=f"{self.asked} requests, {self.tokens} tokens")

        workers = [asyncio.create_task(work()) for _ in range(min(self.access["max_concurrency"], len(prompts)))]
        for worker in workers:
            worker.add_done_callback(self._note_failure)
        ends = await asyncio.gather(*workers, return_exceptions=True)
        failures = [end for end in ends if end is not None]
        if failures:
            # What nobody foresaw comes first.
            raise min(failures, key=lambda failure: isinstance(failure, UserError))

    def _note_failure(self, worker: asyncio.Task) -> None:
        if worker.cancelled() or worker.exception():
            self._failed.set()

    def _client(self, certificates: ssl.SSLContext) -> openai.AsyncOpenAI:
        """A client with one connection. A pool of many looks through all of them for each request."""
        return openai.AsyncOpenAI(
            api_key=read_key(self.access["api_key_env"]),
            base_url=self.url,
            timeout=self.access["timeout"],
            max_retries=0,
            # A teacher on this machine is never reached through a proxy.
            http_client=openai.DefaultAsyncHttpxClient(
                limits=httpx.Limits(max_connections=1),
                verify=certificates,
                trust_env=self.url == self.settings["base_url"],
            ),
        )

    async def _settle(self, client: openai.AsyncOpenAI, prompt: str, step: str) -> None:
        while (request := self.outcome(prompt, step).next_request) and not self._failed.is_set():
            response = await self._send_until_answered(client, request)
            if response is None:
                return
            await self._keep(encode_record(request, response))
            self.asked += 1
            self.tokens += sum(tokens_used(response))

    async def _keep(self, line: bytes) -> None:
        """Return when `line` is on disk. Lines that come while another write is under way share the next one."""
        if not self._unwritten:
            self._write = asyncio.create_task(self._write_next())
        self._unwritten.append(line)
        await asyncio.shield(self._write)

    async def _write_next(self) -> None:
        async with self._writing:
            lines, self._unwritten = self._unwritten, []
            await asyncio.to_thread(self.answers.add, lines)

    async def _send_until_answered(self, client: openai.AsyncOpenAI, request: dict[str, Any]) -> Any | None:
        """The response's body, or None where another request's failure ended the trying.

        Raises UserError where the endpoint refuses the request, or gives no answer within max_retries further tries.
        """
        for tried in range(self.access["max_retries"] + 1):
            try:
                return await self._send(client, request)
            except _Transient as fault:
                problem = fault
            self._tell_retry(problem)
            pause = max(problem.wait, min(LONGEST_PAUSE, 0.5 * 2**tried) * random.uniform(0.5, 1.0))
            if tried < self.access["max_retries"] and await self._failed_within(pause):
                return None
        raise UserError(
            f"The teacher did not answer {_name(request)} in {self.access['max_retries'] + 1} tries; "
            f"the last time: {problem}. All answers are kept; start again to go on."
        )

    async def _failed_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._failed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _tell_retry(self, problem: _Transient) -> None:
        self.retries += 1
        if self.retries == 1 or problem.wait > LONGEST_PAUSE or time.monotonic() - self._told > 10:
            self._told = time.monotonic()
            asked = f"; it asks to wait {problem.wait:.0f} s" if problem.wait else ""
            say(f"trying again ({self.retries} times so far): {problem}{asked}")

    async def _send(self, client: openai.AsyncOpenAI, request: dict[str, Any]) -> Any:
        """Send once. Raises _Transient, or UserError where sending again would not help."""
        asked = {name: value for name, value in request.items() if name not in ("endpoint", "attempt")}
        timeout = self.access["timeout"]
        try:
            # The client's own timeout is for each read; a reply that trickles would never end.
            async with asyncio.timeout(timeout):
                sent = await client.chat.completions.with_raw_response.create(
                    **asked, extra_headers={"Idempotency-Key": sha256_json(request)}
                )
            return _checked(sent.content)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _Transient(f"no answer within {timeout} s") from error
        except openai.APIConnectionError as error:
            raise _Transient(f"{error} {type(error.__cause__).__name__}: {error.__cause__}") from error
        except openai.APIStatusError as error:
            # Such a 429 stays until someone pays.
            spent = "insufficient_quota" in str(error.body)
            if error.status_code >= 500 or error.status_code in _TRY_AGAIN and not spent:
                raise _Transient(f"status {error.status_code}", _asked_wait(error.response.headers)) from error
            said = error.response.text[:2000].replace(client.api_key, "(key)")
            raise UserError(
                f"The teacher at {self.url} refuses {_name(request)} with status {error.status_code}: {said.strip()}"
                "\nAll answers are kept; mend this and start again to go on."
            ) from error


class _Ask(Prompt):
    """DataDreamer's step, its result made at once: a lazy one is run three times, and pickled to see if it can be."""

    def run(self) -> list[dict[str, str]]:
        return list(super().run().value())


def run_step(teacher: Teacher, step: str, prompts: list[str]) -> dict[str, str]:
    """Run one step of DataDreamer, `rewrite` or `answer`, over the distinct prompts; their texts, "" where unusable.

    To be called inside a DataDreamer session whose folder is new.
    """
    distinct = list(dict.fromkeys(prompts))
    if not distinct:
        return {}
    source = DataSource(f"{step} prompts", data={"prompts": distinct})
    done = _Ask(
        step,
        inputs={"prompts": source.output["prompts"]},
        # One batch of all: the bound on concurrency is ours, and a batch's last reply would hold up the next batch.
        args={"llm": teacher, "step": step, "batch_size": len(distinct), "top_p": 1.0},
    )
    texts = dict(zip(done.output["prompts"], done.output["generations"], strict=True))
    check_same_ids(distinct, texts, f"DataDreamer's step {step}")
    return texts


def _checked(body: bytes) -> Any:
    """The body as JSON. Raises _Transient unless it is a chat completion with a choice, whatever that says."""
    try:
        response = json.loads(body)
        json.dumps(response, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise _Transient(f"the reply is no JSON ({error})") from error
    try:
        response["choices"][0]["message"].get("content")
        response.get("usage", {}) and response["usage"].get("prompt_tokens")
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise _Transient("the reply holds no choice with a message") from error
    return response


def _asked_wait(headers: Any) -> float:
    """Seconds that Retry-After asks for, given as seconds or as a date; 0 without one."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0


def _name(request: dict[str, Any]) -> str:
    start = request["messages"][0]["content"][-60:]
    return f"request {sha256_json(request)[:12]} (ends {start!r})"
