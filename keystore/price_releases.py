"""Price releases: staged, live, rolled back; which was live at any time; and who decided.

Owns the statements on `price_releases`, `price_quarantine` and `price_periods`, and the rule that one release at most
is live: of two operators who decide at once, one wins and the other is told. Must not know what is in a release.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.changes import Changed, note_change
from keystore.clock import Clock
from keystore.engine import Database, Lock
from keystore.errors import PriceConflict, PriceReleaseError, PriceReleaseUnknown, PriceRowUnknown
from keystore.price_tables import price_periods, price_quarantine, price_releases

MOST_BYTES: Final = 32 * 1024 * 1024  # of compressed rows
_CHUNK: Final = 500  # rows of one INSERT
_TOLD: Final = [column for column in price_releases.c if column.name != "content"]


class ReleaseState(StrEnum):
    """Where a release stands."""

    STAGED = "staged"
    LIVE = "live"
    SUPERSEDED = "superseded"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


class Cause(StrEnum):
    """Why prices became live."""

    APPROVED = "approved"
    RULE = "rule"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A row that was not taken over. `proposed` is JSON; None: it is to go, or cannot be a row. `decision` is "pending"
    or "approved"."""

    name: str
    why: str
    detail: str
    proposed: str | None = None
    decision: str = "pending"
    decided_at: datetime | None = None
    decided_by: str | None = None


@dataclass(frozen=True, slots=True)
class NewRelease:
    """What is to be staged. `base` is the number of the live release that it was compared with, None: the bundled map.
    `approves` are the waiting rows of the release `of` that it lets in."""

    content: bytes
    digest: str
    rows: int
    base: int | None
    base_version: str
    sources: Sequence[Mapping[str, object]] = ()
    counts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    impact: Sequence[Mapping[str, object]] = ()
    waiting: Sequence[WaitingRow] = ()
    of: int | None = None
    approves: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """A release without its rows. `note` is why it was refused."""

    number: int
    state: ReleaseState
    digest: str
    rows: int
    base: int | None
    base_version: str
    sources: list[dict[str, Any]]
    counts: dict[str, Any]
    impact: list[dict[str, Any]]
    note: str
    staged_at: datetime
    staged_by: str
    decided_at: datetime | None
    decided_by: str | None


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` on these prices were live. `number` None: the bundled map."""

    since: datetime
    number: int | None
    version: str
    cause: Cause
    by: str


class PriceReleases:
    """Reads and decides. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now

    # --- reading

    async def live(self) -> Release | None:
        """The live release; None: the bundled map is."""
        async with self._database.read() as connection:
            return await _live(connection)

    async def get(self, number: int) -> Release:
        """One release. PriceReleaseUnknown."""
        async with self._database.read() as connection:
            return await _get(connection, number)

    async def content(self, number: int) -> bytes:
        """The rows of a release, as they were given. PriceReleaseUnknown also for a refused list: its are not kept."""
        query = select(price_releases.c.content).where(price_releases.c.number == number)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).scalar()
        if found is None:
            raise PriceReleaseUnknown(f"there is no price release {number} with rows")
        return bytes(found)

    async def recent(self, limit: int = 1000) -> list[Release]:
        """The newest releases first."""
        query = select(*_TOLD).order_by(price_releases.c.number.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_release(row) for row in await connection.execute(query)]

    async def waiting(self, number: int) -> list[WaitingRow]:
        """The quarantined rows of a release, by name, decided ones too."""
        async with self._database.read() as connection:
            return await _waiting(connection, number)

    async def periods(self, limit: int = 1000) -> list[Period]:
        """What was live, the newest first."""
        query = select(price_periods).order_by(price_periods.c.seq.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_period(row) for row in await connection.execute(query)]

    async def as_of(self, at: datetime) -> Period | None:
        """What was live at a time; None: no release had been live by then, so the bundled map was."""
        query = select(price_periods).where(price_periods.c.since <= at)
        async with self._database.read() as connection:
            row = (await connection.execute(query.order_by(price_periods.c.seq.desc()).limit(1))).first()
        return _period(row) if row else None

    async def alike(self, digest: str, base: int | None) -> list[Release]:
        """Releases with exactly these rows that were compared with the same release, the newest first."""
        same_base = price_releases.c.base.is_(None) if base is None else price_releases.c.base == base
        query = select(*_TOLD).where(price_releases.c.digest == digest, same_base)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(price_releases.c.number.desc()))
            return [_release(row) for row in rows]

    # --- changing

    async def stage(self, new: NewRelease, by: str) -> Release:
        """Keep a release for a decision; one that was staged before makes way. PriceConflict when another release went
        live since it was compared, PriceRowUnknown when a row that it approves does not wait."""
        if len(new.content) > MOST_BYTES:
            raise PriceReleaseError(f"a price release may have {MOST_BYTES} bytes; this one has {len(new.content)}")
        async with self._database.write(lock=Lock.PRICES) as connection:
            await _check_base(connection, new.base)
            await self._leave(connection, ReleaseState.STAGED, ReleaseState.SUPERSEDED, by)
            if new.of is not None:
                await self._mark_approved(connection, new.of, new.approves, by)
            number = await self._insert(connection, new, ReleaseState.STAGED, by)
            rows = [_waiting_values(number, row) for row in new.waiting]
            for start in range(0, len(rows), _CHUNK):
                await connection.execute(insert(price_quarantine), rows[start : start + _CHUNK])
            return await _get(connection, number)

    async def refuse(self, digest: str, sources: Sequence[Mapping[str, object]], note: str, by: str) -> Release:
        """Note a list that was refused whole. The same list again, for the same reason, is not noted twice."""
        async with self._database.write(lock=Lock.PRICES) as connection:
            newest = await _newest(connection)
            if newest and (newest.state, newest.digest, newest.note) == (ReleaseState.REFUSED, digest, note):
                return newest
            live = await _live(connection)
            new = NewRelease(b"", digest, 0, live.number if live else None, "", sources)
            number = await self._insert(connection, new, ReleaseState.REFUSED, by, note)
            return await _get(connection, number)

    async def approve(self, number: int, by: str, *, version: str, rule: bool = False) -> Release:
        """Make a staged release live; `version` is what answers will name. PriceConflict when it is not staged, or
        another release went live since."""
        async with self._database.write(lock=Lock.PRICES) as connection:
            release = await _get(connection, number)
            if release.state is not ReleaseState.STAGED:
                raise PriceConflict(_not_staged(release))
            await _check_base(connection, release.base)
            await self._leave(connection, ReleaseState.LIVE, ReleaseState.SUPERSEDED)
            await self._to(connection, number, ReleaseState.LIVE, by)
            cause = Cause.RULE if rule else Cause.APPROVED
            await self._note_period(connection, number, version, cause, by)
            return await _get(connection, number)

    async def reject(self, number: int, by: str) -> Release:
        """Refuse a staged release. PriceConflict when it is not staged."""
        async with self._database.write(lock=Lock.PRICES) as connection:
            release = await _get(connection, number)
            if release.state is not ReleaseState.STAGED:
                raise PriceConflict(_not_staged(release))
            await self._to(connection, number, ReleaseState.REFUSED, by, note=f"rejected by {by}")
            return await _get(connection, number)

    async def roll_back(self, to: int | None, by: str, *, version: str) -> Release | None:
        """Make a former release live again; None: the bundled map. Returns the release that was left. PriceConflict
        when `to` was never live, or is live."""
        async with self._database.write(lock=Lock.PRICES) as connection:
            left = await _live(connection)
            target = await _get(connection, to) if to is not None else None
            if (left.number if left else None) == to:
                raise PriceConflict(f"{version} is live already")
            if target and target.state not in (ReleaseState.SUPERSEDED, ReleaseState.ROLLED_BACK):
                raise PriceConflict(f"price release {to} is {target.state}; only one that was live can be live again")
            if target and not await _was_live(connection, target.number):
                raise PriceConflict(f"price release {to} was never live")
            await self._leave(connection, ReleaseState.STAGED, ReleaseState.SUPERSEDED, by)  # compared with what goes
            await self._leave(connection, ReleaseState.LIVE, ReleaseState.ROLLED_BACK, by)
            if target:
                await self._to(connection, target.number, ReleaseState.LIVE, by)
            await self._note_period(connection, to, version, Cause.ROLLED_BACK, by)
            return left

    # --- statements

    async def _mark_approved(self, connection: AsyncConnection, number: int, names: Collection[str], by: str) -> None:
        pending = {row.name for row in await _waiting(connection, number) if row.decision == "pending"}
        for name in sorted(names):
            if name not in pending:
                raise PriceRowUnknown(f"no row {name!r} waits in price release {number}")
            mine = (price_quarantine.c.number == number) & (price_quarantine.c.name == name)
            decided = {"decision": "approved", "decided_at": self._now(), "decided_by": by}
            await connection.execute(update(price_quarantine).where(mine).values(**decided))

    async def _insert(
        self, connection: AsyncConnection, new: NewRelease, state: ReleaseState, by: str, note: str = ""
    ) -> int:
        values = {
            "state": state.value,
            "digest": new.digest,
            "content": new.content or None,
            "rows": new.rows,
            "base": new.base,
            "base_version": new.base_version,
            "sources": _json(new.sources),
            "counts": _json(new.counts),
            "impact": _json(new.impact),
            "note": note,
            "staged_at": self._now(),
            "staged_by": by,
        }
        made = await connection.execute(insert(price_releases).values(**values).returning(price_releases.c.number))
        return int(made.scalar_one())

    async def _to(
        self, connection: AsyncConnection, number: int, state: ReleaseState, by: str, note: str | None = None
    ) -> None:
        decided: dict[str, object] = {"state": state.value, "decided_at": self._now(), "decided_by": by}
        decided |= {} if note is None else {"note": note}
        await connection.execute(update(price_releases).where(price_releases.c.number == number).values(**decided))

    async def _leave(
        self, connection: AsyncConnection, state: ReleaseState, to: ReleaseState, by: str | None = None
    ) -> None:
        """Whatever is in `state` is so no longer. Who made it live stays written unless `by` says who ended it."""
        decided: dict[str, object] = {"state": to.value}
        decided |= {} if by is None else {"decided_at": self._now(), "decided_by": by}
        await connection.execute(update(price_releases).where(price_releases.c.state == state.value).values(**decided))

    async def _note_period(
        self, connection: AsyncConnection, number: int | None, version: str, cause: Cause, by: str
    ) -> None:
        """From now on these prices are live, and every process hears of it. The clock of another machine may be behind:
        a period never begins before the one that it follows."""
        now = self._now()
        latest = (await connection.execute(select(func.max(price_periods.c.since)))).scalar()
        since = max(now, latest) if latest else now
        row = {"since": since, "number": number, "version": version, "cause": cause.value, "by": by}
        await connection.execute(insert(price_periods).values(**row))
        await note_change(connection, Changed.PRICES, now=now)


async def _live(connection: AsyncConnection) -> Release | None:
    query = select(*_TOLD).where(price_releases.c.state == ReleaseState.LIVE.value)
    row = (await connection.execute(query)).first()
    return _release(row) if row else None


async def _newest(connection: AsyncConnection) -> Release | None:
    row = (await connection.execute(select(*_TOLD).order_by(price_releases.c.number.desc()).limit(1))).first()
    return _release(row) if row else None


async def _get(connection: AsyncConnection, number: int) -> Release:
    row = (await connection.execute(select(*_TOLD).where(price_releases.c.number == number))).first()
    if row is None:
        raise PriceReleaseUnknown(f"there is no price release {number}; `wardgate price list` shows them")
    return _release(row)


async def _waiting(connection: AsyncConnection, number: int) -> list[WaitingRow]:
    query = select(price_quarantine).where(price_quarantine.c.number == number).order_by(price_quarantine.c.name)
    return [
        WaitingRow(row.name, row.why, row.detail, row.proposed, row.decision, row.decided_at, row.decided_by)
        for row in await connection.execute(query)
    ]


async def _was_live(connection: AsyncConnection, number: int) -> bool:
    query = select(func.count()).select_from(price_periods).where(price_periods.c.number == number)
    return bool((await connection.execute(query)).scalar_one())


async def _check_base(connection: AsyncConnection, base: int | None) -> None:
    live = await _live(connection)
    if (live.number if live else None) != base:
        now = f"price release {live.number}" if live else "the bundled map"
        then = f"price release {base}" if base is not None else "the bundled map"
        raise PriceConflict(f"{now} is live, and this was compared with {then}; refresh again")


def _not_staged(release: Release) -> str:
    by = f" by {release.decided_by}" if release.decided_by else ""
    return f"price release {release.number} is {release.state}{by}; only one that is staged can be decided"


def _waiting_values(number: int, row: WaitingRow) -> dict[str, object]:
    return {
        "number": number,
        "name": row.name,
        "why": row.why,
        "detail": row.detail,
        "proposed": row.proposed,
        "decision": "pending",
    }


def _json(value: object) -> str:
    return json.dumps(value, default=_plain, sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _release(row: Row[Any]) -> Release:
    return Release(
        number=row.number,
        state=ReleaseState(row.state),
        digest=row.digest,
        rows=row.rows,
        base=row.base,
        base_version=row.base_version,
        sources=json.loads(row.sources),
        counts=json.loads(row.counts),
        impact=json.loads(row.impact),
        note=row.note,
        staged_at=row.staged_at,
        staged_by=row.staged_by,
        decided_at=row.decided_at,
        decided_by=row.decided_by,
    )


def _period(row: Row[Any]) -> Period:
    return Period(row.since, row.number, row.version, Cause(row.cause), row.by)
