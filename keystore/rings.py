"""The ring and the database, brought together once at start.

Owns the statements on `root_keys`, and the rule that a ring file is made only for a database that never sealed
anything. Must not know the cipher.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import exists, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock, Random
from keystore.engine import Database, Lock, make_parent
from keystore.errors import RingMissing, SealingError
from keystore.rootkeys import (
    KeyState,
    KnownKey,
    Memory,
    RootKeys,
    SealingSource,
    check_ring,
    create_ring,
    lacking_from,
    load_ring,
)
from keystore.sealing import check_value
from keystore.tables import credentials, root_keys, tenant_keys

_ASK_AGAIN_S: Final = 60.0
_ASK_SOON_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class OpenRing:
    """A ring that was found to be this database's own, and the id of the key that wraps new tenant keys."""

    keys: RootKeys
    active: str
    lacking: tuple[str, ...] = ()  # in use and not here: what they wrap does not open


class LiveRing:
    """The ring of a process that goes on running: read again when its file or the database says something new."""

    def __init__(
        self,
        database: Database,
        source: SealingSource,
        opened: OpenRing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._opened = opened
        self._clock = clock
        self._asked_at = clock()
        self.source = source

    @property
    def current(self) -> OpenRing:
        """The ring as it was last read."""
        return self._opened

    def read(self) -> RootKeys:
        """The root keys where they come from. A SealingError when they cannot be read."""
        self._asked_at = self._clock()
        ring = load_ring(self.source)
        if ring is None:
            raise RingMissing(f"there is no sealing key file {self.source.path}")
        self._opened = OpenRing(ring, self._opened.active)
        return ring

    async def refresh(self) -> None:
        """Read both again. A SealingError leaves the ring as it was."""
        async with self._database.read() as connection:
            memory = await _remember(connection)
        self._opened = OpenRing(check_ring(await self._anew(memory), memory, self.source), _active(memory))

    async def _anew(self, memory: Memory) -> RootKeys:
        """The ring as it is now. A key service is asked once a minute, and within ten seconds when the database knows a
        key that is not here."""
        if self.source.service is None:
            return self.read()
        lacking = {known.kek_id for known in memory.keys} - set(self._opened.keys.ids)
        if self._clock() - self._asked_at < (_ASK_SOON_S if lacking else _ASK_AGAIN_S):
            return self._opened.keys
        return await asyncio.to_thread(self.read)

    def find(self, kek_id: str) -> bytes:
        """A root key; one that is not known here is looked for once more in the file, since another process may have
        begun to use it. RingMissing when it is not there."""
        if kek_id not in self._opened.keys.ids and self.source.service is None:
            self.read()
        return self._opened.keys.get(kek_id)


async def active_root_key(connection: AsyncConnection) -> str:
    """The id of the root key that wraps new keys, as the database knows it now; until the transaction ends no other
    takes its place, so nothing is wrapped by a key that was retired meanwhile."""
    active = select(root_keys.c.kek_id).where(root_keys.c.state == KeyState.ACTIVE.value)
    kek_id: str = (await connection.execute(active.with_for_update(read=True))).scalar_one()
    return kek_id


async def open_ring(
    database: Database, source: SealingSource, *, create: bool, now: Clock, random: Random, partial: bool = False
) -> OpenRing:
    """The ring that `source` names, checked against the database; on a database that never sealed anything its keys are
    noted, and a missing file is made when `create`; with `partial` it may lack keys that are in use. Raises a
    SealingError; then nothing was written."""
    async with database.read() as connection:
        memory = await _remember(connection)
    if memory.blank:
        return await _begin(database, source, create=create, now=now, random=random)
    ring = check_ring(load_ring(source), memory, source, partial=partial)
    return OpenRing(ring, _active(memory), lacking_from(ring, memory))


async def _begin(database: Database, source: SealingSource, *, create: bool, now: Clock, random: Random) -> OpenRing:
    """Note the ring's keys, alone; whoever comes second finds them noted and is checked against them."""
    async with database.write(lock=Lock.ROOT_KEYS) as connection:
        memory = await _remember(connection)
        ring = load_ring(source)
        if not memory.blank:
            return OpenRing(check_ring(ring, memory, source), _active(memory))
        ring = ring or _make(source, create=create, now=now, random=random)
        await connection.execute(insert(root_keys), _rows(ring, now()))
    return OpenRing(ring, ring.newest)


def _make(source: SealingSource, *, create: bool, now: Clock, random: Random) -> RootKeys:
    if not create:
        raise RingMissing(f"there is no sealing key file {source.path}; `wardgate migrate` makes it")
    make_parent(source.path, what=f"the sealing key file {source.path}", error=SealingError)
    return create_ring(source.path, now=now(), random=random)


def _rows(ring: RootKeys, now: datetime) -> list[dict[str, object]]:
    return [
        {
            "kek_id": kek_id,
            "state": (KeyState.ACTIVE if kek_id == ring.newest else KeyState.DECRYPT).value,
            "kcv": check_value(ring.get(kek_id)),
            "created_at": now,
        }
        for kek_id in ring.ids
    ]


async def _remember(connection: AsyncConnection) -> Memory:
    rows = await connection.execute(select(root_keys.c.kek_id, root_keys.c.state, root_keys.c.kcv))
    known = [KnownKey(kek_id, KeyState(state), bytes(kcv)) for kek_id, state, kcv in rows]
    sealed = await connection.execute(
        select(or_(exists(select(tenant_keys.c.dek_id)), exists(select(credentials.c.credential_id))))
    )
    return Memory(known, bool(sealed.scalar_one()))


def _active(memory: Memory) -> str:
    return next(known.kek_id for known in memory.keys if known.state is KeyState.ACTIVE)
