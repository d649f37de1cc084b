"""What the ledger's tests share: rows, what stands in the tables, and what must stand in usage."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

from keystore.ledger_row import LedgerRow, State
from tests.keystore.conftest import START, World

BATCH = 30  # rows of one write of `shared_rows`


def a_row(number: int, /, **changes: Any) -> LedgerRow:
    made = LedgerRow(
        request_id=f"req_{number:032x}",
        began_at=START + timedelta(seconds=number),
        tenant_id="t1",
        token_id="token-1",
        endpoint="chat",
        state=State.SETTLED,
        outcome="ok",
        client_request_id="theirs",
        stream=True,
        model_asked="auto",
        provider="openai",
        model="gpt-4o-mini",
        key_source="tenant",
        key_via="stored",
        setting_key="OPENAI_API_KEY",
        status=200,
        input_tokens=100 + number,
        output_tokens=20,
        cached_input_tokens=10,
        cache_write_tokens=0,
        reasoning_tokens=None,
        cost_nano=1_000 + number,
        catalogue="release-12-1f3a9c0e",
        attempts=1,
        duration_ms=900,
        upstream_ms=850,
        first_token_ms=200,
        detail='{"lines": [["input", 100, "0.00000015", 15000]], "attempts": []}',
    )
    return replace(made, **changes)


async def all_rows(world: World) -> list[tuple[Any, ...]]:
    return await world.sql(
        "SELECT request_id, tenant_id, token_id, provider, model, key_source, outcome, state, input_tokens,"
        " output_tokens, cost_nano FROM wardgate_ledger ORDER BY request_id"
    )


USAGE = (
    "SELECT tenant_id, period, starts, token_id, provider, model, key_source, outcome, requests, input_tokens,"
    " output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, cost_nano, unpriced, estimated"
    " FROM wardgate_usage ORDER BY 1, 2, 3, 4, 5, 6, 7, 8"
)


async def all_usage(world: World) -> list[tuple[Any, ...]]:
    return [(*row[:2], str(row[2]), *row[3:]) for row in await world.sql(USAGE)]


def truth(rows: Sequence[LedgerRow]) -> list[tuple[Any, ...]]:
    """What usage must be, row by row and without the code under test."""
    summed: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        day = row.began_at.astimezone(UTC).date()
        for period, starts in (("day", day), ("month", day.replace(day=1))):
            what = (row.token_id, row.provider or "", row.model or "", row.key_source or "", row.outcome)
            tokens = (row.input_tokens, row.output_tokens, row.cached_input_tokens, row.cache_write_tokens)
            values = [1, *(each or 0 for each in (*tokens, row.reasoning_tokens, row.cost_nano))]
            values.append(int(row.cost_nano is None and row.state != "released"))
            values.append(int(row.state == "estimated"))
            known = summed.setdefault((row.tenant_id, period, str(starts), *what), [0] * 9)
            known[:] = [mine + theirs for mine, theirs in zip(known, values, strict=True)]
    return [(*key, *sums) for key, sums in sorted(summed.items())]


def shared_rows(writer: int, batches: int) -> list[LedgerRow]:
    """Rows of one writer: a third of the requests are in every writer's journal, and all add to the same usage."""
    chance = random.Random(writer)
    numbers = [each if chance.random() < 0.3 else 100_000 * (writer + 1) + each for each in range(batches * BATCH)]
    for start in range(0, len(numbers), BATCH):
        piece = numbers[start : start + BATCH]
        chance.shuffle(piece)
        numbers[start : start + BATCH] = piece
    return [shared_row(number) for number in numbers]


def shared_row(number: int) -> LedgerRow:
    """The same row for the same number, whoever writes it."""
    tenant, day = f"t{number % 7}", START + timedelta(days=number % 3)
    return a_row(number, tenant_id=tenant, token_id=f"token-{number % 2}", began_at=day, model=f"m{number % 5}")


def each_once(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    return list({row.request_id: row for row in rows}.values())
