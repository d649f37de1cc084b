"""The load generator: posts chat completions over kept-alive connections and times each answer.

An answer that is not a complete 200 ends the benchmark: its time would mean nothing.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import orjson

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.sides import Side

ANSWER_S = 30.0  # an answer that takes longer ends the benchmark
TOKENS = 50  # of each answer; streamed, each is an event
SYSTEM = "You answer questions about orders, invoices and deliveries in full sentences. " * 12  # about 1 kB
SAID = f"[sandbox: tokens={TOKENS}] Where is order 4711, and when will it be delivered?"
SAYS_SOMETHING = re.compile(rb'"content"\s*:\s*"[^"]')
EVENT = b"data: {"
END = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: how many at once, streamed or plain."""

    name: str  # for --only
    title: str
    at_once: int
    stream: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: seconds to its end and, of a stream, to its first token; the events of a stream."""

    took_s: float
    first_token_s: float | None
    events: int


def body_of(side: Side, load: Load) -> bytes:
    """The request that every side gets, but for the model."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": SAID}]
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if load.stream else {}
    return orjson.dumps({"model": side.model, "messages": messages, "temperature": 0.2, **streamed})


class Generator:
    """Posts to one side with one load."""

    def __init__(self, session: aiohttp.ClientSession, side: Side, load: Load) -> None:
        self._session = session
        self._side = side
        self._load = load
        self._body = body_of(side, load)
        self._headers = {"authorization": f"Bearer {side.token}", "content-type": "application/json"}

    async def run(self, seconds: float) -> tuple[Sequence[Answer], float]:
        """Send for about `seconds`; returns the answers and how long it took until the last one was there."""
        answers: list[Answer] = []
        started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._load.at_once):
                    tasks.create_task(self._repeat(started + seconds, answers))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the first of them says why
        return answers, time.perf_counter() - started

    async def _repeat(self, until: float, answers: list[Answer]) -> None:
        while True:
            answers.append(await self._one())
            if time.perf_counter() >= until:
                return

    async def _one(self) -> Answer:
        try:
            return await self._post()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BenchmarkError(f"{self._side.name} did not answer: {error!r}") from error

    async def _post(self) -> Answer:
        started = time.perf_counter()
        async with self._session.post(self._side.url, data=self._body, headers=self._headers) as response:
            if response.status != 200:
                raise BenchmarkError(f"{self._side.name} answered {response.status}: {(await response.text())[:500]}")
            if not self._load.stream:
                raw = await response.read()
                return self._checked(raw, Answer(time.perf_counter() - started, None, 0), b'"finish_reason"')
            return await self._read_stream(response, started)

    async def _read_stream(self, response: aiohttp.ClientResponse, started: float) -> Answer:
        raw, first_token_s = bytearray(), None
        async for part in response.content.iter_any():
            raw += part
            if first_token_s is None and SAYS_SOMETHING.search(raw):
                first_token_s = time.perf_counter() - started
        answer = Answer(time.perf_counter() - started, first_token_s, raw.count(EVENT))
        return self._checked(bytes(raw), answer, END)

    def _checked(self, raw: bytes, answer: Answer, ends_with: bytes) -> Answer:
        few = self._load.stream and answer.events < TOKENS
        if ends_with not in raw or not SAYS_SOMETHING.search(raw) or few:
            raise BenchmarkError(f"{self._side.name} answered in part: {raw[:500]!r}")
        return answer


def session() -> aiohttp.ClientSession:
    """A client without limits of its own; to be closed."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout, trust_env=False)
