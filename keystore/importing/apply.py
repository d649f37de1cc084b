"""Taking over: seals what the journal lacks, batch by batch, each batch one transaction.

Owns the writing of imported credentials. A row that was edited since it was judged is left to the next round, so it is
never lost and never half taken; rounds go on until one finds nothing to do. What an operator set here is never
displaced. Must not know how a table is read, or what a plan file looks like.
"""

import hmac
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.engine import Database, Lock
from keystore.errors import EnvelopeDamaged
from keystore.holdings import hint_of, hosts_of
from keystore.importing import journal
from keystore.importing.classify import KEPT, Outcome
from keystore.importing.journal import Noted
from keystore.importing.source import Source, SourceRow
from keystore.importing.survey import Judge, Seen, Survey
from keystore.providers import Provider
from keystore.sealing import Opened, Place
from keystore.tables import credentials, imported_settings, tenants
from keystore.tenantkeys import TenantKeys, sealed_with

SOURCE: Final = "import"  # credentials.source of what was taken over
_STORED: Final = (
    credentials.c.credential_id,
    credentials.c.tenant_id,
    credentials.c.setting_key,
    credentials.c.version,
    credentials.c.state,
    credentials.c.source,
)


@dataclass(frozen=True, slots=True)
class Applier:
    """What taking over needs. `owners_of` are the providers by the names they ask for."""

    database: Database
    source: Source
    keys: TenantKeys
    judge: Judge
    import_id: str
    owners_of: Mapping[str, Provider | None]
    now: Clock
    random: Random

    def todo(self, seen: Survey, noted: Sequence[Noted]) -> list[tuple[Seen, ...]]:
        """The groups with news: a row that the journal does not have as it is now. A row that was scrubbed is none."""
        marks = {each.row_mac: each for each in noted}
        scrubbed: set[object] = {(each.tenant_id, each.name) for each in noted if each.scrubbed}
        scrubbed |= {each.place for each in noted if each.scrubbed}
        singles = [(other,) for other in seen.others]
        return [
            group
            for group in (*seen.groups, *singles)
            if any(self._is_news(each, marks.get(each.row_mac), scrubbed) for each in group)
        ]

    def _is_news(self, seen: Seen, noted: Noted | None, scrubbed: Collection[object]) -> bool:
        """`scrubbed` are the names of tenants, and the places, that plain text was taken away from."""
        if seen.is_blank and (seen.group in scrubbed or (seen.tenant is None and seen.place in scrubbed)):
            return False
        return noted is None or not noted.settles(seen)

    async def batch(self, groups: Sequence[tuple[Seen, ...]], contents: Mapping[bytes, Noted]) -> Counter[str]:
        """Take these groups over in one transaction; how many rows were `taken`, `edited` (left to the next round) or
        done by
        somebody else meanwhile (`elsewhere`). `contents` is the journal when the round began, by content."""
        rows = [seen for group in groups for seen in group]
        async with self.database.write(lock=Lock.IMPORT) as connection:
            owned = sorted({seen.tenant.id for seen in rows if seen.tenant and seen.outcome in KEPT})
            hold = select(tenants.c.id).where(tenants.c.id.in_(owned)).order_by(tenants.c.id)
            await connection.execute(hold.with_for_update(key_share=True))
            fresh = await self.source.at([seen.key for seen in rows], connection if self.source.in_place else None)
            present = await journal.read_of(connection, self.import_id, rows)
            known = dict(contents) | {each.content_mac: each for each in present}
            work = _Batch(self, connection, self.now(), fresh, known, {each.row_mac: each for each in present})
            await work.load(owned)
            for group in groups:
                await work.group(group)
            await work.check_seals()
            await work.write()
            if work.touched:
                await note_change(connection, Changed.TENANT, *sorted(work.touched), now=work.now)
        return work.counts


@dataclass(slots=True)
class _Batch:
    """One transaction's work, collected."""

    at: Applier
    connection: AsyncConnection
    now: datetime
    fresh: Mapping[Any, SourceRow] = field(repr=False)
    known: dict[bytes, Noted]  # by content
    done: Mapping[bytes, Noted]  # by row
    counts: Counter[str] = field(default_factory=Counter)
    touched: set[str] = field(default_factory=set)
    states: dict[str, str] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    active: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)
    sealed: list[tuple[Place, str, bytes]] = field(default_factory=list, repr=False)
    entries: list[tuple[Seen, str | None]] = field(default_factory=list)
    copies: list[dict[str, Any]] = field(default_factory=list, repr=False)

    async def load(self, owned: Sequence[str]) -> None:
        """What these tenants' names have already."""
        stored = select(*_STORED).where(credentials.c.tenant_id.in_(owned), credentials.c.label == "")
        for row in await self.connection.execute(stored):
            name = (row.tenant_id, row.setting_key)
            self.states[row.credential_id] = row.state
            self.versions[name] = max(self.versions.get(name, 0), row.version)
            if row.state == "active":
                self.active[name] = (row.credential_id, row.source)

    async def group(self, group: tuple[Seen, ...]) -> None:
        """The rows of one name, oldest first; the newest decides what is in force."""
        pairs = [(seen, row) for seen in group if (row := self._unchanged(seen)) is not None]
        if len(pairs) < len(group):
            self.counts["edited"] += len(group)
            return
        if all((done := self.done.get(seen.row_mac)) is not None and done.settles(seen) for seen in group):
            self.counts["elsewhere"] += len(group)
            return
        for seen, row in pairs:
            await self._row(seen, row, is_newest=seen is group[-1])
        self.counts["taken"] += len(group)

    def _unchanged(self, seen: Seen) -> SourceRow | None:
        """The row as it stands now, if it is what was judged."""
        row = self.fresh.get(seen.key)
        return row if row is not None and self.at.judge.marks.of_row(row) == seen.row_mac else None

    async def _row(self, seen: Seen, row: SourceRow, *, is_newest: bool) -> None:
        if seen.outcome not in KEPT:
            self.entries.append((seen, None))
            if seen.outcome is Outcome.SETTING and not self.at.source.in_place:
                self._copy(seen, row)
            return
        noted = self.known.get(seen.content_mac)
        credential_id = noted.credential_id if noted else None
        if is_newest:
            credential_id = await self._put_in_force(seen, row, credential_id)
        elif credential_id is None or credential_id not in self.states:
            credential_id = await self._make(seen, row, "quarantined" if seen.why else "superseded")
        self.entries.append((seen, credential_id))
        self.known[seen.content_mac] = _as_noted(seen, credential_id)

    async def _put_in_force(self, seen: Seen, row: SourceRow, present: str | None) -> str:
        """The newest row's credential: active if it may be used, and nothing was set here under its name."""
        current = self.active.get(seen.group)
        if current is not None and present == current[0]:
            return present
        state = "quarantined" if seen.why else "superseded" if current and current[1] != SOURCE else "active"
        if present is not None and self.states.get(present) == state != "active":
            if state == "quarantined":
                await self._supersede(seen)
            return present
        if state != "superseded":
            await self._supersede(seen)
        return await self._make(seen, row, state)

    async def _supersede(self, seen: Seen) -> None:
        current = self.active.get(seen.group)
        if current is None or current[1] != SOURCE:
            return
        await self.connection.execute(
            update(credentials)
            .where(credentials.c.credential_id == current[0])
            .values(state="superseded", updated_at=self.now)
        )
        del self.active[seen.group]
        self.states[current[0]] = "superseded"

    async def _make(self, seen: Seen, row: SourceRow, state: str) -> str:
        """A new version with the value sealed, byte for byte (NULL as no bytes)."""
        tenant_id, name = seen.group
        provider = self.at.owners_of.get(name)
        place = Place(tenant_id, str(uuid.UUID(bytes=self.at.random(16), version=4)), name)
        value = row.value or b""
        envelope = await self.at.keys.seal(self.connection, Opened(value, hosts_of(provider)), place)
        self.sealed.append((place, envelope, value))
        version = self.versions.get(seen.group, 0) + 1
        self.versions[seen.group] = version
        self.states[place.credential_id] = state
        if state == "active":
            self.active[seen.group] = (place.credential_id, SOURCE)
        self.made.append(
            {
                "credential_id": place.credential_id,
                "tenant_id": tenant_id,
                "setting_key": name,
                "provider_id": provider.id if provider else "",
                "version": version,
                "state": state,
                "label": "",
                "envelope": envelope,
                "hint": hint_of(value.decode("utf-8")) if seen.fingerprint else "",
                "fingerprint": seen.fingerprint,
                "source": SOURCE,
                "quarantine": seen.why if state == "quarantined" else None,
                "created_at": self.now,
                "updated_at": self.now,
            }
        )
        self.touched.add(tenant_id)
        return place.credential_id

    def _copy(self, seen: Seen, row: SourceRow) -> None:
        """A setting of another database, as it is; an older copy of its place goes when the entry is written."""
        self.copies.append(
            {
                "import_id": self.at.import_id,
                "row_mac": seen.row_mac,
                "tenant_id": _storable(row.tenant_id),
                "setting_key": row.name,
                "setting_value": row.value,
                "created_at": _storable(row.created_at),
                "updated_at": _storable(row.updated_at),
            }
        )

    async def check_seals(self) -> None:
        """Open every new envelope again. EnvelopeDamaged, which undoes the batch, when one gives other bytes."""
        keys = {tenant: await self.at.keys.all_of(self.connection, tenant) for tenant in self.touched}
        for place, envelope, value in self.sealed:
            opened = self.at.keys.open(sealed_with(envelope, place, keys[place.tenant_id]))
            if not hmac.compare_digest(opened.secret, value):
                raise EnvelopeDamaged("a value did not open as it was sealed; nothing of this batch was taken over")

    async def write(self) -> None:
        """Credentials, journal, settings."""
        if self.made:
            ordered = sorted(self.made, key=lambda row: (row["tenant_id"], row["setting_key"], row["version"]))
            await self.connection.execute(insert(credentials), ordered)
        await journal.write(self.connection, self.at.import_id, self.entries)
        if self.copies:
            await self.connection.execute(insert(imported_settings), self.copies)


def batches(groups: Sequence[tuple[Seen, ...]], size: int) -> Iterator[list[tuple[Seen, ...]]]:
    """The groups in batches of about `size` rows; a group is never parted."""
    batch: list[tuple[Seen, ...]] = []
    rows = 0
    for group in groups:
        if batch and rows + len(group) > size:
            yield batch
            batch, rows = [], 0
        batch.append(group)
        rows += len(group)
    if batch:
        yield batch


def _as_noted(seen: Seen, credential_id: str | None) -> Noted:
    return Noted(
        seen.row_mac,
        seen.content_mac,
        seen.place,
        seen.group[0],
        seen.name,
        seen.kind,
        seen.outcome,
        credential_id,
        scrubbed=False,
    )


def _storable(text: str | None) -> str | None:
    return text.replace("\0", "\\0") if text else text
