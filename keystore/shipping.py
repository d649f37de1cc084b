"""Brings what the journals of a folder hold into the database: this process's own, and those that dead ones left.

Owns when: a moment after something was appended, again and again while the database is away, and every few seconds for
journals that nobody holds. Nothing waits in memory but the batch in hand; the rest is read from the files when its turn
comes. Must not know what a row says, nor how a line lies on the disk.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from keystore.clock import Clock
from keystore.errors import DatabaseUnavailable, JournalUnwritable, RowsRefused
from keystore.journal import Journal
from keystore.journal_files import FORMAT, Owned, is_blank, journals_in, read_header, remove, segments_of
from keystore.shipment import BATCH_BYTES, Counts, Desk, Notice, RowStore, Shipment, Told


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: lines gather for one batch, a failure is followed by a pause that doubles, others' journals are looked
    for."""

    gather_s: float = 0.25
    least_s: float = 0.1
    most_s: float = 2.0
    look_s: float = 3.0


A_PACE: Final = Pace()


@dataclass(frozen=True, slots=True)
class _Orphan:
    """A journal whose owner is dead, and which is ours to finish."""

    owned: Owned
    shipment: Shipment


class Shipper:
    """One for a process, run as a task beside the server, in the loop of its journal."""

    def __init__(
        self,
        journal: Journal,
        store: RowStore,
        report: Callable[[Notice], None],
        *,
        now: Clock,
        pace: Pace = A_PACE,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        """`report` hears of what somebody should know; it must not raise."""
        self._journal = journal
        self._desk = Desk(journal.folder, store, report, now, batch_bytes=batch_bytes)
        self._pace = pace
        self._own = Shipment(self._desk, journal.journal_id)
        self._shipping = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._orphans: dict[str, _Orphan] = {}
        self._foreign: set[str] = set()
        self._unfinished: set[str] = set()
        self._well = True
        self._kept_since: datetime | None = None  # when lines were found that the disk does not take
        self._dropped = 0  # lines of which that was told

    # --- for metrics -------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return self._desk.counts

    @property
    def pending(self) -> int:
        """Lines of this process that are not in the database yet."""
        return self._journal.position + self._journal.kept - self._own.position

    @property
    def pending_bytes(self) -> int:
        """Bytes of these."""
        return self._journal.size + self._journal.kept_bytes - self._own.size

    @property
    def orphans(self) -> int:
        """Journals of dead processes that are being finished."""
        return len(self._orphans)

    @property
    def oldest_age_s(self) -> float:
        """Since when the first row in hand waits; 0 without one."""
        shipments = [self._own, *(orphan.shipment for orphan in self._orphans.values())]
        since = [when for when in (self._kept_since, *(each.waits_since for each in shipments)) if when]
        return max(0.0, (self._desk.now() - min(since)) / timedelta(seconds=1)) if since else 0.0

    # --- the own journal ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ship until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._tend_own())
            both.create_task(self._tend_orphans())

    async def flush(self) -> None:
        """Bring all that was appended so far into the database. DatabaseUnavailable, RowsRefused and JournalUnwritable
        leave what is not there to the next time; so does what the disk does not take, when all else is there."""
        async with self._shipping:
            refused = self._append_kept()
            before = self._journal.position
            await self._journal.durable()  # what the power may still take away must not be in the database
            await self._own.ship(before=before)
            await self._release()
        if refused:
            raise refused

    def _append_kept(self) -> JournalUnwritable | None:
        """Have lines in the journal that the disk did not take before; why it still does not. Told once, until it does,
        and lost ones with their number."""
        refused = None
        try:
            self._journal.append_kept()
            self._kept_since = None
        except JournalUnwritable as error:
            refused = error
            if self._kept_since is None:
                self._kept_since = self._desk.now()
                self._desk.report(Notice(Told.KEPT, self._journal.journal_id, self._journal.kept, error))
        self._tell_dropped(self._journal.dropped - self._dropped)
        return refused

    def _tell_dropped(self, number: int) -> None:
        if number > 0:
            self._dropped += number
            self._desk.report(Notice(Told.DROPPED, self._journal.journal_id, number))

    async def _release(self) -> None:
        """Delete what is not needed any more; what cannot be deleted now can with a later batch."""
        with contextlib.suppress(OSError, DatabaseUnavailable):
            idle = self._journal.not_needed(self._own.position, self._own.open.values())
            if idle and await self._desk.store.secured():
                await self._journal.release(idle)

    async def close(self, within_s: float) -> bool:
        """Ship what is left, as far as that is done in time, once `run` has ended; whether the journal is finished:
        nothing in it waits, nothing that began is without an end, and no loss of power takes it back."""
        secured = False
        try:
            async with asyncio.timeout(within_s):
                await self.flush()
                secured = await self._desk.store.secured()
        except Exception as error:  # noqa: BLE001 - the process ends all the same, and the files stay
            self._failed(error)
        self._tell_dropped(self._journal.kept)
        await self._own.close()
        for orphan in self._orphans.values():
            await orphan.shipment.close()
            orphan.owned.let_go()
        self._orphans = {}
        return secured and not self.pending and not self._own.open

    async def _tend_own(self) -> None:
        pause = self._pace.least_s
        while True:
            await self._journal.some.wait()
            await asyncio.sleep(self._pace.gather_s)
            self._journal.some.clear()
            try:
                await self.flush()
                self._well, pause = True, self._pace.least_s
            except Exception as error:  # noqa: BLE001 - else nothing would be shipped from here on, and nobody told
                self._failed(error)
                self._journal.some.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._pace.most_s)

    def _failed(self, error: Exception) -> None:
        """Tell once, until it goes well again. Of what the disk does not take it was told."""
        if self._kept_since is not None and isinstance(error, JournalUnwritable):
            return
        if self._well:
            self._desk.report(Notice(Told.WAITING, self._journal.journal_id, self.pending, error))
        self._well = False

    # --- others' journals --------------------------------------------------------------------------------------------

    async def _tend_orphans(self) -> None:
        while True:
            try:
                await self.take_over()
            except Exception as error:  # noqa: BLE001 - else no journal would be taken over from here on
                self._failed(error)
            await asyncio.sleep(self._pace.look_s)

    async def take_over(self) -> None:
        """Finish every journal here whose owner is dead, one after the other. DatabaseUnavailable ends it, and
        JournalUnwritable when the folder cannot be read; one that cannot be finished is told, and keeps no other
        waiting. A journal that was begun stays ours, and comes first the next time."""
        async with self._looking:
            for journal_id in [*self._orphans, *self._others()]:
                try:
                    await self._finish(journal_id)
                    self._unfinished.discard(journal_id)
                except DatabaseUnavailable:
                    raise
                except RowsRefused:  # the next journal's rows may be taken, and then this one is
                    continue
                except Exception as error:  # noqa: BLE001 - whatever this one holds, the others' rows are not to wait for it
                    self._not_finished(journal_id, error)

    def _not_finished(self, journal_id: str, error: Exception) -> None:
        """Tell once, until it is."""
        if journal_id not in self._unfinished:
            self._unfinished.add(journal_id)
            self._desk.report(Notice(Told.UNFINISHED, journal_id, error=error))

    def _others(self) -> list[str]:
        try:
            found = journals_in(self._journal.folder)
        except OSError as error:
            raise JournalUnwritable(f"the folder {self._journal.folder} cannot be read: {error.strerror}") from error
        return [each for each in found if each not in {self._journal.journal_id, *self._foreign, *self._orphans}]

    async def _finish(self, journal_id: str) -> None:
        orphan = self._orphans.get(journal_id) or await self._taken(journal_id)
        if orphan is None:
            return
        await orphan.shipment.ship()
        await orphan.shipment.ship_lost()
        if not await self._desk.store.secured():
            return  # the next time
        await orphan.shipment.close()
        await asyncio.to_thread(remove, self._journal.folder, journal_id)
        del self._orphans[journal_id]
        orphan.owned.let_go()
        self._desk.counts.taken_over += 1
        self._desk.report(Notice(Told.TAKEN_OVER, journal_id, orphan.shipment.lost))

    async def _taken(self, journal_id: str) -> _Orphan | None:
        """None for one whose owner lives, and for one that is not ours to finish."""
        owned = Owned.take(self._journal.folder, journal_id)
        if owned is None:
            return None
        try:
            if not self._is_to_be_finished(journal_id):
                owned.let_go()
                return None
            shipment = Shipment(self._desk, journal_id, stored=await self._desk.store.position(journal_id))
            await shipment.recall()
        except BaseException:
            owned.let_go()
            raise
        self._orphans[journal_id] = orphan = _Orphan(owned, shipment)
        return orphan

    def _is_to_be_finished(self, journal_id: str) -> bool:
        """Of this database, and in a form that is known. One without any whole line is nobody's; one without a segment
        was finished just now."""
        segments = segments_of(self._journal.folder, journal_id)
        if not segments:
            remove(self._journal.folder, journal_id)
            return False
        header = read_header(segments)
        if header is None:
            ours = is_blank(segments)
        else:
            ours = header.database == self._journal.database and header.format <= FORMAT
        if not ours:
            self._foreign.add(journal_id)
            self._desk.report(Notice(Told.FOREIGN, journal_id))
        return ours
