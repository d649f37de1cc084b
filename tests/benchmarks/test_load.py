"""The load generator tells a wrong answer from a right one, and hides no waiting."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.benchmarks.asking import body_of
from tests.benchmarks.charts import draw
from tests.benchmarks.children import HOST, BenchmarkError
from tests.benchmarks.client import Seen
from tests.benchmarks.goals import reached
from tests.benchmarks.load import Load, Target, round_of
from tests.benchmarks.spoken import LAST_CHUNK, order_of, plain, script
from tests.benchmarks.upstream import Connection

PLAIN = Load("plain", "", (), at_once=2)
STREAM = Load("stream", "", (), at_once=2, chunks=5)
PACED = Load("paced", "", (), at_once=4, chunks=5, gap_ms=4)
OPEN = Load("open", "", (), at_once=2, rate=200)


def _request(load: Load) -> bytes:
    body = body_of("stand-in", load)
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def _served(make: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(make, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _seen(load: Load, make: Callable[[], asyncio.BaseProtocol], seconds: float = 0.1) -> Seen:
    async with _served(make) as port:
        once = round_of(load, Target("side", HOST, port, _request(load)))
        await once.open()
        try:
            await once.run(seconds)
        finally:
            once.close()
        return once.seen


def _stand_in() -> asyncio.BaseProtocol:
    return Connection(asyncio.get_running_loop())


class _Says(asyncio.Protocol):
    """Answers every request with the same bytes, after a while."""

    def __init__(self, answer: bytes, after_s: float = 0.0, ends: bool = False) -> None:
        self._answer, self._after_s, self._ends = answer, after_s, ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._after_s, self._say)

    def _say(self) -> None:
        self._transport.write(self._answer)
        if self._ends:
            self._transport.close()


async def test_right_answers_are_counted() -> None:
    assert len((await _seen(PLAIN, _stand_in)).took) > 10
    seen = await _seen(STREAM, _stand_in)
    events = 1 + 5 + 1 + 1  # role, tokens, finish, usage
    assert seen.events == events * len(seen.took)
    assert len(seen.first) == len(seen.took)


async def test_a_paced_stream_takes_its_time() -> None:
    seen = await _seen(PACED, _stand_in)
    assert min(seen.took) > 0.9 * 4 * PACED.gap_ms / 1000
    assert max(seen.first) < min(seen.took)


WHOLE = plain(anthropic=False)
STREAMED = script(anthropic=False, usage=True, chunks=5)
ALL_TOKENS = STREAMED.opening + STREAMED.token * 4
WRONG = {
    "an error": (PLAIN, WHOLE.replace(b"200 OK", b"503 No"), False),
    "another body": (PLAIN, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", False),
    "no HTTP": (PLAIN, b"hello\r\n\r\n", False),
    "cut off": (PLAIN, WHOLE[:-9], True),
    "a stream cut off": (STREAM, ALL_TOKENS, True),
    "a stream without its end": (STREAM, ALL_TOKENS + LAST_CHUNK, False),
    "a stream that lacks tokens": (STREAM, STREAMED.opening + STREAMED.ending, False),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_answer_ends_the_benchmark(case: str) -> None:
    load, answer, ends = WRONG[case]
    with pytest.raises(BenchmarkError, match="side"):
        await _seen(load, lambda: _Says(answer, ends=ends))


async def test_what_waits_for_a_connection_is_timed_from_when_it_was_due() -> None:
    """Two connections of 20 ms each answer 100 a second; at 200 a second the last of 40 waits some 200 ms."""
    seen = await _seen(OPEN, lambda: _Says(WHOLE, after_s=0.02), seconds=0.2)
    assert len(seen.took) == 40
    assert seen.unfinished == 0
    assert max(seen.took) > 0.12


def test_orders_are_read_from_the_request() -> None:
    order = order_of(b"/v1/chat/completions", body_of("m", Load("x", "", (), chunks=7, gap_ms=9)))
    assert (order.stream, order.usage, order.chunks, order.gap_ms, order.anthropic) == (True, True, 7, 9, False)
    assert order_of(b"/v1/messages", body_of("m", PLAIN)).anthropic
    assert not order_of(b"/v1/chat/completions", body_of("m", PLAIN)).stream


def test_goals_that_were_not_measured_are_left_out() -> None:
    side = {"per_second": 100.0, "cpu_us_each": 10.0}
    served = {"plain-64": [{"side": "nginx", **side}, {"side": "wardgate", **side, "per_second": 34.0}]}
    found = reached({"served": served, "starts": [], "memory": [{"requests": 10, "grown": 0.0}]})
    assert [(goal["title"], goal["measured"], goal["reached"]) for goal in found] == [
        ("plain answers, to nginx", 0.34, False)
    ]


def test_pictures_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    served = {"plain-64": [{"side": "a & b", "per_second": 3.0}, {"side": "wardgate", "per_second": 1234.0}]}
    grown = {"side": "wardgate", "requests": 900, "samples": [(0, 90.0), (450, 91.0), (900, 91.5)], "grown": 0.005}
    drawn = draw({"served": served, "memory": [grown]}, tmp_path)
    assert [path.name for path in drawn] == ["throughput.svg", "memory.svg"]
    texts = [element.text for path in drawn for element in ET.parse(path).iter() if element.tag.endswith("}text")]
    assert {"a & b", "1,234", "900 plain requests, 64 at once; +0.50% after the first tenth"} <= set(texts)
