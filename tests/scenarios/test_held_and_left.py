"""RELIABILITY G2: every stream arrives byte for byte. G6 (S5, S6): who leaves is noticed, at any moment."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.cutting import (
    KEYS,
    MODELS,
    PLAIN,
    Case,
    Cutting,
    answer,
    asking,
    caller,
    cutting,
    openai_chunk,
    openai_stream,
)

STREAMS = int(os.environ.get("WARDGATE_STREAMS", "100"))
DISCONNECTS = int(os.environ.get("WARDGATE_DISCONNECTS", "200"))
PACE_S = 0.01
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[RunningGateway, Cutting, str]]:
    async with cutting() as upstream:
        gateway = RunningGateway(folder, sandbox_config(upstream.url, "[limits]\nmax_connections = 10000\n"))
        await asyncio.to_thread(gateway.__enter__)
        try:
            yield gateway, upstream, await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
        finally:
            await asyncio.to_thread(gateway.__exit__, None, None, None)


def pieces_of(raw: bytes, count: int, random_: random.Random) -> list[bytes]:
    places = sorted({0, len(raw), *(random_.randint(0, len(raw)) for _ in range(count))})
    return [raw[a:b] for a, b in pairwise(places)]


def held(number: int, random_: random.Random) -> Case:
    """A stream that no other is like: text beyond ASCII, fields of its own, comments, any line ends, cut anywhere."""
    words = [f"{number}-{n} \u00e9\u4e2d\U0001f600{random_.random()}" for n in range(30)]
    events = openai_stream(words)
    events[1:1] = [b": OPENROUTER PROCESSING\n\n", f"data: {openai_chunk('x', native={'n': [number]})}\n\n".encode()]
    raw = b"".join(events)
    if number % 3 == 1:
        raw = raw.replace(b"\n", b"\r\n")
    return Case(pieces_of(raw, 40, random_), pause_s=PACE_S)


@pytest.mark.timeout(300)
async def test_every_stream_arrives_byte_for_byte(tmp_path: Path) -> None:
    random_, numbers = random.Random(STREAMS), range(1, STREAMS + 1)
    async with running(tmp_path) as (gateway, upstream, token), caller(gateway.url, token) as client:
        upstream.cases = {number: held(number, random_) for number in numbers}

        async def one(number: int) -> tuple[int, str]:
            body = asking("openai", number, stream=True, stream_options={"include_usage": True})
            got = hashlib.sha256()
            async with client.stream("POST", CHAT, json=body) as reply:
                async for piece in reply.aiter_raw():
                    got.update(piece)
            return reply.status_code, got.hexdigest()

        answers = await asyncio.gather(*map(one, numbers))
        sent = [hashlib.sha256(b"".join(upstream.cases[number].pieces)).hexdigest() for number in numbers]
        assert answers == [(200, each) for each in sent]
        assert await asyncio.to_thread(gateway.settled, "wardgate_requests_total", outcome="ok") == STREAMS


def unfinished(gateway: RunningGateway) -> int:
    """The gateway's tasks that have not ended, but for the ticks of its timers (Python 3.11 waits in a task)."""
    assert gateway.loop is not None
    names = [one.get_coro().__qualname__ for one in asyncio.all_tasks(gateway.loop)]  # type: ignore[union-attr]
    return len(names) - names.count("Event.wait")


def descriptors() -> int:
    """Sockets that are open. Files are the database's, which opens further connections to them when it is busy."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is gone by now
            found += str(each.readlink()).startswith("socket:")
    return found


def leaving(number: int) -> Case:
    """Streams whose first event takes 0.1 s and plain answers: all take longer than anybody waits, on any machine."""
    if number % 3:
        return Case(openai_stream([f"word {n}" for n in range(400)]), pause_s=0.05)
    return Case([b"", answer(PLAIN["openai"])], pause_s=10, raw=True)


async def leave(gateway: RunningGateway, token: str, number: int, after_s: float) -> float:
    """Ask, and close the connection after that time; when that was."""
    host, port = gateway.url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(asking("openai", number, stream=bool(number % 3))).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await asyncio.sleep(after_s)
    if number % 2:
        writer.transport.abort()
    writer.close()
    left = asyncio.get_running_loop().time()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return left


@pytest.mark.timeout(max(120, DISCONNECTS // 10))
async def test_client_that_leaves_is_noticed_at_any_moment(tmp_path: Path) -> None:
    random_, numbers = random.Random(DISCONNECTS), range(1, DISCONNECTS + 1)
    async with running(tmp_path) as (gateway, upstream, token):
        async with caller(gateway.url, token) as client:
            for wire in MODELS:  # two of them need LiteLLM, which is imported now
                assert (await client.post(CHAT, json=asking(wire))).status_code == 200
        before = unfinished(gateway), descriptors()
        upstream.cases = {number: leaving(number) for number in numbers}
        left: dict[int, float] = {}
        for start in range(0, DISCONNECTS, 100):
            batch = numbers[start : start + 100]
            times = await asyncio.gather(
                *[leave(gateway, token, number, random_.uniform(0.001, 0.8)) for number in batch]
            )
            left |= dict(zip(batch, times, strict=True))
        await asyncio.to_thread(gateway.settled, "wardgate_requests_total")
        assert await asyncio.to_thread(gateway.metric, "wardgate_requests_total", outcome="client_left") == DISCONNECTS
        assert len(gateway.logs.records("request.completed")) == DISCONNECTS + len(MODELS), "one line each"
        noticed = sorted(upstream.gone[number] - left[number] for number in numbers if upstream.asked[number])
        assert len(noticed) > DISCONNECTS * 0.25 and max(upstream.asked[number] for number in numbers) == 1
        assert noticed[len(noticed) * 99 // 100] < 1.0, noticed[-5:]
        async with asyncio.timeout(10):
            while unfinished(gateway) > before[0] or descriptors() > before[1]:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("wire", ["anthropic", "gemini"])
async def test_client_of_a_translated_stream_that_leaves_is_noticed(tmp_path: Path, wire: str) -> None:
    """In LiteLLM's lane the upstream is closed as well: before its first byte, and in the middle."""
    async with running(tmp_path) as (gateway, upstream, token), caller(gateway.url, token) as client:
        assert (await client.post(CHAT, json=asking(wire))).status_code == 200
        upstream.cases = {number: Case([b": x\n\n"] * 100, pause_s=0.1) for number in (1, 2)}
        for number in (1, 2):
            with pytest.raises(httpx.ReadTimeout):
                await client.post(CHAT, json=asking(wire, number, stream=number == 1), timeout=0.3)
            left = asyncio.get_running_loop().time()
            async with asyncio.timeout(5):
                while number not in upstream.gone:
                    await asyncio.sleep(0.01)
            assert upstream.gone[number] - left < 1
