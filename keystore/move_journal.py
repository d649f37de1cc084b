"""What was moved: the statements on `moves`. Each row links a key under its old name to the same under the canonical.

Owns the journal and the question which old rows hang on a key that is removed. Must not know what is inside an envelope
or when a key may be moved.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.tables import credentials, moves, tenants
from keystore.tenants import Tenant, tenant_from_row

_CHUNK: Final = 500  # ids in one IN (...)


@dataclass(frozen=True, slots=True)
class Batch:
    """One run of `key canonicalise` that changed something."""

    batch: str
    moved_at: datetime
    tenants: int
    moves: int
    undone: int


@dataclass(frozen=True, slots=True)
class Move:
    """One key that was stored again. `from_id` and `to_id` are rows of credentials."""

    move_id: str
    provider_id: str
    label: str
    from_id: str
    to_id: str
    moved_at: datetime
    undone_at: datetime | None


async def list_batches(connection: AsyncConnection) -> list[Batch]:
    """Every batch, the newest first."""
    counted = select(
        moves.c.batch,
        func.min(moves.c.moved_at).label("moved_at"),
        func.count(moves.c.tenant_id.distinct()).label("tenants"),
        func.count().label("moves"),
        func.count(moves.c.undone_at).label("undone"),
    ).group_by(moves.c.batch)
    rows = await connection.execute(counted.order_by(func.min(moves.c.moved_at).desc(), moves.c.batch))
    return [Batch(row.batch, row.moved_at, row.tenants, row.moves, row.undone) for row in rows]


async def tenants_of(connection: AsyncConnection, batch: str) -> list[Tenant]:
    """The tenants whose keys a batch moved, by slug."""
    touched = select(moves.c.tenant_id).where(moves.c.batch == batch)
    rows = await connection.execute(select(tenants).where(tenants.c.id.in_(touched)).order_by(tenants.c.slug))
    return [tenant_from_row(row) for row in rows]


async def moves_of(connection: AsyncConnection, batch: str, tenant_id: str) -> list[Move]:
    """What a batch moved of one tenant."""
    mine = select(moves).where(moves.c.batch == batch, moves.c.tenant_id == tenant_id)
    return [_move(row) for row in await connection.execute(mine.order_by(moves.c.provider_id, moves.c.label))]


async def note_moves(connection: AsyncConnection, batch: str, tenant_id: str, made: Sequence[Move]) -> None:
    """Write down what was moved."""
    rows = [
        {
            "move_id": one.move_id,
            "batch": batch,
            "tenant_id": tenant_id,
            "provider_id": one.provider_id,
            "label": one.label,
            "from_id": one.from_id,
            "to_id": one.to_id,
            "moved_at": one.moved_at,
        }
        for one in made
    ]
    await connection.execute(insert(moves), rows)


async def note_undone(connection: AsyncConnection, move_ids: Collection[str], now: datetime) -> None:
    """Write down that these were undone."""
    await connection.execute(update(moves).where(moves.c.move_id.in_(move_ids)).values(undone_at=now))


async def moved_from(connection: AsyncConnection, tenant_id: str, credential_ids: Collection[str]) -> list[str]:
    """The superseded rows under old names that are kept only so that the move to one of these keys can be undone, and
    the versions before them: when the keys are destroyed, these are to be destroyed too. A row that also stands behind
    another active key stays."""
    mine = select(moves.c.from_id, moves.c.to_id).where(moves.c.tenant_id == tenant_id, moves.c.undone_at.is_(null()))
    links = [(row.from_id, row.to_id) for row in await connection.execute(mine)]
    if not links:
        return []
    states = await _states(connection, {one for link in links for one in link})
    gone, before = set(credential_ids), -1
    while before != len(gone):
        before = len(gone)
        needed = {from_id for from_id, to_id in links if to_id not in gone and states.get(to_id) == "active"}
        gone |= {
            from_id
            for from_id, to_id in links
            if to_id in gone and from_id not in needed and states.get(from_id) == "superseded"
        }
    return await _with_earlier(connection, tenant_id, sorted(gone - set(credential_ids)))


async def _with_earlier(connection: AsyncConnection, tenant_id: str, credential_ids: list[str]) -> list[str]:
    """These rows and what they superseded, which was left behind in its grace when they were moved."""
    newer, older, found = credentials.alias(), credentials.alias(), list(credential_ids)
    same = (newer.c.setting_key == older.c.setting_key) & (newer.c.label == older.c.label)
    earlier = select(older.c.credential_id).where(
        newer.c.tenant_id == tenant_id,
        older.c.tenant_id == tenant_id,
        same,
        older.c.version < newer.c.version,
        older.c.state == "superseded",
    )
    for start in range(0, len(credential_ids), _CHUNK):
        chunk = newer.c.credential_id.in_(credential_ids[start : start + _CHUNK])
        found += (await connection.execute(earlier.where(chunk))).scalars()
    return sorted(set(found))


async def _states(connection: AsyncConnection, ids: Collection[str]) -> dict[str, str]:
    states: dict[str, str] = {}
    wanted = sorted(ids)
    for start in range(0, len(wanted), _CHUNK):
        chunk = credentials.c.credential_id.in_(wanted[start : start + _CHUNK])
        rows = await connection.execute(select(credentials.c.credential_id, credentials.c.state).where(chunk))
        states |= {row.credential_id: row.state for row in rows}
    return states


def _move(row: Row[Any]) -> Move:
    return Move(row.move_id, row.provider_id, row.label, row.from_id, row.to_id, row.moved_at, row.undone_at)
