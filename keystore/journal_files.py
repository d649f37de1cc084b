"""How a journal lies on the disk: names, locks, segments, lines with a check sum, and reading them again.

A journal is a lock file `<id>.lock`, which its owner holds as long as it lives, and segments `<id>.<first>.jsonl`. The
first line of a segment is its header. A line is `<check sum> <position> <payload>`: the CRC-32 of the payload, begun
with the position, in eight hexadecimal digits. Whatever ends a segment without being such a line was never finished.

Owns the form and the files. Must not know what a payload says, nor who ships it.
"""

import contextlib
import fcntl
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

FORMAT: Final = 1
PRIVATE: Final = 0o600
_CHUNK: Final = 256 * 1024  # bytes of one read
_NONE: Final = -1  # no file
_LOCK: Final = ".lock"
_SEGMENT: Final = ".jsonl"
_ASIDE: Final = "rejected.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """A line that is whole. `payload` is what was appended, `size` the bytes of the line with its end."""

    position: int
    payload: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself. `database` names the database that the journal's rows belong to."""

    journal_id: str
    database: str
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Segment:
    """One file; `first` is the position of its first record."""

    first: int
    path: Path


# --- lines -----------------------------------------------------------------------------------------------------------


def framed(position: int, payload: bytes) -> bytes:
    """The line of a payload, which holds no line end itself."""
    return b"%08x %d %b\n" % (zlib.crc32(payload, position & 0xFFFFFFFF), position, payload)


def parsed(line: bytes) -> Record | None:
    """The record of a line, given without its end; None for what `framed` did not write."""
    mark, _, rest = line.partition(b" ")
    digits, space, payload = rest.partition(b" ")
    if len(mark) != 8 or not space or not digits.isdigit() or len(digits) > 19:
        return None
    position = int(digits)
    if b"%08x" % zlib.crc32(payload, position & 0xFFFFFFFF) != mark:
        return None
    return Record(position, payload, len(line) + 1)


def header_line(header: Header, first: int) -> bytes:
    """The first line of a segment."""
    said = {"format": header.format, "journal": header.journal_id, "database": header.database}
    return framed(first, orjson.dumps(said))


def read_header(segments: Iterable[Segment]) -> Header | None:
    """What the first segment with a whole header says; None when none has one."""
    for segment in segments:
        with segment.path.open("rb") as file:
            record = parsed(file.readline()[:-1])
        if record is not None:
            said: dict[str, Any] = orjson.loads(record.payload)
            return Header(str(said.get("journal")), str(said.get("database")), int(said.get("format", 0)))
    return None


def is_blank(segments: Iterable[Segment]) -> bool:
    """Whether no line in them is whole: power was lost before the first one was on the disk."""
    return not any(parsed(line) for segment in segments for line in segment.path.read_bytes().split(b"\n"))


# --- files -----------------------------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Have the folder there, for this user alone. OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def segment_path(folder: Path, journal_id: str, first: int) -> Path:
    return folder / f"{journal_id}.{first:020d}{_SEGMENT}"


def segments_of(folder: Path, journal_id: str) -> list[Segment]:
    """The segments that are there, in order."""
    names = sorted(folder.glob(f"{journal_id}.{'[0-9]' * 20}{_SEGMENT}"))
    return [Segment(int(path.name.split(".")[1]), path) for path in names]


def journals_in(folder: Path) -> list[str]:
    """The ids of all journals that have a file here, sorted."""
    ids = {path.name.partition(".")[0] for path in folder.iterdir() if path.suffix in (_LOCK, _SEGMENT)}
    return sorted(each for each in ids if _is_id(each))


def _is_id(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return str(uuid.UUID(text)) == text
    return False


def remove(folder: Path, journal_id: str) -> None:
    """Delete a journal; its lock goes last, so that what is left after a crash is found again. OSError."""
    for path in sorted(folder.glob(f"{journal_id}.*"), key=lambda path: (path.suffix == _LOCK, path.name)):
        path.unlink(missing_ok=True)


def shrink(segment: Segment, header: Header, kept: Sequence[Record]) -> None:
    """Have nothing in a segment but these records of it; without any the file is deleted. OSError."""
    if not kept:
        segment.path.unlink(missing_ok=True)
        return
    lines = [header_line(header, segment.first), *(framed(one.position, one.payload) for one in kept)]
    aside = segment.path.with_suffix(".tmp")
    with os.fdopen(os.open(aside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, PRIVATE), "wb") as file:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(segment.path)


def set_aside(folder: Path, said: Sequence[dict[str, object]]) -> None:
    """Add lines to `rejected.jsonl`, for a person to look at; they are on the disk when this returns. OSError."""
    file = os.open(folder / _ASIDE, os.O_CREAT | os.O_RDWR | os.O_APPEND, PRIVATE)
    with os.fdopen(file, "ab") as aside:  # buffered: where the disk takes a part, the rest is tried and raises
        size = os.fstat(file).st_size
        begun = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # a line that the disk took a part of
        aside.write(b"\n" * begun + _lines(said))
        aside.flush()
        os.fdatasync(file)


def aside_in(folder: Path) -> list[bytes]:
    """The lines of `rejected.jsonl`; none where there is no such file. OSError."""
    path = folder / _ASIDE
    return path.read_bytes().splitlines() if path.exists() else []


def intend_aside(folder: Path, journal_id: str, said: Sequence[dict[str, object]]) -> None:
    """Note beside a journal what is set aside once the database is past it; nothing takes the note away. OSError."""
    path = _intended(folder, journal_id)
    if not said:
        path.unlink(missing_ok=True)
        return
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, PRIVATE), "wb") as file:
        file.write(_lines(said))
        file.flush()
        os.fdatasync(file)


def intended_aside(folder: Path, journal_id: str) -> list[dict[str, Any]]:
    """What was noted so, as far as it is whole. OSError."""
    path, noted = _intended(folder, journal_id), []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            noted.append(orjson.loads(line))
    return noted


def _intended(folder: Path, journal_id: str) -> Path:
    return folder / f"{journal_id}.aside"


def _lines(said: Iterable[dict[str, object]]) -> bytes:
    return b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in said)


class Owned:
    """The lock of a journal, held until it is let go or the process ends."""

    def __init__(self, file: int) -> None:
        self._file = file

    @classmethod
    def take(cls, folder: Path, journal_id: str) -> "Owned | None":
        """None when another holds it, or finished with it just now. OSError."""
        path = folder / f"{journal_id}{_LOCK}"
        file = os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):
                return cls(file)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None

    def let_go(self) -> None:
        """Others may take it from here on. Twice is harmless."""
        if self._file != _NONE:
            os.close(self._file)
            self._file = _NONE


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no record. A torn tail was never finished; others stood whole once."""

    segment: str
    content: bytes
    torn: bool


class Reader:
    """Reads a journal from its first segment on, once. Not for two threads at a time."""

    def __init__(self, folder: Path, journal_id: str) -> None:
        self._folder, self._id = folder, journal_id
        self._segment: Segment | None = None
        self._file = _NONE
        self._offset = 0
        self._done = True  # with the segment
        self._strange: list[bytes] = []  # no records, and nothing was read behind them yet
        self.damage: list[Damage] = []  # for whoever reads to take away
        self.position = 0  # behind the last record that was read
        self.size = 0  # bytes of the records that were read

    def read(self, *, before: int | None = None, most: int = _CHUNK) -> list[Record]:
        """The next records, those below `before` where it is given: the journal is still written then, and what
        follows is left alone. About `most` bytes at a time; nothing at the end. OSError, and the next call tries the
        same place again."""
        try:
            return self._read(before, most)
        except OSError:
            self.close()  # opened anew it may be read: mended, or another one
            raise

    def _read(self, before: int | None, most: int) -> list[Record]:
        while before is None or self.position < before:
            if self._file == _NONE and not self._open_next():
                return []
            ended = before is None or self._next_segment() is not None  # asked first: then this one grows no more
            data = self._lines(most)
            if found := list(self._records(data, before)):
                return found
            if not data:
                if not ended:
                    return []
                self._leave()
        return []

    def close(self) -> None:
        """Hold no file. Twice is harmless."""
        if self._file != _NONE:
            os.close(self._file)
            self._file = _NONE

    def _next_segment(self) -> Segment | None:
        last = -1 if self._segment is None else self._segment.first
        return next((one for one in segments_of(self._folder, self._id) if one.first > last), None)

    def _open_next(self) -> bool:
        if not self._done and self._segment is not None and self._segment.path.exists():
            self._file = os.open(self._segment.path, os.O_RDONLY)
            return True
        found = self._next_segment()
        if found is None:
            return False
        self._file, self._segment, self._offset, self._done = os.open(found.path, os.O_RDONLY), found, 0, False
        return True

    def _lines(self, most: int) -> bytes:
        """Whole lines from here on; empty when there is none."""
        while True:
            data = os.pread(self._file, most, self._offset)
            end = data.rfind(b"\n") + 1
            if end or len(data) < most:
                return data[:end]
            most *= 2  # a line is longer

    def _records(self, data: bytes, before: int | None) -> Iterator[Record]:
        for line in data.split(b"\n")[:-1]:
            record, at = parsed(line), self._offset
            if before is not None and record is not None and record.position >= before and at:
                return
            self._offset += len(line) + 1
            if at == 0 and record is not None:
                continue  # the header
            if record is None or record.position < self.position:
                self._strange.append(line)
                continue
            self._found_strange(torn=False)
            self.position = record.position + 1
            self.size += record.size
            yield record

    def _leave(self) -> None:
        """Close a segment that was read to its end and grows no more."""
        if tail := os.pread(self._file, _CHUNK, self._offset):
            self._strange.append(tail)
        self._found_strange(torn=True)
        self._done = True
        self.close()

    def _found_strange(self, *, torn: bool) -> None:
        """Torn when nothing whole came behind it."""
        if self._strange and self._segment is not None:
            self.damage.append(Damage(self._segment.path.name, b"\n".join(self._strange), torn))
        self._strange = []
