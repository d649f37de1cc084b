"""An upstream's own truth beside the ledger's: what it told and wrote for each request, and what a row must say of it.

Prices stand here as they are given to the gateway, and costs are reckoned from them again, in fractions. Nothing of the
product is used but HTTP and the ledger's table.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from keystore.engine import parse_url
from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.cutting import (
    MODELS,
    PLAIN,
    Case,
    Cutting,
    Play,
    answer,
    anthropic_stream,
    cutting,
    gemini_stream,
    openai_stream,
)

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
OTHER = "deepseek/deepseek-v3.2"  # on the same wire as MODELS["openai"]
# USD per million tokens, odd on purpose: every line has a fraction of a nano-dollar to round.
PRICES = {
    MODELS["openai"]: {"input": "0.370005", "output": "1.130003", "cached_input": "0.041007"},
    MODELS["anthropic"]: {"input": "1.010001", "output": "5.070009", "cached_input": "0.130005"},
    MODELS["gemini"]: {"input": "0.310003", "output": "2.510001", "cached_input": "0.070007"},
    OTHER: {"input": "0.290005", "output": "0.430009", "cached_input": "0.030001"},
}
PRICED = "\n" + "\n".join(
    f'[models."{model}".prices]\n' + "\n".join(f'{name} = "{usd}"' for name, usd in prices.items())
    for model, prices in PRICES.items()
)


@dataclass(frozen=True)
class Used:
    """Tokens as the upstream tells them; cached ones are inside `read`."""

    read: int
    cached: int
    wrote: int

    def on(self, wire: str) -> dict[str, Any]:
        """In the words of a wire."""
        read, cached, wrote = self.read, self.cached, self.wrote
        if wire == "openai":
            details = {"prompt_tokens_details": {"cached_tokens": cached}}
            return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote, **details}
        if wire == "anthropic":
            return {"input_tokens": read - cached, "cache_read_input_tokens": cached, "output_tokens": wrote}
        told = {"promptTokenCount": read, "candidatesTokenCount": wrote, "totalTokenCount": read + wrote}
        return {**told, "cachedContentTokenCount": cached}


def cost_nano(model: str, read: int, cached: int, wrote: int) -> int:
    """What so much costs, each line in whole nano-dollars, half of one upwards."""
    units = {"input": read - cached, "cached_input": cached, "output": wrote}
    exact = (Fraction(PRICES[model][name]) * 1000 * count for name, count in units.items())
    return sum(int(one + Fraction(1, 2)) for one in exact)


@dataclass(frozen=True)
class Ask:
    """One request, and what it gets: `words` pieces of output behind `head` others, `used` told at its end. The client
    leaves after `leaves` pieces of an answer, or of a plain one before it. A `paced` one is written piece by piece,
    each when the client has read the one before: whoever leaves has missed one piece at most."""

    kind: str
    wire: str
    path: str = CHAT
    stream: bool = False
    used: Used | None = None
    words: int = 0
    head: int = 0
    leaves: int | None = None
    paced: bool = False
    models: tuple[str, ...] = ()
    case: Case = field(default_factory=lambda: Case([]))

    def body(self, number: int) -> dict[str, object]:
        message = {"role": "user", "content": f"case-{number}"}
        named: dict[str, object] = {"model": self.models[0]} | ({"models": self.models} if self.models[1:] else {})
        limit = {"max_tokens": 4000} if self.path == MESSAGES else {}
        return named | limit | {"messages": [message], "stream": self.stream}


_FAILED = answer({"error": {"message": "overloaded"}}, "500 Internal Server Error")
_NOT_GOOD = answer({"error": {"message": "no", "type": "invalid_request_error"}}, "400 Bad Request")
# How often each kind comes.
KINDS = {
    "plain": 26,
    "stream": 26,
    "cut": 8,
    "leaves a stream": 8,
    "leaves a plain one": 5,
    "fails over": 8,
    "refused above": 4,
    "refused here": 3,
    "plain, nothing told": 4,
    "stream, nothing told": 4,
    "native": 8,
}
_NATIVE = {"openai": (CHAT, 0), "anthropic": (MESSAGES, 2), "gemini": (CHAT, 0)}
_STREAMS = {"openai": openai_stream, "anthropic": anthropic_stream, "gemini": gemini_stream}


def asks(count: int, seed: int) -> list[Ask]:
    """So many, mixed; every kind is there from a few dozen on."""
    random_ = random.Random(seed)
    kinds = [kind for kind, share in KINDS.items() for _ in range(max(1, share * count // 104))]
    kinds += random_.choices(list(KINDS), list(KINDS.values()), k=max(0, count - len(kinds)))
    random_.shuffle(kinds)
    return [an_ask(kind, random_) for kind in kinds[:count]]


def an_ask(kind: str, random_: random.Random) -> Ask:
    wire = random_.choice(["openai", "openai", "anthropic", "gemini"])
    read = random_.randint(1, 9000)
    used = Used(read, random_.choice([0, random_.randint(0, read)]), random_.randint(1, 3000))
    match kind:
        case "plain":
            return _plain(kind, wire, used)
        case "stream":
            return _stream(kind, wire, used, random_.randint(1, 12))
        case "native":
            if random_.random() < 0.5:
                return _plain(kind, "anthropic", used, MESSAGES)
            return _stream(kind, "anthropic", used, random_.randint(1, 12), path=MESSAGES)
        case "cut":
            return _cut(kind, wire, used, random_)
        case "leaves a stream":
            return _stream(kind, wire, used, 60, leaves=random_.randint(1, 5))
        case "leaves a plain one":
            return Ask(kind, wire, leaves=0, models=(MODELS[wire],), case=Case([b"", b"x"], pause_s=30, raw=True))
        case "fails over":
            good = _plain(kind, "openai", used)
            case_ = Case([_FAILED], raw=True, then=good.case)
            return Ask(kind, "openai", used=used, models=(MODELS["openai"], OTHER), case=case_)
        case "refused above":
            return Ask(kind, wire, models=(MODELS[wire],), case=Case([_NOT_GOOD], raw=True))
        case "refused here":
            return Ask(kind, wire, models=("openai/no-such-model",))
        case "plain, nothing told":
            return _plain(kind, "openai", None)
        case _:
            return _stream(kind, "openai", None, random_.randint(2, 12))


def _plain(kind: str, wire: str, used: Used | None, path: str = CHAT) -> Ask:
    name = "usageMetadata" if wire == "gemini" else "usage"
    good: dict[str, Any] = PLAIN[wire]  # type: ignore[assignment]
    document = {key: value for key, value in good.items() if key != name}
    whole = document if used is None else document | {name: used.on(wire)}
    return Ask(kind, wire, path, used=used, models=(MODELS[wire],), case=Case([answer(whole)], raw=True))


def _stream(
    kind: str,
    wire: str,
    used: Used | None,
    words: int,
    *,
    path: str = CHAT,
    leaves: int | None = None,
) -> Ask:
    said = [f"word {n:02} " for n in range(words)]
    pieces = openai_stream(said, None) if used is None else _STREAMS[wire](said, used.on(wire))
    head = 2 if wire == "anthropic" else 0
    paced = leaves is not None
    return Ask(kind, wire, path, True, used, words, head, leaves, paced, (MODELS[wire],), Case(pieces))


def _cut(kind: str, wire: str, used: Used, random_: random.Random) -> Ask:
    whole = _stream(kind, wire, used, 12)
    pieces = whole.case.pieces[: whole.head + random_.randint(1, 10)]
    end = random_.choice(["reset", "hang up", "bad chunk", "limit", "whole"])
    return Ask(kind, wire, CHAT, True, None, 12, whole.head, None, True, whole.models, Case(pieces, end))


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
    if last is None or last.case.pieces in ([_FAILED], [_NOT_GOOD]):
        good = (row["state"], row["cost_nano"], row["output_tokens"]) == ("released", 0, None)
    elif got.whole and got.status == 200 and ask.used is not None:
        told = (ask.used.read, ask.used.cached, ask.used.wrote)
        good = row["state"] == "settled" and told == tuple(
            row[name] for name in ("input_tokens", "cached_input_tokens", "output_tokens")
        )
    elif not ask.stream:
        wrote = 0 if ask.leaves is not None else 1  # of an answer that nobody counted
        good = row["state"] == "estimated" and row["output_tokens"] >= wrote
        good = good and (ask.leaves is None or row["output_tokens"] == 0)
    else:
        good = abs((row["output_tokens"] or 0) - wrote_of(ask, last)) <= 1
        good = good and (row["output_tokens"] or 0) >= got.words and row["state"] == "estimated"
    return "" if good else f"not so: {said}"


def wrote_of(ask: Ask, play: Play) -> int:
    """How many pieces of output were written."""
    return max(0, min(play.written - ask.head, ask.words))


def _money(row: Mapping[str, Any]) -> str:
    if row["state"] == "released":
        return "" if row["cost_nano"] == 0 else "nothing was used, and it costs"
    read, cached, wrote = row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]
    expected = cost_nano(f"{row['provider']}/{row['model']}", read, cached or 0, wrote)
    return "" if row["cost_nano"] == expected else f"it costs {expected} nano-dollars"


def _headers(got: Got, row: Mapping[str, Any]) -> str:
    if got.headers and got.headers["x-wardgate-request-id"] != row["request_id"]:
        return "the answer names another request"
    cost = got.headers.get("x-wardgate-cost-usd")
    if got.status != 200 or row["stream"]:
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
