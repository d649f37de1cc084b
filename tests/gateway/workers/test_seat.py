"""A worker's end of the wire: what it tells, what it hears, and that it stops when its supervisor is gone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from gateway.workers.link import Link
from gateway.workers.seat import Seat


class Heard:
    """What the seat told its server."""

    def __init__(self) -> None:
        self.whole: list[bool] = []
        self.stopped = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopped.set)


@asynccontextmanager
async def seated(count: Callable[[], float]) -> AsyncIterator[tuple[Seat, Link, Heard]]:
    def families() -> list[Metric]:
        return [CounterMetricFamily("a", "x", value=count())]

    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    seat, supervisor, heard = Seat(3, 8080, ours), Link(theirs), Heard()
    seat.begin(families, whole=heard.whole.append, stop=heard.stop)
    try:
        assert await asyncio.to_thread(supervisor.receive) == {"opened": True}
        yield seat, supervisor, heard
    finally:
        supervisor.close()


async def page(supervisor: Link, asked: int) -> float:
    """The counter on the next page that answers `asked`; those that come unasked are passed over."""
    while True:
        message: dict[str, Any] | None = await asyncio.to_thread(supervisor.receive)
        assert message is not None
        if message.get("asked") == asked:
            return float(message["page"][0][3][0][2])


async def test_page_is_sent_when_it_is_asked_for_and_at_the_end() -> None:
    now = 1.0
    async with seated(lambda: now) as (seat, supervisor, heard):
        supervisor.send({"scrape": 7})
        assert await page(supervisor, 7) == 1
        now = 2.0
        await asyncio.to_thread(seat.end)
        while await page(supervisor, 0) != 2:
            pass
        assert not heard.stopped.is_set()


async def test_page_is_sent_unasked_too() -> None:
    async with seated(lambda: 5.0) as (_, supervisor, _heard):
        assert await page(supervisor, 0) == 5


async def test_readiness_of_the_whole_is_passed_on() -> None:
    async with seated(float) as (seat, supervisor, heard):
        seat.tell_ready()
        assert await asyncio.to_thread(supervisor.receive) == {"ready": True}
        supervisor.send({"whole": True})
        supervisor.send({"whole": False})
        async with asyncio.timeout(10):
            while len(heard.whole) < 2:
                await asyncio.sleep(0)
        assert heard.whole == [True, False]


async def test_worker_stops_when_its_supervisor_is_gone() -> None:
    async with seated(float) as (_, supervisor, heard):
        supervisor.close()
        async with asyncio.timeout(10):
            await heard.stopped.wait()
