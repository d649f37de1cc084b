"""The ledger in the database: rows once whatever comes again, usage always their sum, nobody else's rows."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystore.engine import Database
from keystore.ledger import LedgerStore
from keystore.ledger_row import LedgerRow, State
from tests.keystore.conftest import START, World

JOURNAL = "journal-1"


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


@pytest.fixture
async def store(world: World) -> AsyncIterator[LedgerStore]:
    database = Database(world.url)
    yield LedgerStore(database, now=world.clock)
    await database.close()


async def test_row_comes_back_as_it_was(store: LedgerStore) -> None:
    plain = a_row(1)
    bare = LedgerRow(
        request_id=f"req_{2:032x}",
        began_at=START,
        tenant_id="t1",
        token_id="",
        endpoint="chat",
        state=State.RELEASED,
        outcome="refused",
    )
    precise = a_row(3, began_at=START.replace(microsecond=123_456), state=State.ESTIMATED, stream=False)
    await store.write(JOURNAL, 0, [plain, bare, precise])
    for row in (plain, bare, precise):
        assert await store.get(row.request_id, tenant_id="t1") == row
    assert await store.position(JOURNAL) == 3
