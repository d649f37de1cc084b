"""Undoing a batch of moves, one tenant at a time: the old row is active again, the new one is destroyed.

Owns what may be undone: a key that is still the one that was moved, and only where every provider is answered with the
same keys afterwards. What was changed since is left as it is. Must not know how a batch is found or reported on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.canonical import Proposer, changed_for, replaced, same_answers
from keystore.changes import Changed, note_change
from keystore.errors import EnvelopeDamaged
from keystore.holdings import Holding, HoldingReader
from keystore.move_journal import Move, moves_of, note_undone
from keystore.resolve import Found, Store
from keystore.sealing import Opened
from keystore.tables import credentials
from keystore.tenantkeys import Sealed, TenantKeys
from keystore.tenants import Tenant

CHANGED: Final = "changed since"
FORMER_GONE: Final = "the key under the old name is gone"
FORMER_TAKEN: Final = "changed since: the old name holds another key"
DAMAGED: Final = "its seal does not open"
FAILED: Final = "what answers changed meanwhile, or did not open as it was; nothing was undone, try again"
_GONE: Final[Mapping[str, Any]] = MappingProxyType(
    {"state": "removed", "envelope": null(), "hint": "", "fingerprint": b"", "grace_until": null()}
)


class UndoOutcome(StrEnum):
    """What became of one move."""

    UNDONE = "undone"
    ALREADY = "already undone"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class UndoStep:
    """One move, and what became of it. `reason` says why it was left, or is ""."""

    tenant: str
    provider_id: str
    from_name: str
    to_name: str
    label: str
    outcome: UndoOutcome
    reason: str


@dataclass(frozen=True, slots=True)
class Undoing:
    """Undoes what may be undone of one tenant, in a transaction that holds its row."""

    keys: TenantKeys
    reader: HoldingReader
    proposer: Proposer

    async def tenant(self, connection: AsyncConnection, tenant: Tenant, batch: str, now: datetime) -> list[UndoStep]:
        """What became of each move of the batch. EnvelopeDamaged, which undoes all, when the result is not right."""
        moves = await moves_of(connection, batch, tenant.id)
        rows = await _rows_of(connection, tenant, moves)
        asleep = {each.from_id for each in moves if _is_asleep(rows.get(each.from_id))}
        held = await self.reader.read_on(connection, tenant, grace_at=now, also=asleep)
        work = Work(self, tenant, rows, asleep, held)
        work.all_of(moves)
        if work.undone:
            await self._write(connection, tenant, work, now)
        return [work.step(each, work.left.get(each.move_id, "")) for each in moves]

    async def none(self, connection: AsyncConnection, tenant: Tenant, batch: str, reason: str) -> list[UndoStep]:
        """The moves of the batch with nothing done."""
        moves = await moves_of(connection, batch, tenant.id)
        work = Work(self, tenant, await _rows_of(connection, tenant, moves), (), ())
        return [work.step(each, reason) for each in moves]

    async def _write(self, connection: AsyncConnection, tenant: Tenant, work: "Work", now: datetime) -> None:
        mine = credentials.c.tenant_id == tenant.id
        back = update(credentials).where(mine, credentials.c.credential_id.in_(work.awake))
        await connection.execute(back.values(state="active", updated_at=now))
        ended = update(credentials).where(mine, credentials.c.credential_id.in_([one.to_id for one in work.undone]))
        await connection.execute(ended.values(**_GONE, updated_at=now))
        await note_undone(connection, [one.move_id for one in work.undone], now)
        real = await self.reader.read_on(connection, tenant, grace_at=now)
        if not same_answers(self.proposer.keyring(real), self.proposer.keyring(work.current)):
            raise EnvelopeDamaged(FAILED)
        await note_change(connection, Changed.TENANT, tenant.id, now=now)

    def open(self, holding: Holding | None) -> Opened | None:
        """What a row holds, or None when it does not open."""
        if holding is None or not isinstance(holding.value, Sealed):
            return None
        try:
            return self.keys.open(holding.value)
        except EnvelopeDamaged:
            return None


@dataclass(slots=True)
class Work:
    """One tenant's undoing, collected. `asleep` are old rows that can be active again; `current` is what is held as
    far as it is decided."""

    at: Undoing
    tenant: Tenant
    rows: Mapping[str, Row[Any]] = field(repr=False)
    asleep: Collection[str]
    held: Sequence[Holding] = field(repr=False)
    left: dict[str, str] = field(default_factory=dict)  # why, by move
    undone: list[Move] = field(default_factory=list)
    awake: list[str] = field(default_factory=list)  # the old rows that are active again
    current: list[Holding] = field(default_factory=list, repr=False)
    by_id: dict[str | None, Holding] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.current = [one for one in self.held if one.credential_id not in self.asleep]
        self.by_id = {one.credential_id: one for one in self.held}

    def all_of(self, moves: Sequence[Move]) -> None:
        """One provider after another. What one has to leave may be possible when another was done, so it goes on until
        nothing more is."""
        todo, before = sorted({each.provider_id for each in moves}, reverse=True), -1
        while len(todo) != before:
            before = len(todo)
            todo = [one for one in todo if not self._group([each for each in moves if each.provider_id == one])]

    def _group(self, moves: Sequence[Move]) -> bool:
        """The moves of one provider are put back together, or what is left of them is; whether that is settled."""
        left = {each.move_id: reason for each in moves if (reason := self._why_not(each))}
        able = [each for each in moves if each.undone_at is None and each.move_id not in left]
        hurt = self._try(able) if able else []
        reason = f"what answers for {', '.join(hurt)} would change"
        self.left |= left | {each.move_id: reason for each in able if hurt}
        if not hurt:
            for each in able:
                self.left.pop(each.move_id, None)
        return not hurt

    def _try(self, able: Sequence[Move]) -> list[str]:
        """Put back what these moved, unless it would change what answers: for whom."""
        provider_id, name = able[0].provider_id, self.rows[able[0].from_id].setting_key
        back = {each.from_id for each in able if each.from_id in self.asleep} - set(self.awake)
        gone = {each.to_id for each in able}
        fresh = [one for one in self.held if one.credential_id in back]
        then = replaced(self.current, fresh, lambda one: one.credential_id in gone)
        after = self.at.proposer.keyring(then)
        hurt = changed_for(self.at.proposer.keyring(self.current), after, provider_id)
        found = after.resolutions.get(provider_id)
        if not hurt and isinstance(found, Found) and found.setting_key != name:
            hurt = [provider_id]
        if not hurt:
            self.current = then
            self.undone += able
            self.awake += sorted(back)
        return hurt

    def _why_not(self, move: Move) -> str | None:
        if move.undone_at is not None:
            return None
        new, old = self.rows.get(move.to_id), self.rows.get(move.from_id)
        if new is None or new.state != "active" or new.updated_at != move.moved_at:
            return CHANGED
        if old is None or not (old.state == "active" or move.from_id in self.asleep):
            return FORMER_GONE
        if move.from_id in self.asleep and self._is_taken(old):
            return FORMER_TAKEN
        content = self.at.open(self.by_id.get(move.to_id))
        if content is None:
            return DAMAGED
        return None if content == self.at.open(self.by_id.get(move.from_id)) else DAMAGED

    def _is_taken(self, old: Row[Any]) -> bool:
        """Whether another active key has the old name and label."""
        place = (Store.CREDENTIALS, old.setting_key, old.label)
        return any(
            (one.store, one.setting_key, one.label) == place
            and one.grace_until is None
            and one.credential_id != old.credential_id
            for one in self.current
        )

    def step(self, move: Move, reason: str) -> UndoStep:
        """What became of a move: it was left for this reason, if there is one."""
        new, old = self.rows.get(move.to_id), self.rows.get(move.from_id)
        outcome = UndoOutcome.LEFT if reason else UndoOutcome.UNDONE
        return UndoStep(
            self.tenant.slug,
            move.provider_id,
            old.setting_key if old else "",
            new.setting_key if new else "",
            move.label,
            UndoOutcome.ALREADY if move.undone_at is not None else outcome,
            reason,
        )


async def _rows_of(connection: AsyncConnection, tenant: Tenant, moves: Sequence[Move]) -> dict[str, Row[Any]]:
    ids = {one for each in moves for one in (each.from_id, each.to_id)}
    mine = select(credentials).where(credentials.c.tenant_id == tenant.id, credentials.c.credential_id.in_(ids))
    return {row.credential_id: row for row in await connection.execute(mine)}


def _is_asleep(row: Row[Any] | None) -> bool:
    """Superseded by a move, and by nobody else since: whoever replaces a key gives it a time of grace."""
    return row is not None and row.state == "superseded" and row.grace_until is None
