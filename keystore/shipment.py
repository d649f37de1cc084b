"""One journal's way into the database: read, handed over in batches, and what is left open in it.

Owns the order (every row is in the database or set aside before the next one is), and what is done with a row that the
database does not take: it is set aside in `rejected.jsonl`, and only when the database has taken another while it
refused this one for what it holds: a lock that does not come and a month that cannot be made are no fault of a row.
Must not know whose journal it is, nor when to try again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from keystore.clock import Clock
from keystore.errors import DatabaseUnavailable, JournalUnwritable, RowsRefused, ValueRefused, counted
from keystore.journal_files import Reader, Record, intend_aside, intended_aside, set_aside
from keystore.ledger_row import LOST, LedgerRow, State

BATCH_BYTES: Final = 1024 * 1024  # some 700 requests: twice as many cost a tenth less, and stop the loop for longer
_MOST_HELD: Final = 4  # batches in memory, while every row of them is refused
_AT_A_TIME: Final = 200  # lines that are looked at without a pause: half a millisecond
_TRIES: Final = 3  # of a batch, before its rows are tried one by one


class RowStore(Protocol):
    """Where rows go. DatabaseUnavailable when the database is away."""

    async def position(self, journal_id: str) -> int:
        """How many lines of the journal are written; 0 of one that is not known."""
        ...

    async def write_at(self, journal_id: str, lines: range, rows: Mapping[int, LedgerRow]) -> None:
        """Write the lines of these positions, all or nothing; `rows` has, in order, those that make one. Lines that
        were written before are skipped, and a request that is there stays as it is."""
        ...

    async def secured(self) -> bool:
        """Whether all that was written survives a loss of power, so that no file is needed for it."""
        ...


class Told(StrEnum):
    """What somebody should hear of."""

    TAKEN_OVER = "taken_over"  # the journal of a process that died is in the database; `number` requests were lost
    TORN = "torn"  # a file ends in something that was never whole
    REJECTED = "rejected"  # `number` rows were set aside
    FOREIGN = "foreign"  # a journal of another database, or of a newer Wardgate, is left alone
    KEPT = "kept"  # the disk does not take `number` last lines of requests: they are in memory until it does
    DROPPED = "dropped"  # `number` of such lines are lost
    UNFINISHED = "unfinished"  # a dead process's journal cannot be brought in now; the others are
    WAITING = "waiting"  # rows cannot be brought into the database now


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened to a journal."""

    what: Told
    journal_id: str
    number: int = 1
    error: BaseException | None = None


@dataclass(slots=True)
class Counts:
    """Since the process began: rows in the database, rows set aside, journals of dead processes that were finished, and
    ends of files that were never whole."""

    shipped: int = 0
    rejected: int = 0
    taken_over: int = 0
    torn: int = 0


@dataclass(frozen=True, slots=True)
class Desk:
    """What all shipments of a process share. `batch_bytes` of lines are read and written at a time."""

    folder: Path
    store: RowStore
    report: Callable[[Notice], None]
    now: Clock
    counts: Counts = field(default_factory=Counts)
    batch_bytes: int = BATCH_BYTES


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that makes a row."""

    position: int
    row: LedgerRow
    size: int


class Shipment:
    """Of one journal. `stored` is how far it is in the database; `open` are requests that began in what was read, and
    did not end there; `lost` counts those that never will."""

    def __init__(self, desk: Desk, journal_id: str, *, stored: int = 0) -> None:
        self.journal_id = journal_id
        self.stored = stored
        self.open: dict[str, Record] = {}
        self.lost = 0
        self._desk = desk
        self._reader = Reader(desk.folder, journal_id)
        self._read_to = self._read_bytes = 0
        self._reading: asyncio.Future[list[Record]] | None = None
        self._records: deque[Record] = deque()  # read, and not looked at yet
        self._batch: list[_Line] = []
        self._aside: list[dict[str, object]] = []  # what is to be set aside before anything else
        self._refused = 0  # times that the database was there and refused the batch
        self._shipped_then = 0  # rows of all journals when it first did
        self._error: Exception | None = None
        self._unsure = False  # a write began, and its end was not heard of
        self._intended = False  # rows are noted beside the journal that are to be set aside

    @property
    def position(self) -> int:
        """All before it is in the database, set aside, or makes no row."""
        return self._batch[0].position if self._batch else self._read_to

    @property
    def size(self) -> int:
        """Bytes of the lines before `position`."""
        return self._read_bytes - sum(line.size for line in self._batch)

    @property
    def waits_since(self) -> datetime | None:
        """When the first row that is in hand was written; None without one."""
        if not self._batch:
            return None
        row = self._batch[0].row
        return row.began_at + timedelta(milliseconds=row.duration_ms)

    async def ship(self, *, before: int | None = None) -> None:
        """Bring all into the database, up to `before` where the journal is still written. DatabaseUnavailable,
        RowsRefused and JournalUnwritable leave the rest to the next time."""
        await self._make_sure()
        while self._batch or await self._read(before):
            await self._put_aside()
            if self._batch:
                await self._hand_over(before)
        await self._put_aside()

    async def ship_lost(self) -> None:
        """Bring the requests that never ended into the database, once all else is there: whoever would have ended them
        is dead. Errors as of `ship`."""
        end = max(self._read_to, self.stored)
        records = sorted(self.open.values(), key=lambda record: record.position)
        self._batch += [_lost(record, end + number) for number, record in enumerate(records)]
        self.lost += len(records)
        self.open = {}
        await self.ship()

    async def close(self) -> None:
        """Hold no file."""
        if self._reading is not None:
            await asyncio.wait({self._reading})
        self._reader.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, before: int | None) -> bool:
        """Have more lines in hand; False at the end. What a cancelled call had read comes with the next."""
        if not self._records:
            self._records.extend(await self._read_file(before))
            self._note_damage()
        if not self._records:
            return False
        while self._records:
            for _ in range(min(_AT_A_TIME, len(self._records))):
                self._sort(self._records.popleft())
            await asyncio.sleep(0)  # requests go on meanwhile
        return True

    async def _read_file(self, before: int | None) -> list[Record]:
        if self._reading is None:
            reading = asyncio.to_thread(self._reader.read, before=before, most=self._desk.batch_bytes)
            self._reading = asyncio.ensure_future(reading)
        try:
            records = await asyncio.shield(self._reading)
        except OSError as error:
            self._reading = None
            raise JournalUnwritable(f"the journal in {self._desk.folder} cannot be read: {error.strerror}") from error
        self._reading = None
        return records

    def _sort(self, record: Record) -> None:
        self._read_to, self._read_bytes = record.position + 1, self._read_bytes + record.size
        try:
            row = LedgerRow.of_line(record.payload)
        except ValueError as error:
            self._error = error
            if record.position >= self.stored:  # else it was set aside when the database came so far
                self._reject(record.position, record.payload, error)
            return
        if row.state is State.RESERVED:
            self.open[row.request_id] = record
            return
        self.open.pop(row.request_id, None)
        if record.position >= self.stored:
            self._batch.append(_Line(record.position, row, record.size))

    def _note_damage(self) -> None:
        damage, self._reader.damage = self._reader.damage, []
        for one in damage:
            if one.torn:
                self._desk.counts.torn += 1
                self._desk.report(Notice(Told.TORN, self.journal_id, len(one.content)))
            elif self._reader.position >= self.stored:
                self._reject(self._reader.position, one.content, None)

    # --- setting aside -----------------------------------------------------------------------------------------------

    def _reject(self, position: int, content: bytes, error: BaseException | None) -> None:
        self._aside.append(self._said(position, content, error))

    def _said(self, position: int, content: bytes, error: BaseException | None) -> dict[str, object]:
        why = type(error).__name__ if error else "check sum"
        said = {"at": self._desk.now(), "journal": self.journal_id, "position": position, "why": why}
        return said | {"line": content.decode(errors="replace")}

    async def _intend(self, lines: Sequence[_Line]) -> list[dict[str, object]]:
        """Have it on the disk that these rows are refused, before the database is past them; what is to be said."""
        said = [self._said(line.position, line.row.line(), self._error) for line in lines]
        if said or self._intended:
            await self._note_intended(said)
        return said

    async def _note_intended(self, said: list[dict[str, object]]) -> None:
        await self._to_files(intend_aside, self._desk.folder, self.journal_id, said)
        self._intended = bool(said)

    async def recall(self) -> int:
        """Find what was being set aside when a process died, or the database went away: how many rows. OSError."""
        noted = await asyncio.to_thread(intended_aside, self._desk.folder, self.journal_id)
        found = [one for one in noted if one["position"] < self.stored]
        self._aside += found
        self._intended = bool(noted)
        return len(found)

    async def _put_aside(self) -> None:
        """Write down what is set aside. JournalUnwritable when that fails; then it is tried again before all else."""
        if not self._aside:
            return
        await self._to_files(set_aside, self._desk.folder, self._aside)
        self._desk.counts.rejected += len(self._aside)
        self._desk.report(Notice(Told.REJECTED, self.journal_id, len(self._aside), self._error))
        self._aside = []
        await self._note_intended([])

    async def _to_files(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            await asyncio.to_thread(work, *arguments)
        except OSError as error:
            raise JournalUnwritable(f"rows cannot be set aside in {self._desk.folder}: {error.strerror}") from error

    # --- handing over ------------------------------------------------------------------------------------------------

    async def _hand_over(self, before: int | None) -> None:
        if await self._taken(len(self._batch)):
            self._refused = 0
            return
        if not self._refused:
            self._shipped_then = self._desk.counts.shipped
        self._refused += 1
        if self._refused >= _TRIES:
            if sum(line.size for line in self._batch) < _MOST_HELD * self._desk.batch_bytes:
                await self._read(before)  # the next row may be one that is taken
                await self._put_aside()
            if await self._sifted():
                self._refused = 0
                return
        raise self._rows_refused()

    def _rows_refused(self) -> RowsRefused:
        refused = RowsRefused(f"the database is there, and refuses {counted(len(self._batch), 'row')} of the ledger")
        refused.__cause__ = self._error
        return refused

    async def _sifted(self) -> bool:
        """Find the rows that are refused: whether anything was taken. A row is set aside only when one behind it was
        taken in the same moment, or one of another journal since it was refused first."""
        refused, size, any_taken = 0, len(self._batch) // 2 or 1, False
        while refused < len(self._batch):
            piece = min(size, len(self._batch) - refused)
            if await self._taken(refused + piece) or (refused and await self._taken(refused + piece, but=refused)):
                refused, size, any_taken = 0, size * 2, True
            elif piece > 1:
                size = piece // 2
            else:
                refused += 1
        if refused and not any_taken and self._desk.counts.shipped > self._shipped_then:
            return await self._taken(refused, but=refused)
        return any_taken

    async def _taken(self, count: int, *, but: int = 0) -> bool:
        """Whether the first rows in hand are in the database now, without the first of them where that is said. What it
        raised is kept. DatabaseUnavailable when it does not even say how far it is, RowsRefused when it does not take
        them now, whatever they hold."""
        lines = self._batch[:count]
        end = lines[-1].position + 1
        refused = await self._intend(lines[:but])
        rows = {line.position: line.row for line in lines[but:] if line.position >= self.stored}
        self._unsure = True
        try:
            await self._desk.store.write_at(self.journal_id, range(self.stored, end), rows)
            self.stored = end
        except Exception as error:  # noqa: BLE001 - whatever it is, no row may stop all that follow
            self._error = error
            await self._ask_how_far()
        self._unsure = False
        if self.stored < end:
            if isinstance(self._error, DatabaseUnavailable) and not isinstance(self._error, ValueRefused):
                raise self._rows_refused()
            return False
        self._aside += refused
        del self._batch[:count]
        self._desk.counts.shipped += count - but
        await self._put_aside()
        return True

    async def _make_sure(self) -> None:
        """Find out what became of a write whose end was not heard of."""
        if not self._unsure:
            return
        await self._ask_how_far()
        refused = await self.recall()
        count = sum(line.position < self.stored for line in self._batch)
        del self._batch[:count]
        self._desk.counts.shipped += count - refused
        self._unsure = False

    async def _ask_how_far(self) -> None:
        """A database that is not as far as it was is another one, restored from a copy: all that the files still hold
        is for it."""
        before, self.stored = self.stored, await self._desk.store.position(self.journal_id)
        if self.stored < before:
            self._reader.close()
            self._reader = Reader(self._desk.folder, self.journal_id)
            self._records.clear()
            self._batch, self.open, self.lost = [], {}, 0
            self._read_to = self._read_bytes = 0
            raise RowsRefused(f"the database went back from line {before} of the journal to {self.stored}")


def _lost(record: Record, position: int) -> _Line:
    row = LedgerRow.of_line(record.payload)
    return _Line(position, replace(row, state=State.ESTIMATED, outcome=LOST), 0)
