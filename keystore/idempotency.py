"""Writes that named themselves: a request that comes twice is done once, and answered twice.

Owns the statements on `idempotency`. A request is kept as a MAC of what was asked, never as what was asked; its result
is JSON that holds no secret. Must not know HTTP.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import IdempotencyBusy, IdempotencyReused
from keystore.sealing import encode_fields
from keystore.servicekeys import Purpose, ServiceKeys
from keystore.tables import idempotency

KEPT: Final = timedelta(hours=24)
GIVEN_UP: Final = timedelta(minutes=2)  # a write that has not ended by then broke off, and may be begun again
_RUNNING: Final = 0  # the status of a write that has not ended


@dataclass(frozen=True, slots=True)
class Ticket:
    """The write is ours to do."""

    key_hash: bytes
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """The write was done; `result` is JSON."""

    status: int
    result: str


def hash_of_key(what: str, *scope_and_key: str) -> bytes:
    """What is kept of a key and of whose it is."""
    return hashlib.sha256(encode_fields(what, *scope_and_key)).digest()


def mac_of_request(service: ServiceKeys, what: str, *request: str, body: bytes = b"") -> bytes:
    """What is kept of a request; `what` says how many fields there are, so that `body` is no part of any."""
    key = service.get(Purpose.FINGERPRINT).key
    mac = hmac.new(key, encode_fields(what, *request), hashlib.sha256)
    mac.update(body)
    return mac.digest()


class IdempotencyStore:
    """Each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, service: ServiceKeys, *, now: Clock) -> None:
        self._database = database
        self._service = service
        self._now = now

    async def begin(self, scope: Sequence[str], key: str, request: Sequence[str]) -> Ticket | Stored:
        """A ticket for the first who comes with this key; what was stored for whoever comes later. `scope` is whose key
        it is, `request` all that was asked. IdempotencyReused for another request, IdempotencyBusy while the first has
        not ended. What is older than a day is forgotten."""
        now = self._now()
        key_hash = hash_of_key("wg/idempotency/key/1", *scope, key)
        mac = mac_of_request(self._service, "wg/idempotency/request/1", *request)
        async with self._database.write() as connection:
            await connection.execute(delete(idempotency).where(idempotency.c.created_at <= now - KEPT))
            if await self._first(connection, key_hash, mac, now):
                return Ticket(key_hash, now)
            same = idempotency.c.key_hash == key_hash
            row = (await connection.execute(select(idempotency).where(same).with_for_update())).first()
            if row is None:
                raise IdempotencyBusy  # it was given up this moment
            return await self._again(connection, row, mac, now)

    async def _first(self, connection: AsyncConnection, key_hash: bytes, mac: bytes, now: datetime) -> bool:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(idempotency)
        row = {"key_hash": key_hash, "request_mac": mac, "status": _RUNNING, "result": "", "created_at": now}
        done = await connection.execute(insert.values(**row).on_conflict_do_nothing())
        return bool(done.rowcount)

    async def _again(self, connection: AsyncConnection, row: Row[Any], mac: bytes, now: datetime) -> Ticket | Stored:
        if not hmac.compare_digest(bytes(row.request_mac), mac):
            raise IdempotencyReused
        if row.status != _RUNNING:
            return Stored(row.status, row.result)
        if row.created_at > now - GIVEN_UP:
            raise IdempotencyBusy
        await connection.execute(update(idempotency).where(_of(row.key_hash, row.created_at)).values(created_at=now))
        return Ticket(bytes(row.key_hash), now)

    async def finish(self, ticket: Ticket, status: int, result: str) -> None:
        """Keep the result. `result` must hold no secret."""
        mine = _of(ticket.key_hash, ticket.begun_at)
        async with self._database.write() as connection:
            await connection.execute(update(idempotency).where(mine).values(status=status, result=result))

    async def forget(self, ticket: Ticket) -> None:
        """Nothing was done: the key may be used again."""
        async with self._database.write() as connection:
            await connection.execute(delete(idempotency).where(_of(ticket.key_hash, ticket.begun_at)))


def _of(key_hash: bytes, begun_at: datetime) -> Any:
    running = idempotency.c.status == _RUNNING
    return (idempotency.c.key_hash == key_hash) & (idempotency.c.created_at == begun_at) & running
