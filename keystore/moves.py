"""Keys under old names, stored again under the canonical ones, and back.

Owns the writing: each tenant is one transaction that holds its row, reads what it holds, decides (keystore.canonical),
seals the same content anew for its new place, and looks at the result before it commits. A process that is killed has
done a tenant wholly or not at all, so running it again finishes. Must not know why a name is old.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.canonical import Line, Outcome, Proposal, Proposer, same_answers
from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.engine import Database
from keystore.errors import EnvelopeDamaged, MoveUnknown
from keystore.holdings import Holding, HoldingReader
from keystore.move_journal import Batch, Move, list_batches, note_moves, tenants_of
from keystore.move_undo import Undoing, UndoOutcome, UndoStep
from keystore.providers import no_provider
from keystore.sealing import Opened, Place
from keystore.sealing_check import Progress, no_progress
from keystore.tables import credentials
from keystore.tenantkeys import Sealed, TenantKeys
from keystore.tenants import Tenant, TenantStore, hold_tenant

SOURCE: Final = "moved"  # credentials.source of what was stored again
FAILED: Final = "what answers changed meanwhile, or did not open as it was; nothing was moved, try again"
_PAUSE_AFTER: Final = 50  # tenants that were changed: others may write meanwhile


@dataclass(frozen=True, slots=True)
class Step:
    """One stored key of one tenant, and what becomes of it. `reason` says why it is left or copied, or is ""."""

    tenant: str
    provider_id: str
    from_name: str
    to_name: str
    label: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What was done. `batch` is what `undo` takes; None when nothing was moved."""

    batch: str | None
    steps: tuple[Step, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many keys had each outcome."""
        found = Counter(step.outcome for step in self.steps)
        return {outcome.value: found[outcome] for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What became of each move of a batch."""

    batch: str
    steps: tuple[UndoStep, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many moves had each outcome."""
        found = Counter(step.outcome for step in self.steps)
        return {outcome.value: found[outcome] for outcome in UndoOutcome}


class Moves:
    """Every tenant in turn. DatabaseUnavailable when the database fails."""

    def __init__(
        self,
        database: Database,
        keys: TenantKeys,
        reader: HoldingReader,
        tenants: TenantStore,
        proposer: Proposer,
        *,
        now: Clock,
        random: Random,
    ) -> None:
        self._database = database
        self._keys = keys
        self._reader = reader
        self._tenants = tenants
        self._proposer = proposer
        self._undoing = Undoing(keys, reader, proposer)
        self._now = now
        self._random = random

    async def plan(
        self, tenant: Tenant | None = None, provider_id: str | None = None, progress: Progress = no_progress
    ) -> list[Step]:
        """What `canonicalise` would do, for one tenant or all. RegistryError for an unknown provider."""
        self._check(provider_id)
        steps, chosen = list[Step](), await self._chosen(tenant)
        for done, one in enumerate(chosen, start=1):
            steps += _steps(one, await self._propose(one, provider_id))
            progress(done, len(chosen))
        return steps

    async def canonicalise(
        self, tenant: Tenant | None = None, provider_id: str | None = None, progress: Progress = no_progress
    ) -> MoveReport:
        """Store every key that is found under an old name again under its provider's canonical name, for one tenant or
        all. Errors as `plan`. Whatever is done already stays done."""
        self._check(provider_id)
        batch, changed = self._new_id(), 0
        steps, chosen = list[Step](), await self._chosen(tenant)
        for done, one in enumerate(chosen, start=1):
            proposals = await self._one(one, provider_id, batch)
            steps += _steps(one, proposals)
            if any(proposal.taken for proposal in proposals):
                changed += 1
                if changed % _PAUSE_AFTER == 0:
                    await self._database.let_others_write()
            progress(done, len(chosen))
        return MoveReport(batch if changed else None, tuple(steps))

    async def undo(self, batch: str, progress: Progress = no_progress) -> UndoReport:
        """Put back what a batch moved, where it was not changed since. MoveUnknown when there is no such batch."""
        async with self._database.read() as connection:
            chosen = await tenants_of(connection, batch) if batch.isprintable() else []
        if not chosen:
            raise MoveUnknown(f"no keys were moved in a batch {batch!r}; `wardgate key undo` lists the batches")
        steps = list[UndoStep]()
        for done, tenant in enumerate(chosen, start=1):
            steps += await self._undo_one(tenant, batch)
            if done % _PAUSE_AFTER == 0:
                await self._database.let_others_write()
            progress(done, len(chosen))
        return UndoReport(batch, tuple(steps))

    async def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        async with self._database.read() as connection:
            return await list_batches(connection)

    # --- one tenant

    async def _chosen(self, tenant: Tenant | None) -> list[Tenant]:
        return await self._tenants.list() if tenant is None else [tenant]

    async def _propose(self, tenant: Tenant, provider_id: str | None) -> list[Proposal]:
        return self._proposer.propose(await self._reader.read(tenant, grace_at=self._now()), provider_id)[0]

    async def _one(self, tenant: Tenant, provider_id: str | None, batch: str) -> list[Proposal]:
        proposals = await self._propose(tenant, provider_id)
        if not any(proposal.taken for proposal in proposals):
            return proposals
        try:
            async with self._database.write() as connection:
                await hold_tenant(connection, tenant)
                return await self._move(connection, tenant, provider_id, batch)
        except EnvelopeDamaged as error:
            return [proposal.left(str(error)) for proposal in proposals]

    async def _undo_one(self, tenant: Tenant, batch: str) -> list[UndoStep]:
        try:
            async with self._database.write() as connection:
                await hold_tenant(connection, tenant)
                return await self._undoing.tenant(connection, tenant, batch, self._now())
        except EnvelopeDamaged as error:
            async with self._database.read() as connection:
                return await self._undoing.none(connection, tenant, batch, str(error))

    async def _move(
        self, connection: AsyncConnection, tenant: Tenant, provider_id: str | None, batch: str
    ) -> list[Proposal]:
        """Decide anew on what is there now, and do it."""
        now = self._now()
        held = await self._reader.read_on(connection, tenant, grace_at=now)
        proposals, then = self._proposer.propose(held, provider_id)
        made = dict[str, Opened]()
        moves = list[Move]()
        for proposal in proposals:
            for line in proposal.taken:
                move, content = await self._store(connection, tenant, proposal, line, now)
                moves.append(move)
                made[move.to_id] = content
        if not moves:
            return proposals
        await self._supersede(connection, tenant, proposals, now)
        await note_moves(connection, batch, tenant.id, moves)
        real = await self._reader.read_on(connection, tenant, grace_at=now)
        self._look(real, made, then)
        await note_change(connection, Changed.TENANT, tenant.id, now=now)
        return proposals

    async def _store(
        self, connection: AsyncConnection, tenant: Tenant, proposal: Proposal, line: Line, now: datetime
    ) -> tuple[Move, Opened]:
        """A new version under the canonical name, sealed for its new place with the very same content."""
        old, place = line.holding, Place(tenant.id, self._new_id(), proposal.to_name)
        content = self._open(old)
        row: dict[str, Any] = {
            "credential_id": place.credential_id,
            "tenant_id": tenant.id,
            "setting_key": place.setting_key,
            "provider_id": proposal.provider_id,
            "label": old.label,
            "version": await self._last(connection, place, old.label) + 1,
            "state": "active",
            "envelope": await self._keys.seal(connection, content, place),
            "hint": old.hint,
            "fingerprint": old.fingerprint,
            "source": SOURCE,
            "weight": old.weight,
            "position": old.position,
            "created_at": old.created_at,
            "updated_at": now,
        }
        await connection.execute(insert(credentials).values(**row))
        from_id = str(old.credential_id)
        move = Move(self._new_id(), proposal.provider_id, old.label, from_id, place.credential_id, now, None)
        return move, content

    async def _last(self, connection: AsyncConnection, place: Place, label: str) -> int:
        """The newest version that ever was under this name and label, or 0."""
        newest = select(func.max(credentials.c.version)).where(
            credentials.c.tenant_id == place.tenant_id,
            credentials.c.setting_key == place.setting_key,
            credentials.c.label == label,
        )
        return (await connection.execute(newest)).scalar_one() or 0

    async def _supersede(
        self, connection: AsyncConnection, tenant: Tenant, proposals: Sequence[Proposal], now: datetime
    ) -> None:
        """The old rows that nobody needs: kept, without a time of grace, so that the move can be undone."""
        lines = [line for proposal in proposals for line in proposal.taken if line.outcome is Outcome.MOVED]
        mine = credentials.c.tenant_id == tenant.id
        ids = credentials.c.credential_id.in_([str(line.holding.credential_id) for line in lines])
        ended = update(credentials).where(mine, ids).values(state="superseded", grace_until=null(), updated_at=now)
        await connection.execute(ended)

    def _look(self, real: Sequence[Holding], made: dict[str, Opened], then: Sequence[Holding]) -> None:
        """Each new row was read back and opens to the same content, and everybody is answered as was foreseen.
        EnvelopeDamaged, which undoes all, when not."""
        opened = {one.credential_id: self._open(one) for one in real if one.credential_id in made}
        keyring = self._proposer.keyring
        if opened != made or not same_answers(keyring(real), keyring(then)):
            raise EnvelopeDamaged(FAILED)

    def _open(self, holding: Holding) -> Opened:
        if not isinstance(holding.value, Sealed):
            raise EnvelopeDamaged
        return self._keys.open(holding.value)

    def _new_id(self) -> str:
        return str(uuid.UUID(bytes=self._random(16), version=4))

    def _check(self, provider_id: str | None) -> None:
        registry = self._proposer.registry
        if provider_id is None or registry.get(provider_id) is not None:
            return
        raise no_provider(provider_id, registry)


def _steps(tenant: Tenant, proposals: Sequence[Proposal]) -> list[Step]:
    return [
        Step(
            tenant.slug,
            proposal.provider_id,
            proposal.from_name,
            proposal.to_name,
            line.holding.label,
            line.outcome,
            line.reason,
        )
        for proposal in proposals
        for line in proposal.lines
    ]
