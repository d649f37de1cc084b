"""What a cancelled task leaves behind in an SQLite database: nothing."""

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from keystore.engine import Database, make_room
from keystore.sqlite import Closing

LONG_S = 5.0


@pytest.fixture
def uncollected() -> Iterator[None]:
    """A process collects seldom (gateway/garbage.py); here, not at all."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("statement", ["SELECT hold()", "INSERT INTO t VALUES (hold()) RETURNING n"])
@pytest.mark.usefixtures("uncollected")
async def test_write_that_is_cancelled_in_a_statement_lets_others_write(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "wardgate.db"
    url = f"sqlite+aiosqlite:///{path}"
    make_room(url, create=True)
    database = Database(url)
    loop = asyncio.get_running_loop()
    running, cancelled = asyncio.Event(), threading.Event()

    def hold() -> int:
        loop.call_soon_threadsafe(running.set)
        return int(cancelled.wait(LONG_S))

    async def writing() -> None:
        async with database.write() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.create_function("hold", 0, hold)
            await connection.execute(text("INSERT INTO t VALUES (2)"))
            await connection.execute(text(statement))

    async with database.write() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))
    task = asyncio.create_task(writing())
    await running.wait()
    task.cancel()
    loop.call_soon(loop.call_soon, cancelled.set)  # once the task has been told
    with pytest.raises(asyncio.CancelledError) as kept:  # with its traceback, and all that this holds
        await task
    assert kept.value.__traceback__ is not None

    with closing(sqlite3.connect(path, timeout=0)) as another:
        assert another.execute("INSERT INTO t VALUES (3) RETURNING n").fetchall() == [(3,)]
        another.commit()
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT n FROM t"))).all() == [(3,)]
    await database.close()


def test_connection_is_closed_twice_beside_a_cursor_that_is_kept(tmp_path: Path) -> None:
    """The driver's may be, too; it closes again when a task is cancelled a second time."""
    connection = sqlite3.connect(tmp_path / "wardgate.db", factory=Closing)
    kept = connection.cursor().execute("SELECT 1 UNION SELECT 2")
    connection.close()
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError):
        kept.fetchall()
