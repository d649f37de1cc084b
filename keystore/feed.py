"""The changes that other processes tell of, as they come: what lets this process remember tenants and tokens.

Owns reading `changes` after the last row that was seen. On SQLite that is asked for before a use, at once after this
process wrote and else once in two milliseconds: the file's data version says whether anybody wrote. On PostgreSQL a
notification wakes the reader, and it looks every second besides, since a pooler in between may swallow notifications.
Must not know what is remembered.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import func, select

from keystore.changes import CHANNEL, Changed
from keystore.engine import Database
from keystore.tables import changes

_EVERY_S: Final = 1.0
_AGAIN_S: Final = 0.5  # after a failure
ASKED_S: Final = 0.002  # on SQLite: one request asks several times, and the answer holds for so long
_POLL_S: Final = 5.0  # a look that takes longer has failed; a busy machine may take two seconds
_ROWS: Final = "SELECT seq, kind, subject FROM wardgate_changes WHERE seq > ? ORDER BY seq"
_LEAST: Final = "SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM wardgate_changes"

Heard = Callable[[Changed, str], None]


class ChangeFeed:
    """Tells `heard` of every change once. `wrote` is told on SQLite when anybody at all wrote to the file, also an
    application that tells of nothing."""

    def __init__(
        self,
        database: Database,
        heard: Heard,
        wrote: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._heard = heard
        self._wrote = wrote
        self._seen = 0
        self._task: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()
        self._file: sqlite3.Connection | None = None
        self._version = -1
        self._clock = clock
        self._asked = -ASKED_S
        self._told = 0  # writes of this process, when that was asked
        self.away = False  # the last look failed: what is remembered may be old

    @property
    def running(self) -> bool:
        return self._file is not None or (self._task is not None and not self._task.done())

    async def start(self) -> None:
        """Take the present state for known, and listen from here on. DatabaseUnavailable when that fails."""
        if self._database.is_sqlite:
            self._file = self._database.plain_connection()
            self._version = self._data_version(self._file)
            self._seen = self._file.execute(_LEAST).fetchone()[1]
            return
        async with self._database.read() as connection:
            self._seen = (await connection.execute(select(func.coalesce(func.max(changes.c.seq), 0)))).scalar_one()
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Hear nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def catch_up(self) -> None:
        """On SQLite, hear now of what was written until now. Does nothing on PostgreSQL, where it is heard anyway."""
        if self._file is None:
            return
        now = self._clock()
        if now - self._asked < ASKED_S and self._told == self._database.told and not self.away:
            return
        self._asked, self._told = now, self._database.told
        try:
            version = self._data_version(self._file)
            if version != self._version:
                self._wrote()
                least, _ = self._file.execute(_LEAST).fetchone()
                self._tell(least, self._file.execute(_ROWS, (self._seen,)).fetchall())
                self._version = version
            self.away = False
        except sqlite3.Error:
            self.away = True

    @staticmethod
    def _data_version(file: sqlite3.Connection) -> int:
        return int(file.execute("PRAGMA data_version").fetchone()[0])

    async def _listen(self) -> None:
        """Look when woken and every second; a connection that breaks is made again, whatever broke it."""
        while True:
            with contextlib.suppress(Exception):
                async with self._database.listening(CHANNEL, self._nudge.set):
                    while True:
                        await self._look()
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._nudge.wait(), _EVERY_S)
                        self._nudge.clear()
            self.away = True  # nothing is heard: what is not known is not guessed, and what is known is tried again
            await asyncio.sleep(_AGAIN_S)

    async def _look(self) -> None:
        async with asyncio.timeout(_POLL_S), self._database.read() as connection:
            least = (await connection.execute(select(func.coalesce(func.min(changes.c.seq), 0)))).scalar_one()
            after = select(changes.c.seq, changes.c.kind, changes.c.subject).where(changes.c.seq > self._seen)
            rows = [(row[0], row[1], row[2]) for row in await connection.execute(after.order_by(changes.c.seq))]
        self._tell(least, rows)
        self.away = False

    def _tell(self, least: int, rows: list[tuple[int, str, str]]) -> None:
        """Each change; everything when rows were cleared away that this process never saw."""
        if least > self._seen + 1:
            self._heard(Changed.ALL, "")
        for seq, kind, subject in rows:
            self._seen = seq
            self._heard(Changed(kind) if kind in set(Changed) else Changed.ALL, subject)
