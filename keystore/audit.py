"""The audit: who did what, when, from where, and how it ended. Rows are only ever added, never a value among them.

Owns the statements on `audit` and the chain: each row carries a seal (HMAC-SHA256 under a key that is not in the
database in clear) over its own fields and the seal of the row before it, so that a changed, removed or added row shows.
What was cut off at the end shows against the head that the database notes, or that an operator kept elsewhere. Must not
know which actions there are, nor who may do them.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock
from keystore.engine import Database, Lock
from keystore.errors import AuditBroken
from keystore.sealing import encode_fields
from keystore.servicekeys import Purpose, ServiceKeys
from keystore.tables import audit, facts

HEAD: Final = "audit.head"
GAP: Final = "audit.gap"
OUTCOMES: Final = ("begun", "done", "refused", "failed", "denied", "found")  # the last of a gap
_NOTHING: Final = (0, b"")
_BATCH: Final = 1000
_LONGEST: Final = 500  # characters of a target or origin that are kept


class Phase(StrEnum):
    """A write is noted before it begins and when it has ended; what changes nothing is noted as a whole."""

    BEGIN = "begin"
    END = "end"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: `kind` operator, admin or tenant; `name` a user of the machine or a token's id; `origin` from where."""

    kind: str
    name: str
    origin: str
    rights: frozenset[str] = frozenset()
    tenant_id: str | None = None  # the one tenant whom a tenant's token may act for


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be noted. `operation` joins the beginning and the end of one operation."""

    operation: str
    phase: Phase
    actor: Actor
    action: str
    tenant_id: str | None
    target: str
    outcome: str
    detail: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row as it was read."""

    seq: int
    operation: str
    phase: Phase
    at: datetime
    actor_kind: str
    actor: str
    origin: str
    action: str
    tenant_id: str | None
    target: str
    outcome: str
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found. `head` is `seq:seal`, to be kept where this database's writers cannot reach."""

    rows: int
    head: str
    faults: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not self.faults


class AuditLog:
    """Every statement on the audit. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, service: ServiceKeys, *, now: Clock) -> None:
        self._database = database
        self._service = service
        self._now = now

    @property
    def can_note(self) -> bool:
        """Whether the key of the chain is here; without it nothing can be noted, so nothing may be changed."""
        return Purpose.AUDIT not in self._service.lacking

    async def append(self, entry: Entry) -> int:
        """Note one entry; its number. Where the end of the audit is not the one that was noted, that is noted first."""
        async with self._database.write(lock=Lock.AUDIT) as connection:
            newest = (await connection.execute(_newest())).first()
            last = (newest.seq, bytes(newest.seal)) if newest else _NOTHING
            noted = (await connection.execute(_noted_head())).scalar() or ""
            if noted != _head(*last):
                last = await self._add(connection, _gap(entry.operation, noted, _head(*last)), last)
            seq, seal = await self._add(connection, entry, last)
            await _note_head(connection, _head(seq, seal), replaces=noted)
        return seq

    async def _add(self, connection: AsyncConnection, entry: Entry, last: tuple[int, bytes]) -> tuple[int, bytes]:
        row = _row_of(entry, last[0] + 1, self._now())
        seal = self._seal(row, last[1])
        await connection.execute(insert(audit).values(**row, seal=seal))
        return row["seq"], seal

    async def list(
        self,
        *,
        tenant_id: str | None = None,
        action: str | None = None,
        actor: str | None = None,
        outcome: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[AuditRow]:
        """The newest rows first; `before` is the number of the last row of the page before."""
        wanted: dict[Any, object] = {
            audit.c.tenant_id: tenant_id,
            audit.c.action: action,
            audit.c.actor: actor,
            audit.c.outcome: outcome,
        }
        query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
        query = query.where(*(column == value for column, value in wanted.items() if value is not None))
        if since is not None:
            query = query.where(audit.c.at >= since)
        if before is not None:
            query = query.where(audit.c.seq < before)
        async with self._database.read() as connection:
            return [_read(row) for row in await connection.execute(query)]

    async def verify(self, expected: str | None = None) -> Verdict:
        """Check every row against the one before it, the end against the noted head and, if given, against a head
        (`seq:seal`) that was printed earlier. AuditBroken when `expected` is no head."""
        kept = _parse_head(expected) if expected is not None else None
        walk = _Walk(kept)
        while True:
            async with self._database.read() as connection:
                page = (await connection.execute(_page(walk.seq))).all()
                noted = (await connection.execute(_noted_head())).scalar()
            for row in page:
                walk.step(row, self._seal(_fields(row), walk.seal))
            if len(page) < _BATCH:
                return walk.verdict(noted)

    def _seal(self, row: Mapping[str, Any], previous: bytes) -> bytes:
        fields = encode_fields("wg/audit/1", *(_text(row[name]) for name in _SEALED), previous.hex())
        return hmac.digest(self._service.get(Purpose.AUDIT).key, fields, hashlib.sha256)


class _Walk:
    """The state of a verification between rows."""

    def __init__(self, kept: tuple[int, bytes] | None) -> None:
        self.seq = 0
        self.seal = b""
        self._rows = 0
        self._faults: list[str] = []
        self._kept = kept

    def step(self, row: Row[Any], right: bytes) -> None:
        if row.seq != self.seq + 1:
            self._faults.append(_missing(self.seq + 1, row.seq - 1))
        elif not hmac.compare_digest(right, bytes(row.seal)):
            self._faults.append(f"row {row.seq} was changed, or the row before it was")
        elif row.action == GAP:
            self._faults.append(f"row {row.seq} tells that rows before it were cut off")
        if self._kept is not None and self._kept[0] == row.seq and self._kept[1] != bytes(row.seal):
            self._faults.append(f"row {row.seq} is not the one whose seal was kept")
        self.seq, self.seal = row.seq, bytes(row.seal)
        self._rows += 1

    def verdict(self, noted: str | None) -> Verdict:
        head = _head(self.seq, self.seal)
        if (noted or "") != head:
            self._faults.append(f"the database notes {noted or 'no row'} as its last, but the last is {head or 'none'}")
        if self._kept is not None and self._kept[0] > self.seq:
            self._faults.append(_missing(self.seq + 1, self._kept[0]))
        return Verdict(self._rows, head, tuple(self._faults))


_SEALED: Final = (
    "seq",
    "operation",
    "phase",
    "at",
    "actor_kind",
    "actor",
    "origin",
    "action",
    "tenant_id",
    "target",
    "outcome",
    "detail",
)


def _row_of(entry: Entry, seq: int, now: datetime) -> dict[str, Any]:
    return {
        "seq": seq,
        "operation": entry.operation,
        "phase": entry.phase.value,
        "at": now.astimezone(UTC),
        "actor_kind": entry.actor.kind,
        "actor": _clean(entry.actor.name),
        "origin": _clean(entry.actor.origin),
        "action": entry.action,
        "tenant_id": entry.tenant_id,
        "target": _clean(entry.target),
        "outcome": entry.outcome,
        "detail": json.dumps(dict(entry.detail), sort_keys=True, default=str),
    }


def _clean(text: str) -> str:
    """What PostgreSQL can keep: no NUL, no lone surrogate, not endless."""
    return "".join(one if one.isprintable() else "?" for one in text[:_LONGEST])


def _fields(row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _SEALED}


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return "" if value is None else str(value)


def _read(row: Row[Any]) -> AuditRow:
    return AuditRow(**{**_fields(row), "phase": Phase(row.phase), "detail": _detail(row.detail)})


def _detail(text: str) -> Mapping[str, object]:
    """What more was noted. Of a row that was spoilt it says so: one such row must not hide the others."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": True}


def _newest() -> Select[Any]:
    return select(audit.c.seq, audit.c.seal).order_by(audit.c.seq.desc()).limit(1)


def _page(after: int) -> Select[Any]:
    return select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(_BATCH)


def _noted_head() -> Select[Any]:
    return select(facts.c.value).where(facts.c.name == HEAD)


async def _note_head(connection: AsyncConnection, head: str, *, replaces: str) -> None:
    changed = update(facts).where(facts.c.name == HEAD).values(value=head)
    await connection.execute(changed if replaces else insert(facts).values(name=HEAD, value=head))


def _gap(operation: str, noted: str, found: str) -> Entry:
    """The end is not where it was noted to be: rows were cut off, or the note was removed."""
    detail = {"noted": noted, "found": found}
    return Entry(operation, Phase.WHOLE, Actor("wardgate", "audit", "keystore"), GAP, None, "", "found", detail)


def _head(seq: int, seal: bytes) -> str:
    """How the end of the audit is written down; "" for one without rows."""
    return f"{seq}:{seal.hex()}" if seq else ""


def _parse_head(text: str) -> tuple[int, bytes]:
    seq, _, seal = text.strip().partition(":")
    try:
        number, sealed = int(seq), bytes.fromhex(seal)
        if number < 1 or len(sealed) != hashlib.sha256().digest_size:
            raise ValueError
        return number, sealed
    except ValueError:
        raise AuditBroken("a head has the form NUMBER:SEAL, as `wardgate audit verify` prints it") from None


def _missing(first: int, last: int) -> str:
    return f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"
