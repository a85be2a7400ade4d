"""The teacher as an LLM of DataDreamer: an OpenAI-compatible endpoint, asked through the openai client.

DataDreamer hands over the prompts of a step; here each is followed to its end (middo.questions), at most
`max_concurrency` requests at a time. An answer is in the store before its place is given to the next request.
DataDreamer's own cache of answers is off: it ignores the endpoint and pickles what it keeps.

A request that the endpoint refuses with a status that may be about it alone (middo.endpoint) rejects its row, once the
endpoint answers another. `MOST_REFUSED` such refusals without an answer between them, or some without any answer ever,
are about all requests: they stop the run, and are not stored.
"""

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
from datadreamer.llms import OpenAI
from datadreamer.steps import DataSource, Prompt

from middo.answers import Answers, encode_record
from middo.budget import Budget, CapReached
from middo.endpoint import Refused, Transient, name_of, open_client, send
from middo.program import Progress, UserError, say
from middo.questions import Outcome, follow
from middo.replies import refusal
from middo.rows import check_same_ids

LONGEST_PAUSE = 60.0
MOST_REFUSED = 20


class Teacher(OpenAI):
    """Answers prompts with the usable text of the reply, or "" where every attempt was unusable."""

    # Neither answered from nor written to.
    cache_and_lock = None

    def __init__(
        self, settings: dict[str, Any], access: dict[str, Any], base_url: str, answers: Answers, budget: Budget
    ) -> None:
        """`settings`: what is asked and how (middo.questions). `access`: api_key_env, max_concurrency, timeout (s),
        max_retries. `base_url` is where the endpoint is now; settings["base_url"] is its name in the store."""
        super().__init__(model_name=settings["model"])
        self.settings, self.access, self.answers, self.budget = settings, access, answers, budget
        self.url = base_url
        self.asked = self.retries = 0
        self._told = time.monotonic()
        self._answers = False
        self._refused: list[tuple[dict[str, Any], Refused]] = []

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
        found = {prompt: self.outcome(prompt, step) for prompt in inputs}
        self._answers |= any(outcome.requests for outcome in found.values())
        waiting = [prompt for prompt, outcome in found.items() if outcome.next_request]
        if waiting:
            asyncio.run(self._ask_all(waiting, step))
        return [self.outcome(prompt, step).text or "" for prompt in inputs]

    async def _ask_all(self, prompts: list[str], step: str) -> None:
        """Settle all prompts. The first failure stops new requests; those under way are finished and stored first."""
        self._failed = asyncio.Event()
        self._unwritten: list[tuple[bytes, asyncio.Future]] = []
        self._writing = False
        queue, progress = iter(prompts), Progress(len(prompts), f"{step}s")
        certificates = httpx.create_ssl_context()
        # A teacher on this machine is never reached through a proxy.
        proxies = self.url == self.settings["base_url"]

        async def work() -> None:
            async with open_client(self.access, self.url, certificates, proxies) as client:
                for prompt in queue:
                    await self._settle(client, prompt, step)
                    if self._failed.is_set():
                        return
                    progress.advance(note=f"{self.budget.spent()} in this experiment")

        with ThreadPoolExecutor(1) as self._disk:
            workers = [asyncio.create_task(work()) for _ in range(min(self.access["max_concurrency"], len(prompts)))]
            for worker in workers:
                worker.add_done_callback(self._note_failure)
            ends = await asyncio.gather(*workers, return_exceptions=True)
            await self._end(ends)

    async def _end(self, ends: list[BaseException | None]) -> None:
        """Store the refusals that are about single requests, and raise what ended the asking, if anything did."""
        failures = [end for end in ends if end is not None]
        # What nobody foresaw comes first, what can simply be raised last.
        failures.sort(key=lambda end: (isinstance(end, UserError), isinstance(end, CapReached)))
        if failures and not isinstance(failures[0], UserError):
            raise failures[0]
        if self._answers and len(self._refused) < MOST_REFUSED:
            await self._keep_refused()
        elif self._refused and not failures:
            raise self._all_refused()
        if failures:
            raise failures[0]

    def _note_failure(self, worker: asyncio.Task) -> None:
        if worker.cancelled() or worker.exception():
            self._failed.set()

    async def _settle(self, client: openai.AsyncOpenAI, prompt: str, step: str) -> None:
        """Ask until the question is settled, refused, or another request's failure ends the asking."""
        while (request := self.outcome(prompt, step).next_request) and not self._failed.is_set():
            self.budget.take()
            try:
                response = await self._send_until_answered(client, request)
            except Refused as refused:
                self._refused.append((request, refused))
                if len(self._refused) >= MOST_REFUSED:
                    raise self._all_refused() from refused
                return
            if response is None:
                return
            if not self._failed.is_set():
                await self._keep_refused()
            await self._keep(encode_record(request, response))
            self._answers = True

    async def _keep_refused(self) -> None:
        """Store the refusals: the endpoint answers other requests, so each is about its own."""
        refused, self._refused = self._refused, []
        for request, why in refused:
            await self._keep(encode_record(request, refusal(why.status, why.said)))

    def _all_refused(self) -> UserError:
        request, why = self._refused[-1]
        return UserError(
            f"The teacher at {self.url} refuses every request; the last, {name_of(request)}, with {why}\n"
            f"So it did {len(self._refused)} times with no answer in between: no fault of single rows. All answers are "
            "kept; mend this and start again to go on."
        )

    async def _keep(self, line: bytes) -> None:
        """Return when `line` is on disk. Lines that come while a write is under way share the next one."""
        stored = asyncio.get_running_loop().create_future()
        self._unwritten.append((line, stored))
        if not self._writing:
            self._write_next()
        await stored

    def _write_next(self) -> None:
        """Begin to write what waits. Straight from a thread back into the loop: each detour by way of a task costs a
        round of the loop, in which all other requests come first."""
        loop, batch, self._unwritten = asyncio.get_running_loop(), self._unwritten, []
        self._writing = bool(batch)
        if batch:
            write = self._disk.submit(self.answers.write, [line for line, _ in batch])
            write.add_done_callback(lambda done: loop.call_soon_threadsafe(self._written, batch, done.exception()))

    def _written(self, batch: list[tuple[bytes, asyncio.Future]], failure: BaseException | None) -> None:
        if failure is None:
            # At once: a request counts either as under way or as spent.
            self.answers.note([line for line, _ in batch])
            self.budget.stored(len(batch))
            self.asked += len(batch)
        self._write_next()
        for _, stored in batch:
            if stored.cancelled():
                continue
            if failure:
                stored.set_exception(failure)
            else:
                stored.set_result(None)

    async def _send_until_answered(self, client: openai.AsyncOpenAI, request: dict[str, Any]) -> Any | None:
        """The response's body, or None where another request's failure ended the trying.

        Raises Refused, and UserError where the endpoint refuses all, or gives no answer within max_retries further
        tries.
        """
        for tried in range(self.access["max_retries"] + 1):
            try:
                return await send(client, request, self.access["timeout"])
            except Transient as fault:
                problem = fault
            self._tell_retry(problem)
            pause = max(problem.wait, min(LONGEST_PAUSE, 0.5 * 2**tried) * random.uniform(0.5, 1.0))
            if tried < self.access["max_retries"] and await self._failed_within(pause):
                return None
        raise UserError(
            f"The teacher did not answer {name_of(request)} in {self.access['max_retries'] + 1} tries; "
            f"the last time: {problem}. All answers are kept; start again to go on."
        )

    async def _failed_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._failed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _tell_retry(self, problem: Transient) -> None:
        self.retries += 1
        if self.retries == 1 or problem.wait > LONGEST_PAUSE or time.monotonic() - self._told > 10:
            self._told = time.monotonic()
            asked = f"; it asks to wait {problem.wait:.0f} s" if problem.wait else ""
            say(f"trying again ({self.retries} times so far): {problem}{asked}")


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
