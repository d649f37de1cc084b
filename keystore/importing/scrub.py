"""Taking the plain text out of the old table: the one step that destroys something, and only what was verified.

Owns the order that leaves nothing behind (SQLite: blank with secure_delete, VACUUM, truncate the log, then look through
the files; PostgreSQL: blank, VACUUM FULL). Must not know what a row means.
"""

import hmac
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock
from keystore.engine import Database, Lock
from keystore.errors import EnvelopeDamaged
from keystore.importing import journal
from keystore.importing.apply import batches
from keystore.importing.classify import KEPT
from keystore.importing.journal import Noted
from keystore.importing.source import Source, SourceRow
from keystore.importing.survey import Marks, Progress, Seen, Survey
from keystore.legacy import TABLE
from keystore.sealing import Place
from keystore.tables import credentials
from keystore.tenantkeys import TenantKeys, sealed_with

_SHORTEST: Final = 8  # bytes: shorter values are found by chance
_NEEDLE: Final = 32  # bytes of a value that are looked for; what a page surely holds in one piece
_WINDOW: Final = 1 << 22
_SUFFIXES: Final = ("", "-wal", "-journal")


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What the scrub did. `edited` rows (tenant, name, place) were written since, or never verified, and still hold
    what they held. `found` is how many scrubbed values are still in the files; None where files cannot be searched."""

    blanked: int
    edited: tuple[tuple[str, str, str], ...]
    log_emptied: bool
    found: int | None
    warning: str | None


@dataclass(frozen=True, slots=True)
class Scrubber:
    """What the scrub needs."""

    database: Database
    source: Source
    keys: TenantKeys
    marks: Marks
    import_id: str
    now: Clock

    async def run(self, seen: Survey, noted: Sequence[Noted], size: int, progress: Progress) -> Scrubbed:
        """Blank every row that is sealed as it stands, then rewrite the storage and look whether anything is left."""
        entries = {each.row_mac: each for each in noted if each.outcome in KEPT and not each.scrubbed}
        blanked = {(each.tenant_id, each.name) for each in noted if each.scrubbed}
        due, edited = [], []
        for group in seen.groups:
            for row in group:
                if row.row_mac in entries:
                    due.append(row)
                elif not (row.is_blank and row.group in blanked):
                    edited.append(row)
        needles: set[bytes] = set()
        done = 0
        for batch in batches([(row,) for row in due], size):
            left = await self._batch([row for (row,) in batch], entries, needles)
            edited += left
            done += len(batch)
            progress(done, len(due))
            await self.database.let_others_write()
        emptied = await self.database.rewrite(TABLE)
        path = self.database.path
        return Scrubbed(
            blanked=len(due) - len({row.place for row in due} & {row.place for row in edited}),
            edited=tuple((row.tenant.slug if row.tenant else "", row.name, row.place) for row in edited),
            log_emptied=emptied,
            found=None if path is None else still_in_files(path, needles),
            warning=None if path else "WAL archives, replicas and backups of PostgreSQL still hold the plain text",
        )

    async def _batch(self, rows: Sequence[Seen], entries: Mapping[bytes, Noted], needles: set[bytes]) -> list[Seen]:
        """Blank these rows in one transaction; those that are not as they were verified are left, and returned."""
        async with self.database.write(lock=Lock.IMPORT) as connection:
            fresh = await self.source.at([row.key for row in rows], connection, lock=True)
            sealed = await self._opened(connection, [entries[row.row_mac] for row in rows])
            sure: list[Seen] = []
            left: list[Seen] = []
            for row in rows:
                stored = fresh.get(row.key)
                value = sealed.get(entries[row.row_mac].credential_id or "")
                (sure if stored and value is not None and self._is_same(stored, row, value) else left).append(row)
            await self.source.blank(connection, [row.key for row in sure])
            places = [entries[row.row_mac].place for row in sure]
            await journal.note_scrubbed(connection, self.import_id, places, self.now())
        needles.update(self._needles(row for row in (fresh[one.key] for one in sure if one.fingerprint)))
        return left

    def _is_same(self, stored: SourceRow, seen: Seen, value: bytes) -> bool:
        return self.marks.of_row(stored) == seen.row_mac and hmac.compare_digest(value, stored.value or b"")

    async def _opened(self, connection: AsyncConnection, entries: Sequence[Noted]) -> dict[str, bytes]:
        """The sealed values of these entries, by credential."""
        wanted = select(credentials).where(credentials.c.credential_id.in_([each.credential_id for each in entries]))
        rows = [row for row in await connection.execute(wanted) if row.envelope]
        keys = {tenant: await self.keys.all_of(connection, tenant) for tenant in {row.tenant_id for row in rows}}
        opened = {}
        for row in rows:
            place = Place(row.tenant_id, row.credential_id, row.setting_key)
            try:
                opened[row.credential_id] = self.keys.open(sealed_with(row.envelope, place, keys[row.tenant_id])).secret
            except EnvelopeDamaged:
                continue
        return opened

    def _needles(self, rows: Iterable[SourceRow]) -> set[bytes]:
        values = [(row.value or b"").decode("utf-8").strip().encode(self.source.encoding) for row in rows]
        return {value[:_NEEDLE] for value in values if len(value) >= _SHORTEST}


def still_in_files(path: Path, needles: Collection[bytes]) -> int:
    """How many of these byte strings (at least 8 bytes each) are in the database's files."""
    by_start: dict[bytes, list[bytes]] = defaultdict(list)
    for needle in needles:
        by_start[needle[:_SHORTEST]].append(needle)
    found: set[bytes] = set()
    for suffix in _SUFFIXES:
        file = path.with_name(path.name + suffix)
        if by_start and file.exists():
            found |= _in_file(file, by_start)
    return len(found)


def _beginning(starts: Iterable[bytes]) -> re.Pattern[bytes]:
    """Where one of these may begin, by its first two bytes; what overlaps is found too."""
    seconds: dict[bytes, set[bytes]] = defaultdict(set)
    for start in starts:
        seconds[start[:1]].add(start[1:2])
    either = (
        re.escape(first) + b"(?=[" + b"".join(map(re.escape, sorted(second))) + b"])"
        for first, second in sorted(seconds.items())
    )
    return re.compile(b"|".join(either), re.DOTALL)


def _in_file(file: Path, by_start: Mapping[bytes, Sequence[bytes]]) -> set[bytes]:
    found: set[bytes] = set()
    begins = _beginning(by_start)
    kept = b""
    with file.open("rb") as stream:
        while chunk := stream.read(_WINDOW):
            data = kept + chunk
            for match in begins.finditer(data):
                start = data[match.start() : match.start() + _SHORTEST]
                found.update(needle for needle in by_start.get(start, ()) if data.startswith(needle, match.start()))
            kept = data[-_NEEDLE:]
    return found
