"""Callers of a cluster who keep exact books: what each request of theirs came to, and what the ledger says of it."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx

from ops.cluster.cluster import Cluster
from ops.cluster.waiting import until

PLAIN = ("delay=0.1; tokens=5", "delay=0.3; tokens=9", "delay=0.2; tokens=700")
STREAMS = ("tokens=30; gap=0.02", "tokens=3", "tokens=30; gap=0.1", "tokens=12; gap=0.1")  # the third outlives a drain
PLAIN_CALLERS, STREAM_CALLERS = 4, 6


@dataclass(frozen=True)
class Seen:
    """One request as its caller saw it. `ending`: `whole`, `told` (an error in words), `broken` (the connection was
    lost), `silent` (an end like any other that is none), `refused` (nobody took it)."""

    stream: bool
    ending: str
    request_id: str = ""
    tokens: tuple[int, int] | None = None
    why: str = ""


@dataclass
class Load:
    """Callers who ask one after the other, each time on a new connection, until they are told to stop."""

    cluster: Cluster
    seen: list[Seen] = field(default_factory=list)
    standing: Counter[bool] = field(default_factory=Counter)  # stream or not -> answers that have begun
    _stop: bool = False

    def endings(self, *, stream: bool) -> Counter[str]:
        return Counter(one.ending for one in self.seen if one.stream is stream)

    async def grown(self, count: int = 12) -> None:
        """So many more requests have ended, and a stream runs."""
        goal = len(self.seen) + count
        assert await until(lambda: len(self.seen) >= goal and self.standing[True] >= 2, 30), "nobody answers"

    async def call(self, *, stream: bool, offset: int) -> None:
        orders = STREAMS if stream else PLAIN
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"authorization": f"Bearer {self.cluster.token}"}
        async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits, trust_env=False) as client:
            for number in itertools.count(offset):
                if self._stop:
                    return
                self.seen.append(await self._asked(client, orders[number % len(orders)], stream))

    async def _asked(self, client: httpx.AsyncClient, order: str, stream: bool) -> Seen:
        message = {"role": "user", "content": f"[sandbox: {order}] Hello"}
        body: dict[str, Any] = {"model": "minimax/MiniMax-M2", "messages": [message], "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        request_id = ""
        try:
            async with client.stream("POST", f"{self.cluster.url}/v1/chat/completions", json=body) as answer:
                request_id = answer.headers.get("x-wardgate-request-id", "")
                self.standing[stream] += 1
                try:
                    text = (await answer.aread()).decode()
                finally:
                    self.standing[stream] -= 1
        except httpx.ConnectError as error:
            return Seen(stream, "refused", why=repr(error))
        except httpx.TransportError as error:
            return Seen(stream, "broken", request_id, why=repr(error))
        if not request_id:
            return Seen(stream, "refused", why=text)
        if answer.status_code != 200:
            return Seen(stream, "told", request_id, why=text)
        return _read_stream(request_id, text) if stream else _read_plain(request_id, text)

    def stop(self) -> None:
        self._stop = True


def _read_plain(request_id: str, text: str) -> Seen:
    return Seen(False, "whole", request_id, _counted(json.loads(text)["usage"]))


def _read_stream(request_id: str, text: str) -> Seen:
    datas = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    whole = bool(datas) and datas[-1] == "[DONE]"
    events: list[dict[str, Any]] = [json.loads(data) for data in datas if data != "[DONE]"]
    if whole:
        return Seen(True, "whole", request_id, _counted(events[-1]["usage"]))
    told = bool(events) and "error" in events[-1]
    return Seen(True, "told" if told else "silent", request_id, why=text[-300:])


def _counted(usage: Mapping[str, int]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


@asynccontextmanager
async def loaded(cluster: Cluster) -> AsyncIterator[Load]:
    """Callers for as long as the block lasts; behind it all of them have their last answer."""
    load = Load(cluster)
    kinds = [False] * PLAIN_CALLERS + [True] * STREAM_CALLERS
    callers = [asyncio.create_task(load.call(stream=kind, offset=number)) for number, kind in enumerate(kinds)]
    try:
        yield load
        load.stop()
        async with asyncio.timeout(90):
            await asyncio.gather(*callers)
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


Row = dict[str, Any]


async def ledger(database_url: str) -> dict[str, Row]:
    """Every row by its request's id."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT * FROM wardgate_ledger")
    finally:
        await connection.close()
    assert len({row["request_id"] for row in rows}) == len(rows), "a request has two rows"
    return {row["request_id"]: dict(row) for row in rows}


async def settled_ledger(database_url: str, wanted: set[str], within_s: float = 30.0) -> dict[str, Row]:
    """The ledger once all of `wanted` is in it, or when the time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while True:
        rows = await ledger(database_url)
        if wanted <= rows.keys() or loop.time() > end:
            return rows
        await asyncio.sleep(0.1)


async def told_usage(cluster: Cluster) -> dict[str, Any]:
    """What `GET /v1/usage` tells the tenant in all."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        headers = {"authorization": f"Bearer {cluster.token}"}
        answer = await client.get(f"{cluster.url}/v1/usage?by=outcome", headers=headers)
        assert answer.status_code == 200, answer.text
        total: dict[str, Any] = answer.json()["total"]
        return total
