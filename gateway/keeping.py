"""Keeps the decision of each request: gathered from events, written behind in batches, a moment after the answer.

A subscriber of events. Owns the two bounded queues: what has ended, and what is ready to be written while the database
is away. What there is no room for is dropped and counted; serving a request waits for none of it. What was not written
when the process is killed is lost. Must not know what a record holds.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Final

from gateway.events import AttemptEnded, Decided, Event, RequestCompleted
from gateway.request_record import Draft, Ended, Told, document
from keystore.decisions import DecisionStore, KeptDecision
from keystore.errors import DatabaseUnavailable

GATHERED_S: Final = 0.05  # so long are ended requests gathered for one batch
AGAIN_S: Final = 1.0  # after the database was away
CLOSING_S: Final = 5.0
MOST_WEIGHT: Final = 250_000  # offers in the decisions that wait: some 60 MB where they are many to a decision
MOST_WAITING: Final = 30_000  # requests: some 40 MB
MOST_BYTES: Final = 32 * 1024 * 1024  # of records that wait for the database
ON_LOOP_WEIGHT: Final = 200  # offers in the decisions of a batch that is made on the loop: about a millisecond
BATCH: Final = 50  # rows are made on the loop: a millisecond and a half at a time
AT_ONCE: Final = 500  # rows of one transaction, where so many wait: on a busy loop each of its steps waits for a turn

Report = Callable[[str, BaseException], None]


class DecisionKeeper:
    """One for the process, run as a task beside the server. `dropped` counts what was not kept."""

    def __init__(
        self,
        store: DecisionStore,
        report: Report,
        *,
        now: Callable[[], datetime],
        most_weight: int = MOST_WEIGHT,
        most_waiting: int = MOST_WAITING,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._store = store
        self._report = report
        self._now = now
        self._most_weight, self._most_waiting, self._most_bytes = most_weight, most_waiting, most_bytes
        self._drafts: dict[str, Draft] = {}
        self._ended: deque[Ended] = deque()
        self._ready: deque[KeptDecision] = deque()
        self._weight = self._bytes = 0
        self._writing = asyncio.Lock()
        self._some = asyncio.Event()
        self.dropped = 0

    def __call__(self, event: Event) -> None:
        """Note what belongs to a request whose decision is kept. No I/O and no JSON."""
        if isinstance(event, Decided):
            if self._store.keeping.on:
                self._drafts[event.request_id] = Draft(event)
        elif isinstance(event, AttemptEnded):
            if draft := self._drafts.get(event.request_id):
                draft.attempts.append(event)
        elif isinstance(event, RequestCompleted) and (draft := self._drafts.pop(event.request_id, None)):
            self._end(Ended(draft, event, self._now()))

    def _end(self, ended: Ended) -> None:
        if self._weight + ended.draft.weight > self._most_weight or len(self._ended) >= self._most_waiting:
            self.dropped += 1
            return
        self._weight += ended.draft.weight
        self._ended.append(ended)
        self._some.set()

    async def run(self) -> None:
        """Write what ends, until cancelled. A database that is away is asked again every second."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHERED_S)
            self._some.clear()
            try:
                await self.flush(few=BATCH)
                if self._ended:
                    self._some.set()
            except DatabaseUnavailable:
                self._some.set()
                await asyncio.sleep(AGAIN_S)
            except Exception as error:  # noqa: BLE001 - else nothing would be kept from here on, and nobody told
                self._report("", error)

    async def flush(self, *, few: int = 1) -> int:
        """Write all that has ended; how many. DatabaseUnavailable leaves what there is room for to the next time.

        A part is made and written, and then the next: under a load without a pause there is always more that has ended.
        Fewer than `few` that ended meanwhile are left to gather.
        """
        written = 0
        async with self._writing:
            while True:
                while self._ended and len(self._ready) < AT_ONCE:
                    await self._encode()
                written += await self._write()
                if len(self._ended) < few:
                    return written

    async def _encode(self) -> None:
        """Make the records of a batch; aside where they are large, so that the loop goes on."""
        batch, told = list(islice(self._ended, BATCH)), Told()

        def made() -> list[KeptDecision | None]:
            return [self._record(one, told) for one in batch]

        large = sum(one.draft.weight for one in batch) > ON_LOOP_WEIGHT
        records = await asyncio.to_thread(made) if large else made()
        await asyncio.sleep(0)  # requests go on between two batches
        for ended, record in zip(batch, records, strict=True):
            self._ended.popleft()
            self._weight -= ended.draft.weight
            size = record.size if record else 0
            if record is None or self._bytes + size > self._most_bytes:
                self.dropped += 1
            else:
                self._bytes += size
                self._ready.append(record)

    def _record(self, ended: Ended, told: Told) -> KeptDecision | None:
        """None, told to the log, for one that cannot be made: no other is lost for it."""
        request_id = ended.completed.request_id
        try:
            made = document(ended, told)
        except Exception as error:  # noqa: BLE001 - one record must not stop all that follow
            self._report(request_id, error)
            return None
        return KeptDecision(request_id, ended.draft.decided.tenant_id, ended.began, made)

    async def _write(self) -> int:
        written = 0
        while self._ready:
            batch = list(islice(self._ready, AT_ONCE))
            await self._store.write(batch)
            for one in batch:
                self._ready.popleft()
                self._bytes -= one.size
            written += len(batch)
        return written

    async def close(self) -> None:
        """Write what is left, if the database takes it within some seconds; what it does not is counted."""
        try:
            async with asyncio.timeout(CLOSING_S):
                await self.flush()
        except (DatabaseUnavailable, TimeoutError):
            self.dropped += len(self._ended) + len(self._ready)
