"""The local journal of one process: what it used, on its own disk before anybody is told.

Owns the file that is written now, its bounded size, and when what was appended is on the disk: one `fdatasync` at a
time in a thread, shared by all who wait. What was appended survives the end of the process at once, and the loss of
power from `durable` on. A request's last line that the disk does not take is kept in memory until it does.
Must not know what a line says, nor how it comes into the database (keystore.shipping).
"""

import asyncio
import contextlib
import os
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from keystore.errors import JournalUnwritable
from keystore.journal_files import (
    PRIVATE,
    Header,
    Owned,
    Record,
    Segment,
    framed,
    header_line,
    make_folder,
    remove,
    segment_path,
    shrink,
)

SEGMENT_BYTES: Final = 16 * 1024 * 1024
KEPT_LINES: Final = 8_000  # of as many requests as are in flight by default, beside the half for what cost nothing
KEPT_BYTES: Final = 16 * 1024 * 1024
_SPOILED: Final = b"?\n"  # ends a part of a line so that it is no line, though it lacked its end alone
_APPENDING: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND


@dataclass(frozen=True, slots=True)
class _Unsynced:
    """What one `fdatasync` makes durable: files that are done with, the present one, and perhaps the folder."""

    done_with: tuple[int, ...]
    present: int
    folder: bool
    position: int  # behind the last record in them


class Journal:
    """One for a process and its event loop. JournalUnwritable when the folder cannot be used.

    `position` is that of the next record; `size` are the bytes of all that were appended. `kept_bytes` are in memory,
    and `dropped` counts the lines that found no room there. `some` is set whenever something was appended or kept, and
    cleared by whoever reads.
    """

    def __init__(self, folder: Path, *, database: str, sync: bool = True, segment_bytes: int = SEGMENT_BYTES) -> None:
        """`database` names the one that the rows are for: they come into no other. Without `sync` what was appended may
        be lost with the power, and nobody waits."""
        self.folder, self.database = folder, database
        self.position = self.size = 0
        self.kept_bytes = self.dropped = 0
        self._kept: deque[bytes] = deque()
        self._durable_to = 0
        self._filled = 0  # bytes of the present segment
        self._torn = False  # it ends with a part of a line
        self.some = asyncio.Event()
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Future[None] | None = None
        self._closed = False
        try:
            make_folder(folder)
            self._owned = self._begin()
            self._header = Header(self.journal_id, database)
            self._folder_file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            self._segments: list[Segment] = []
            self._shrunk: set[int] = set()
            self._done_with: list[int] = []
            self._file = self._open_segment()
        except OSError as error:
            raise JournalUnwritable(f"the journal in {folder} cannot be written: {error.strerror}") from error
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "wardgate-journal")

    def _begin(self) -> Owned:
        while True:
            self.journal_id = str(uuid.uuid4())
            if owned := Owned.take(self.folder, self.journal_id):
                return owned  # else another took it for one whose owner had died

    # --- writing -----------------------------------------------------------------------------------------------------

    def append(self, payload: bytes) -> None:
        """Write a line, which holds no line end itself, behind those that are kept. It outlives the process from here
        on. JournalUnwritable when the disk does not take it; then it is as if it had never been tried."""
        if b"\n" in payload:
            raise ValueError("a line of the journal holds no line end")
        self.append_kept()
        self._write(payload)

    def append_or_keep(self, payload: bytes, *, reserved: bool) -> None:
        """Append the last line of a request. One that the disk does not take is kept, and appended before the next or
        with `append_kept`: so it may come behind younger ones, and never before its request's first. The line of a
        request that has not `reserved` cost nothing, and has half the room alone. JournalUnwritable when there is none:
        the line is lost."""
        try:
            self.append(payload)
        except JournalUnwritable as error:
            if self._closed:
                raise
            part = 1 if reserved else 2
            if len(self._kept) >= KEPT_LINES // part or self.kept_bytes + len(payload) > KEPT_BYTES // part:
                self.dropped += 1
                raise JournalUnwritable(f"{error}, no more lines can be kept, and this one is lost") from error
            self._kept.append(payload)
            self.kept_bytes += len(payload)
            self.some.set()

    @property
    def kept(self) -> int:
        """Lines that wait in memory for the disk; they end with the process."""
        return len(self._kept)

    def append_kept(self) -> None:
        """Append what is kept. JournalUnwritable when the disk does not take it now either."""
        if self._closed:
            raise JournalUnwritable("the journal is closed")
        while self._kept:
            self._write(self._kept[0])
            self.kept_bytes -= len(self._kept.popleft())

    def _write(self, payload: bytes) -> None:
        if self._torn or self._filled >= self._segment_bytes:
            self._rotate()
        line = _SPOILED * self._torn + framed(self.position, payload)
        try:
            written = os.write(self._file, line)
        except OSError as error:
            self._mend(0)
            raise JournalUnwritable(f"the journal in {self.folder} cannot be written: {error.strerror}") from error
        if written != len(line):
            self._mend(written)
            raise JournalUnwritable(f"the journal in {self.folder} cannot be written: the disk took half a line")
        self._torn = False
        self._filled += written
        self.size += written
        self.position += 1
        if not self.some.is_set():
            self.some.set()

    def _mend(self, written: int) -> None:
        """Leave nothing of a line that was begun, of which so many bytes were taken. Where even that fails, the next
        begins another segment, or at least another line, and readers know the rest for what it is."""
        try:
            os.ftruncate(self._file, self._filled)
        except OSError:
            self._torn = self._torn or written > 0
            self._filled += written

    def _rotate(self) -> None:
        """Go on in another segment; in the present one, beyond its size, when none can be made."""
        before = self._file
        try:
            self._file = self._open_segment()
        except OSError:
            return
        self._done_with.append(before)

    def _open_segment(self) -> int:
        path = segment_path(self.folder, self.journal_id, self.position)
        line = header_line(self._header, self.position)
        file = os.open(path, _APPENDING, PRIVATE)
        try:
            if os.write(file, line) != len(line):
                raise OSError("the disk took half a line")
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._filled = len(line)
        self._torn = False
        self._folder_changed = True
        self._segments.append(Segment(self.position, path))
        return file

    # --- to the disk -------------------------------------------------------------------------------------------------

    async def durable(self) -> None:
        """Return when all that was appended so far is on the disk; what is kept was not. JournalUnwritable when the
        disk failed."""
        if not self._sync:
            return
        if self._thread is None:
            raise JournalUnwritable("the journal is closed")
        if self._durable_to == self.position:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._syncing is None:
            self._start()
        await waiter

    def _start(self) -> None:
        """One round for all who wait now; those who come meanwhile have the next."""
        waiting, self._waiting = self._waiting, []
        done_with, self._done_with = self._done_with, []
        work = _Unsynced(tuple(done_with), self._file, self._folder_changed, self.position)
        self._folder_changed = False
        loop = asyncio.get_running_loop()
        self._syncing = loop.run_in_executor(self._thread, self._on_disk, work)
        self._syncing.add_done_callback(lambda done: self._synced(done, waiting, work))

    def _on_disk(self, work: _Unsynced) -> None:
        for file in (*work.done_with, work.present):
            os.fdatasync(file)
        if work.folder:
            os.fsync(self._folder_file)

    def _synced(self, done: "asyncio.Future[None]", waiting: Iterable["asyncio.Future[None]"], work: _Unsynced) -> None:
        self._syncing = None
        for file in work.done_with:
            os.close(file)
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._folder_changed = True
            self._rotate()  # what the kernel failed to write it may forget: a later success would mean nothing
        else:
            self._durable_to = work.position
        for waiter in waiting:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(JournalUnwritable(f"the journal in {self.folder} did not reach the disk: {error}"))
        if self._waiting:
            self._start()

    # --- what has been read ------------------------------------------------------------------------------------------

    def not_needed(self, before: int, kept: Collection[Record] = ()) -> list[tuple[Segment, list[Record]]]:
        """The segments below `before` that can go, or become smaller, each with the `kept` records that stay."""
        found = []
        for segment, following in pairwise(self._segments):
            if following.first > before:
                break
            mine = [record for record in kept if segment.first <= record.position < following.first]
            if not mine or segment.first not in self._shrunk:
                found.append((segment, mine))
        return found

    async def release(self, found: Sequence[tuple[Segment, list[Record]]]) -> None:
        """Have nothing in these segments but the records that stay. OSError."""
        for segment, mine in found:
            await asyncio.get_running_loop().run_in_executor(self._thread, shrink, segment, self._header, mine)
            if mine:
                self._shrunk.add(segment.first)
            elif segment in self._segments:
                self._segments.remove(segment)

    async def close(self, *, finished: bool = False) -> None:
        """Write nothing more. A journal that is `finished` leaves no file; any other is left to whoever takes it over,
        and so is one that takes now what was kept. JournalUnwritable when the disk failed. Twice is harmless."""
        if self._closed:
            return
        before = self.position
        with contextlib.suppress(JournalUnwritable):
            self.append_kept()
        self._closed = True
        try:
            await self.durable()
        finally:
            self._end(finished and self.position == before)

    def _end(self, finished: bool) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()
        for file in (*self._done_with, self._file, self._folder_file):
            os.close(file)
        if finished:
            remove(self.folder, self.journal_id)
        self._owned.let_go()
