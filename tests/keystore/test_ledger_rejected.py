"""Rows that were set aside: what they are, and that trying them again writes each once."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from keystore.engine import Database
from keystore.errors import DatabaseUnavailable, JournalUnwritable
from keystore.journal_files import set_aside
from keystore.ledger import LedgerStore
from keystore.ledger_rejected import Standing, rejected, replay
from keystore.ledger_row import LedgerRow, State
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import a_row, all_usage, truth

ROWS = [a_row(number) for number in range(4)]


class Picky(LedgerStore):
    """A ledger that refuses some rows, as a database does."""

    refused: frozenset[str] = frozenset()
    away = False

    async def write(self, journal_id: str, first_position: int, rows: Sequence[LedgerRow | None]) -> None:
        if self.away or {row.request_id for row in rows if row} & self.refused:
            raise DatabaseUnavailable("no")
        await super().write(journal_id, first_position, rows)

    async def position(self, journal_id: str) -> int:
        if self.away:
            raise DatabaseUnavailable("no")
        return await super().position(journal_id)


@pytest.fixture
async def store(world: World) -> AsyncIterator[Picky]:
    database = Database(world.url)
    yield Picky(database, now=world.clock)
    await database.close()


def aside(folder: Path, *payloads: bytes) -> None:
    said = [
        {"at": START, "journal": "j", "position": place, "why": "DataError", "line": payload.decode()}
        for place, payload in enumerate(payloads)
    ]
    set_aside(folder, said)


async def test_each_is_written_once_however_often_it_is_tried(store: Picky, world: World, tmp_path: Path) -> None:
    await store.write("j", 0, ROWS[:1])
    begun = a_row(9, state=State.RESERVED)
    aside(tmp_path, *(row.line() for row in ROWS), ROWS[1].line(), begun.line(), b"00 not a row")
    store.refused = frozenset({ROWS[3].request_id})
    found = await rejected(tmp_path, store)
    missing, written, unreadable = Standing.MISSING, Standing.WRITTEN, Standing.UNREADABLE
    assert [one.standing for one in found] == [
        *(written, missing, missing, missing, missing, unreadable, unreadable),
    ]
    assert (found[1].row, found[1].position, found[1].why) == (ROWS[1], 1, "DataError")
    before = (tmp_path / "rejected.jsonl").read_bytes()
    tried = await replay(found, store)
    assert [one.standing for one in tried[1:5]] == [written, written, Standing.REFUSED, written]
    assert tried[3].error == "DatabaseUnavailable"
    assert [one.standing for one in await replay(await rejected(tmp_path, store), store)][3] is Standing.REFUSED
    store.refused = frozenset()
    for _ in range(2):
        last = await replay(await rejected(tmp_path, store), store)
        assert [one.standing for one in last] == [*(written,) * 5, unreadable, unreadable]
    assert await all_usage(world) == truth(ROWS), "nothing is counted twice"
    assert (tmp_path / "rejected.jsonl").read_bytes() == before, "the file is nobody's to change"


async def test_a_database_that_is_away_is_told(store: Picky, tmp_path: Path) -> None:
    aside(tmp_path, ROWS[0].line())
    found = await rejected(tmp_path, store)
    store.away = True
    with pytest.raises(DatabaseUnavailable):
        await replay(found, store)


async def test_no_file_is_no_row_and_what_is_no_file_is_told(store: Picky, tmp_path: Path) -> None:
    assert await rejected(tmp_path, store) == []
    (tmp_path / "rejected.jsonl").mkdir()
    with pytest.raises(JournalUnwritable):
        await rejected(tmp_path, store)


async def test_time_that_utc_does_not_have_is_no_row(store: Picky, tmp_path: Path) -> None:
    aside(tmp_path, ROWS[0].line().replace(b"2026-11-20T12:00:00+00:00", b"0001-01-01T00:00:00+14:00"))
    assert [one.standing for one in await rejected(tmp_path, store)] == [Standing.UNREADABLE]
