"""An SQLite connection: how it begins a transaction, how long it waits for another's, and how it ends.

Owns what the driver alone would do wrong. Must not know tables, nor who asks.
"""

import sqlite3
import weakref
from typing import Any, Final

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_S: Final = 5.0  # how long a writer waits for the one before it (the driver sets busy_timeout from it)
BEGIN: Final = "wardgate_begin"  # the execution option that says how a transaction begins; None for none at all
_PRAGMAS: Final = ("PRAGMA foreign_keys=ON", "PRAGMA synchronous=NORMAL")


class Closing(sqlite3.Connection):
    """Ends what runs on it when it is closed: on cursors of `cursor()`, and the engine makes no others. The driver's
    would live on in SQLite, with its transaction and its lock on the file, until the last cursor on an unfinished
    statement is collected: the traceback of a task that was cancelled may hold one, and all writers wait."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, *given: Any, **named: Any) -> Any:
        cursor = super().cursor(*given, **named)
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        """May be called again, as the driver does after a second cancellation."""
        cursors, self._cursors = list(self._cursors), weakref.WeakSet()
        try:
            for cursor in cursors:
                cursor.close()
        finally:
            super().close()


def sqlite_engine(url: URL, *, logging_name: str, pool_timeout: float) -> AsyncEngine:
    """An engine whose transactions begin as their `BEGIN` option says, else with a plain BEGIN. `pool_timeout` in
    seconds."""
    engine = create_async_engine(
        url,
        hide_parameters=True,
        logging_name=logging_name,
        pool_timeout=pool_timeout,
        connect_args={"timeout": BUSY_S, "factory": Closing},
    )
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: object) -> None:
    """Take transactions into our own hands (the driver's begin too late for DDL) and set what each connection needs."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _on_begin(connection: Connection) -> None:
    """A writer takes SQLite's one write lock at once: a lock taken half-way cannot wait for the one before it."""
    begin = connection.get_execution_options().get(BEGIN, "BEGIN")
    if begin:
        connection.exec_driver_sql(begin)
