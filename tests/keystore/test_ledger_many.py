"""The ledger under replays, many writers and killed processes: each request once, and usage always the rows' sum."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keystore.engine import Database
from keystore.errors import LedgerGap
from keystore.ledger import LedgerStore
from keystore.ledger_row import LedgerRow, State
from tests.forks import Program, program
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import BATCH, a_row, all_rows, all_usage, each_once, shared_rows, truth

DAYS = (0, 1, 10, 11)  # the last two on both sides of a month's end


@pytest.fixture
async def store(world: World) -> AsyncIterator[LedgerStore]:
    database = Database(world.url)
    yield LedgerStore(database, now=world.clock)
    await database.close()


@pytest.fixture
def examples() -> Iterator[int]:
    return count()


# --- replays -------------------------------------------------------------------------------------------------------


@st.composite
def rows_of(draw: st.DrawFn) -> LedgerRow:
    """A row of a few requests and keys, so that both come again. A request always began at its time."""
    number = draw(st.integers(0, 7))
    counted = st.none() | st.sampled_from([0, 1, 2**53 + 1])
    return a_row(
        number,
        began_at=START + timedelta(days=DAYS[number % 4]),
        token_id=draw(st.sampled_from(["", "token-1"])),
        provider=draw(st.sampled_from([None, "openai"])),
        outcome=draw(st.sampled_from(["ok", "error"])),
        state=draw(st.sampled_from([State.SETTLED, State.RELEASED, State.ESTIMATED])),
        input_tokens=draw(counted),
        reasoning_tokens=draw(counted),
        cost_nano=draw(counted),
    )


lines_of = st.lists(st.none() | rows_of(), min_size=1, max_size=8)
pieces_of = st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 8), st.integers(0, 8)), max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(journals=st.tuples(lines_of, lines_of), pieces=pieces_of)
async def test_pieces_in_any_order_and_again_give_each_request_once(
    world: World, store: LedgerStore, examples: Iterator[int], journals: Any, pieces: list[tuple[int, int, int]]
) -> None:
    """Two journals, pieces of them from anywhere to anywhere, at last all of both."""
    example = next(examples)
    lines = [[row and of_example(row, example) for row in journal] for journal in journals]
    positions, written = [0, 0], dict[str, LedgerRow]()
    for which, first, end in [*pieces, (0, 0, 8), (1, 0, 8)]:
        piece, journal = lines[which][first:end], f"{example}-{which}"
        if first > positions[which]:
            with pytest.raises(LedgerGap):
                await store.write(journal, first, piece)
            continue
        await store.write(journal, first, piece)
        for row in piece[positions[which] - first :]:
            if row:
                written.setdefault(row.request_id, row)
        positions[which] = max(positions[which], first + len(piece))
        assert await store.position(journal) == positions[which]
    tenant = f"tenant-{example}"
    assert [row for row in await all_usage(world) if row[0] == tenant] == truth(list(written.values()))
    assert sorted(row[0] for row in await all_rows(world) if row[1] == tenant) == sorted(written)


def of_example(row: LedgerRow, example: int) -> LedgerRow:
    number = int(row.request_id[4:], 16)
    return LedgerRow(
        **{name: getattr(row, name) for name in row.__slots__}
        | {"request_id": f"req_{example:016x}{number:016x}", "tenant_id": f"tenant-{example}"}
    )


# --- many at once --------------------------------------------------------------------------------------------------


async def test_writers_of_the_same_keys_never_lock_each_other_out(world: World) -> None:
    """A deadlock would be DatabaseUnavailable: rows and usage are locked in one order by all."""
    writers = [shared_rows(writer, batches=8) for writer in range(8)]
    databases = [Database(world.url) for _ in writers]

    async def run(number: int) -> None:
        store = LedgerStore(databases[number], now=world.clock)
        for first in range(0, len(writers[number]), BATCH):
            await store.write(f"journal-{number}", first, writers[number][first : first + BATCH])

    await asyncio.gather(*(run(number) for number in range(len(writers))))
    rows = each_once([row for each in writers for row in each])
    assert len(await all_rows(world)) == len(rows) < 8 * 8 * BATCH
    assert await all_usage(world) == truth(rows)
    for each in databases:
        await each.close()


async def test_one_journal_from_many_sides_is_written_once(world: World, store: LedgerStore) -> None:
    rows = shared_rows(0, batches=4)
    pieces = [(first, rows[first : first + 2 * BATCH]) for first in range(0, len(rows), BATCH)]
    for _ in pieces:  # in each round the next piece is no gap any more
        done = await asyncio.gather(*(store.write("journal", *piece) for piece in pieces), return_exceptions=True)
        assert {type(each) for each in done} <= {type(None), LedgerGap}
    assert await store.position("journal") == len(rows)
    assert await all_usage(world) == truth(each_once(rows))


WRITE = """
import asyncio, sys
from keystore.clock import utc_now
from keystore.engine import Database
from keystore.ledger import LedgerStore
from tests.keystore.ledgers import BATCH, shared_rows

async def write(url, writer):
    database = Database(url)
    store, rows = LedgerStore(database, now=utc_now), shared_rows(writer, 20)
    position = await store.position(f"journal-{writer}")
    for first in range(max(0, position - BATCH // 2), len(rows), BATCH):
        await store.write(f"journal-{writer}", first, rows[first : first + BATCH])
        print(first, flush=True)
    await database.close()

asyncio.run(write(sys.argv[1], int(sys.argv[2])))
"""


async def test_killed_processes_lose_nothing_and_write_nothing_twice(world: World) -> None:
    async def started(writer: int) -> Program:
        return await program("-c", WRITE, world.url, str(writer))

    async def killed_after(lines: int, writer: int) -> None:
        process = await started(writer)
        assert process.stdout is not None
        for _ in range(lines):
            assert await process.stdout.readline(), "it ended by itself"
        process.kill()
        await process.communicate()

    async def finished(writer: int) -> None:
        process = await started(writer)
        await process.communicate()
        assert process.returncode == 0

    await asyncio.gather(killed_after(3, 0), killed_after(9, 1))
    written = await all_rows(world)
    assert 0 < len(written) < 40 * BATCH
    assert sum(row[8] for row in await all_usage(world) if row[1] == "day") == len(written)
    await asyncio.gather(finished(0), finished(1))
    rows = each_once(shared_rows(0, 20) + shared_rows(1, 20))
    assert len(await all_rows(world)) == len(rows)
    assert await all_usage(world) == truth(rows)
