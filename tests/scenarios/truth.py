"""An upstream's own truth beside the ledger's: what it told and wrote for each request, and what a row must say of it.

Nothing of the product is used but HTTP and the ledger's table.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from keystore.engine import parse_url
from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.asks import CHAT, FAILED, KINDS, LIMIT, NOT_GOOD, OPEN, PRICED, Ask, Used, asks, cost_nano
from tests.scenarios.cutting import (
    Cutting,
    Play,
    cutting,
)

__all__ = ["CHAT", "KINDS", "LIMIT", "PRICED", "Ask", "Used", "asks", "cost_nano"]  # of those who use both modules


# --- what came of it -------------------------------------------------------------------------------------------------


@dataclass
class Got:
    """What the client saw of its request."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    words: int = 0  # pieces of output
    whole: bool = False  # the answer came to its end


def wrong(ask: Ask, plays: Sequence[Play], got: Got, row: Mapping[str, Any]) -> str:
    """What the row says that is not so; empty for a true one."""
    said = f"{ask.kind}: {dict(row)} after {[(play.case.end, play.written) for play in plays]}, seen {got}"
    if (problem := _money(row)) or (problem := _headers(got, row)):
        return f"{problem}: {said}"
    last = plays[-1] if plays else None
    if ask.leaves == 0:
        return "" if left(ask, row) else f"not so: {said}"
    failed = [play for play in plays if play.case is ask.unusable]
    if failed or attempts_charged(row):
        return "" if _charged(ask, failed, last, got, row) else f"not so: {said}"
    if last is None or last.case.pieces in ([FAILED], [NOT_GOOD]):
        good = (row["state"], row["cost_nano"], row["output_tokens"]) == ("released", 0, None)
    elif got.whole and got.status == 200 and ask.used is not None:
        told = (ask.used.read, ask.used.cached, ask.used.wrote)
        good = row["state"] == "settled" and told == tuple(
            row[name] for name in ("input_tokens", "cached_input_tokens", "output_tokens")
        )
    elif not ask.stream:
        good = row["state"] == "estimated" and row["output_tokens"] >= 1  # of an answer that nobody counted
    else:
        good = abs((row["output_tokens"] or 0) - put_out(ask, last)) <= 1
        good = good and (row["output_tokens"] or 0) >= got.words and row["state"] == "estimated"
    return "" if good else f"not so: {said}"


def left(ask: Ask, row: Mapping[str, Any]) -> bool:
    """A plain answer is written whether or not anybody waits for it: its client is charged for the usual length of one,
    and here the limit is less."""
    charged = [one.units.wrote for one in attempts_charged(row)]
    return row["state"] == "estimated" and charged == [LIMIT] == [row["output_tokens"]] and row["input_tokens"] > 0


def _charged(ask: Ask, failed: Sequence[Play], last: Play | None, got: Got, row: Mapping[str, Any]) -> bool:
    """Each answer that nobody could use is in the row, as it was told or estimated, beside what was used in the end."""
    charged, told = attempts_charged(row), ask.unusable_told
    if len(charged) != len(failed) or row["state"] != "estimated":
        return False
    if told is not None and any(one.units != told for one in charged):
        return False
    if told is None and any(one.units.read < 1 or one.units.cached for one in charged):
        return False  # estimated
    if ask.stream and any(one.units.wrote for one in charged):
        return False  # nothing had been written
    served = (0, 0, 0) if last is None or last.case is ask.unusable else _of(ask.used)
    return served_tokens(row) == served and (got.status == 200) == (served != (0, 0, 0))


def _of(used: Used | None) -> tuple[int, int, int]:
    return (0, 0, 0) if used is None else (used.read, used.cached, used.wrote)


@dataclass(frozen=True)
class Charged:
    """An attempt that failed, with what its row says that it used and cost."""

    model: str
    units: Used
    cost_nano: int


def attempts_charged(row: Mapping[str, Any]) -> list[Charged]:
    """As the row's detail tells them."""
    found = []
    for provider, model, _, _, _, nano, *rest in json.loads(row["detail"]).get("attempts", []):
        if rest:
            units = {name: int(count) for name, count, _, _ in rest[0]}
            cached = units.get("cached_input", 0)
            used = Used(units.get("input", 0) + cached, cached, units.get("output", 0))
            found.append(Charged(f"{provider}/{model}", used, nano))
    return found


def served_tokens(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """What a row counts beside its failed attempts."""
    failed = [one.units for one in attempts_charged(row)]
    whole = tuple(row[name] or 0 for name in ("input_tokens", "cached_input_tokens", "output_tokens"))
    less = (sum(one.read for one in failed), sum(one.cached for one in failed), sum(one.wrote for one in failed))
    return whole[0] - less[0], whole[1] - less[1], whole[2] - less[2]


def wrote_of(ask: Ask, play: Play) -> int:
    """How many pieces of output were written."""
    return max(0, min(play.written - ask.head, ask.words))


def put_out(ask: Ask, play: Play) -> int:
    """Of a stream that nobody counted to its end: what was seen, and of a model that reasons, none of which is in these
    streams, as much as its answers usually have."""
    seen = wrote_of(ask, play)
    return seen if ask.models == (OPEN,) else max(seen, LIMIT)


def _money(row: Mapping[str, Any]) -> str:
    if row["state"] == "released":
        return "" if row["cost_nano"] == 0 else "nothing was used, and it costs"
    read, cached, wrote = served_tokens(row)
    failed = attempts_charged(row)
    for one in failed:
        if one.cost_nano != cost_nano(one.model, one.units.read, one.units.cached, one.units.wrote):
            return f"a failed attempt costs something else than {one}"
    expected = cost_nano(f"{row['provider']}/{row['model']}", read, cached, wrote) + sum(o.cost_nano for o in failed)
    return "" if row["cost_nano"] == expected else f"it costs {expected} nano-dollars"


def _headers(got: Got, row: Mapping[str, Any]) -> str:
    if got.headers and got.headers["x-wardgate-request-id"] != row["request_id"]:
        return "the answer names another request"
    cost = got.headers.get("x-wardgate-cost-usd")
    charged_all_the_same = got.headers and got.status != 200 and row["cost_nano"]
    if (got.status != 200 or row["stream"]) and not charged_all_the_same:
        return "" if cost is None else "a cost before it is known"
    if cost is None or Decimal(cost) * 10**9 != row["cost_nano"]:
        return f"the answer says that it costs {cost}"
    return ""


# --- one who asks ----------------------------------------------------------------------------------------------------


async def ask_it(client: Any, upstream: Cutting, ask: Ask, number: int, names: str) -> Got:
    """Ask as `case-<number>`, under the client's own request id `<names>-<number>`."""
    got, body = Got(), ask.body(number)
    headers = {"x-request-id": f"{names}-{number}"}
    if ask.leaves == 0:
        task = asyncio.ensure_future(client.post(ask.path, json=body, headers=headers))
        while not (task.done() or upstream.asked[number]):
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return got
    pace = upstream.paced.get(number)
    async with client.stream("POST", ask.path, json=body, headers=headers) as reply:
        got.status, got.headers, rest = reply.status_code, reply.headers, b""
        async for piece in reply.aiter_raw():
            rest += piece
            before, got.words = got.words, rest.count(b"word ")
            for _ in range(got.words - before):
                if pace is not None:
                    pace.release()
            if ask.leaves is not None and got.words >= ask.leaves:
                return got
        got.whole = b'"error"' not in rest
    return got


# --- the ledger ------------------------------------------------------------------------------------------------------


async def select(gateway: RunningGateway, statement: str, **values: object) -> list[Mapping[str, Any]]:
    """What a statement finds in the gateway's database."""
    engine = create_async_engine(parse_url(gateway.database_url))
    try:
        async with engine.connect() as connection:
            found = await connection.execute(text(statement), values)
            return [dict(row._mapping) for row in found]
    finally:
        await engine.dispose()


async def rows_of(gateway: RunningGateway, names: str) -> list[Mapping[str, Any]]:
    """The rows of the requests that were called `<names>-<number>`."""
    like = "SELECT * FROM wardgate_ledger WHERE client_request_id LIKE :names"
    return await select(gateway, like, names=f"{names}-%")


async def rows_soon(gateway: RunningGateway, names: str, count: int, within_s: float = 20.0) -> Sequence[Any]:
    """The same, when there are so many; as many as there are when that does not come about."""
    with_deadline = asyncio.get_running_loop().time() + within_s
    while True:
        rows = await rows_of(gateway, names)
        if len(rows) >= count or asyncio.get_running_loop().time() > with_deadline:
            return rows
        await asyncio.sleep(0.1)


SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano")


async def sums_of_ledger(gateway: RunningGateway, tenant: str) -> Counter[Any]:
    """Of one tenant, by model, provider, outcome and key source: `SUMS`, each under its group and name."""
    rows = await select(
        gateway,
        "SELECT l.* FROM wardgate_ledger l JOIN wardgate_tenants t ON t.id = l.tenant_id WHERE t.slug = :tenant",
        tenant=tenant,
    )
    found: Counter[Any] = Counter()
    for row in rows:
        group = tuple(row[name] or None for name in ("model", "provider", "outcome", "key_source"))
        numbers = [1, row["input_tokens"], row["output_tokens"], row["cached_input_tokens"], row["cost_nano"]]
        found.update({(group, name): number or 0 for name, number in zip(SUMS, numbers, strict=True)})
    return found


def sums_of_usage(document: Mapping[str, Any]) -> Counter[Any]:
    """The same, as the endpoint tells it."""
    found: Counter[Any] = Counter()
    for one in document["rows"]:
        group = tuple(one[name] for name in ("model", "provider", "outcome", "key_source"))
        numbers = dict(one) | {"cost_nano": int(Decimal(one["cost_usd"] or 0) * 10**9)}
        found.update({(group, name): numbers[name] for name in SUMS})
    return found


def today() -> str:
    """The day that requests are counted on, as the endpoint takes it."""
    return datetime.now(UTC).date().isoformat()


def differing(one: Counter[Any], other: Counter[Any]) -> Iterable[Any]:
    """Where two sums are not the same."""
    return [(key, one[key], other[key]) for key in one.keys() | other.keys() if one[key] != other[key]]


@asynccontextmanager
async def serving(gateway: RunningGateway) -> AsyncIterator[RunningGateway]:
    """Started, and stopped, from a test's loop."""
    await asyncio.to_thread(gateway.__enter__)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.__exit__, None, None, None)


@asynccontextmanager
async def priced(
    folder: Path, database_url: str = "", redis_url: str | None = None
) -> AsyncIterator[tuple[RunningGateway, Cutting]]:
    """A gateway with PRICES over a cutting upstream."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(cutting())
        gateway = RunningGateway(folder, sandbox_config(upstream.url, PRICED), database_url, redis_url)
        yield await stack.enter_async_context(serving(gateway)), upstream
