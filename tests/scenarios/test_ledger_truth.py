"""RELIABILITY T28, T29, S7, G1: the ledger says of every request what the upstream knows of it, once.

The upstream keeps its own truth (tests/scenarios/truth.py). WARDGATE_SOAK_S asks for seconds in the place of a few
hundred requests: `make soak`.
"""

import asyncio
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.repricing import Report, report
from gateway.rules import load_rules
from keystore.keystore import Keystore
from tests.harness import RunningGateway
from tests.scenarios.cutting import KEYS, Cutting, caller
from tests.scenarios.truth import (
    CHAT,
    KINDS,
    LIMIT,
    Ask,
    Got,
    ask_it,
    asks,
    attempts_charged,
    differing,
    priced,
    put_out,
    rows_of,
    rows_soon,
    select,
    sums_of_ledger,
    sums_of_usage,
    today,
    wrong,
)

SOAK_S = float(os.environ.get("WARDGATE_SOAK_S", "0"))
BATCH = 400 if SOAK_S else 120  # requests, after which every row of them is looked at
AT_ONCE = 80 if SOAK_S else 40
BY = "model,provider,outcome,key_source"


@dataclass
class Equation:
    """Both sides, added up: what the upstream told and wrote, and what the ledger says of the same requests."""

    kinds: Counter[str] = field(default_factory=Counter)
    upstream: Counter[str] = field(default_factory=Counter)
    ledger: Counter[str] = field(default_factory=Counter)
    seen: int = 0

    def add(self, ask: Ask, wrote: int, row: Any) -> None:
        self.seen += 1
        self.kinds[ask.kind] += 1
        if row["state"] == "settled":
            assert ask.used is not None
            self.upstream.update(counted=ask.used.wrote, read=ask.used.read)
            self.ledger.update(counted=row["output_tokens"], read=row["input_tokens"], cost_nano=row["cost_nano"])
        elif ask.leaves == 0:
            self.upstream.update(unread=LIMIT)
            self.ledger.update(unread=row["output_tokens"], cost_nano=row["cost_nano"])
        elif charged := attempts_charged(row):
            told = [ask.unusable_told] * len(charged)
            self.upstream.update(failed=sum(one.wrote for one in told if one), failed_attempts=len(charged))
            self.ledger.update(failed=sum(one.units.wrote for one, it in zip(charged, told, strict=True) if it))
            self.ledger.update(cost_nano=row["cost_nano"], failed_nano=sum(one.cost_nano for one in charged))
        elif ask.stream and row["state"] == "estimated":
            self.upstream.update(broken=wrote, broken_streams=1)
            self.ledger.update(broken=row["output_tokens"], cost_nano=row["cost_nano"])

    def __str__(self) -> str:
        up, own = self.upstream, self.ledger
        return (
            f"{self.seen} requests, a row each; counted output tokens {up['counted']:,} == {own['counted']:,}, input"
            f" {up['read']:,} == {own['read']:,}; of {up['broken_streams']} cut, left or uncounted streams"
            f" {up['broken']:,} written or presumed, {own['broken']:,} in the ledger; of plain answers"
            f" that nobody waited for {up['unread']:,} presumed, {own['unread']:,} in the ledger;"
            f" {up['failed_attempts']} failed attempts that are taken as charged, {up['failed']:,} tokens told =="
            f" {own['failed']:,}, for"
            f" {own['failed_nano'] / 1e9:.9f} of {own['cost_nano'] / 1e9:.9f} USD"
        )


async def one_batch(
    gateway: RunningGateway, upstream: Cutting, client: Any, first: int, batch: int, equation: Equation
) -> None:
    """Ask, then compare every request with its one row."""
    mixed, turn = asks(batch, first), asyncio.Semaphore(AT_ONCE)
    names = f"soak-{first}"
    upstream.cases = {first + n: ask.case for n, ask in enumerate(mixed)}
    upstream.paced = {first + n: asyncio.Semaphore(ask.head + 1) for n, ask in enumerate(mixed) if ask.paced}
    upstream.plays.clear()
    upstream.heads.clear()

    async def one(ask: Ask, number: int) -> Got:
        async with turn:
            return await ask_it(client, upstream, ask, number, names)

    answers = await asyncio.gather(*[one(ask, first + n) for n, ask in enumerate(mixed)])
    rows = await rows_soon(gateway, names, len(mixed))
    assert Counter(row["client_request_id"] for row in rows) == {f"{names}-{first + n}": 1 for n in range(batch)}
    by_name = {row["client_request_id"]: row for row in rows}
    problems = []
    for n, (ask, got) in enumerate(zip(mixed, answers, strict=True)):
        row, plays = by_name[f"{names}-{first + n}"], upstream.plays.get(first + n, [])
        problems += [found] if (found := wrong(ask, plays, got, row)) else []
        equation.add(ask, put_out(ask, plays[-1]) if plays else 0, row)
    assert problems == [], "\n".join([f"{len(problems)} rows", *problems[:5]])


async def usage_is_the_ledger(gateway: RunningGateway, token: str) -> None:
    """What `/v1/usage` tells is what the rows add up to, group by group."""
    answer = await asyncio.to_thread(gateway.get, f"/v1/usage?day={today()}&by={BY}&limit=1000", token)
    assert answer.status_code == 200 and not answer.json()["has_more"], answer.text
    assert differing(sums_of_usage(answer.json()), await sums_of_ledger(gateway, "acme")) == []


async def same_prices_give_the_same_cents(gateway: RunningGateway) -> None:
    """Every row again from its own lines, at the prices that it was priced by: `wardgate usage reprice`."""
    day = date.fromisoformat(today())

    async def work(keystore: Keystore) -> Report:
        return await report(keystore, load_rules(gateway.settings), "bundled", day, day + timedelta(days=1))

    found = (await asyncio.to_thread(gateway.operate, work)).total
    (rows,) = await select(
        gateway, "SELECT count(*) AS n, sum(cost_nano) AS nano FROM wardgate_ledger WHERE state <> 'released'"
    )
    assert found.then == found.other == rows["nano"] > 0
    assert found.compared == found.requests == rows["n"]


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres and valkey", marks=pytest.mark.services)])
@pytest.mark.timeout(180 + 2 * SOAK_S)
async def test_ledger_says_what_the_upstream_knows(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    shared = where != "sqlite"
    database = request.getfixturevalue("fresh_database") if shared else ""
    redis_url = request.getfixturevalue("fresh_redis") if shared else None
    equation, first, until = Equation(), 1, time.monotonic() + (SOAK_S if shared else 0)
    async with priced(tmp_path, database, redis_url) as (gateway, upstream):
        token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
        async with caller(gateway.url, token) as client:
            while first == 1 or time.monotonic() < until:
                await one_batch(gateway, upstream, client, first, BATCH, equation)
                first += BATCH
                if SOAK_S:
                    sys.stderr.write(f"{max(0, until - time.monotonic()):5.0f} s left: {equation}\n")
            await usage_is_the_ledger(gateway, token)
            await same_prices_give_the_same_cents(gateway)
    assert set(equation.kinds) == set(KINDS)
    assert (equation.upstream["counted"], equation.upstream["read"]) == (
        equation.ledger["counted"],
        equation.ledger["read"],
    )
    assert equation.upstream["failed"] == equation.ledger["failed"] > 0 and equation.ledger["failed_nano"] > 0
    broken = equation.upstream["broken"] - equation.ledger["broken"]
    assert equation.upstream["unread"] == equation.ledger["unread"] > 0
    assert abs(broken) <= equation.upstream["broken_streams"], "at most one piece for each"


async def test_one_client_id_for_many_requests_is_a_row_for_each(tmp_path: Path) -> None:
    """T29: whoever sends one id again and again pays each time."""
    async with priced(tmp_path) as (gateway, upstream):
        token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
        (ask,) = [one for one in asks(104, 1) if one.kind == "plain" and one.wire == "openai"][:1]
        upstream.cases[7] = ask.case
        async with caller(gateway.url, token) as client:
            head, turn = {"x-request-id": "same-1"}, asyncio.Semaphore(AT_ONCE)

            async def one() -> Any:
                async with turn:
                    return await client.post(CHAT, json=ask.body(7), headers=head)

            answers = await asyncio.gather(*[one() for _ in range(200)])
        rows = await rows_soon(gateway, "same", 200)
        assert len(rows) == len(await rows_of(gateway, "same")) == 200
    assert {each.status_code for each in answers} == {200} and upstream.asked[7] == 200
    assert {each.headers["x-request-id"] for each in answers} == {"same-1"}
    ids = {each.headers["x-wardgate-request-id"] for each in answers}
    assert len(ids) == 200 and {row["request_id"] for row in rows} == ids
    assert len({row["cost_nano"] for row in rows}) == 1 and rows[0]["cost_nano"] > 0
