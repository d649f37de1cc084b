"""Answers to requests that named themselves: a request that comes twice is asked once, and answered twice.

Owns the statements on `answers`: who may ask, until when nobody else may, and what came of it. A request is kept as a
MAC, its key as a hash, its answer sealed with the tenant's data key; an answer that does not open is as if it were not
there. Must not know HTTP, nor which outcomes are worth keeping.
"""

import asyncio
import hmac
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Row, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.answer_room import MOST_KEPT, ROW_BYTES, Rooms
from keystore.answer_seal import Answer, Spot, dek_id_of_answer, open_answer, pack, seal_answer, unpack
from keystore.clock import Clock, Random
from keystore.engine import Database
from keystore.errors import EnvelopeDamaged, IdempotencyReused, SealingError
from keystore.idempotency import KEPT, hash_of_key, mac_of_request
from keystore.money_tables import answers
from keystore.old_rows import delete_old
from keystore.sealing import NONCE_BYTES, WrappedKey
from keystore.seldom import Seldom
from keystore.servicekeys import ServiceKeys
from keystore.tenantkeys import TenantKeys
from keystore.tenants import Tenant

__all__ = ["LEASE", "Answer", "AnswerStore", "Asked", "Claim", "Running", "Stored", "Unreadable"]

Result = TypeVar("Result")
LEASE: Final = timedelta(seconds=15)  # after which a process that says nothing any more is taken for dead
_RUNNING: Final = 0  # the status of a request that was not answered yet
_LARGE: Final = 64 * 1024  # bytes from which on an answer is packed and opened in a thread
_DELETED: Final = 200  # rows of one transaction: some of them are large
_RENEWED: Final = 500  # rows of one statement
_EVERY: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it is known here: neither its key nor its body."""

    tenant: Tenant
    key_hash: bytes
    request_mac: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The request is ours to ask. `request_id` tells this claim from any other on the same key."""

    asked: Asked
    request_id: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The request was answered; `request_id` is of the first."""

    request_id: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The request was answered, and the answer does not open any more."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Running:
    """Somebody asks now."""


Found = Stored | Unreadable | Running


@dataclass(frozen=True, slots=True)
class _Kept:
    """A row, and the data key that it names."""

    row: Row[Any] = field(repr=False)
    key: WrappedKey | None = None


class AnswerStore:
    """Each method is at most one transaction. DatabaseUnavailable when the database fails. Clocks of replicas may
    differ by less than two thirds of `lease`."""

    def __init__(
        self,
        database: Database,
        keys: TenantKeys,
        service: ServiceKeys,
        *,
        now: Clock,
        random: Random,
        lease: timedelta = LEASE,
        most_bytes: int = MOST_KEPT,
    ) -> None:
        """`most_bytes` is what the kept answers of one tenant may take."""
        self._database = database
        self._keys = keys
        self._service = service
        self._now = now
        self._random = random
        self._me = str(uuid.uuid4())
        self._live: dict[bytes, str] = {}  # of the claims that are held here: the request's id by its key's hash
        self._rooms = Rooms(most_bytes)
        self._expiring = Seldom(_EVERY)
        self.lease = lease

    async def named(self, tenant: Tenant, endpoint: str, key: str, body: bytes, models: Collection[str] = ()) -> Asked:
        """The request under its name; the same for the same body, byte for byte. Tokens that list the same `models`
        have names of their own: what one token may not ask, it is not answered either. No I/O. A SealingError when the
        key of the MACs is not here."""
        key_hash = hash_of_key("wg/answer/key/1", tenant.id, endpoint, key, *sorted(set(models)))
        what = "wg/answer/request/1"
        mac = await _near(lambda: mac_of_request(self._service, what, tenant.id, body=body), size=len(body))
        return Asked(tenant, key_hash, mac)

    # --- who asks ----------------------------------------------------------------------------------------------------

    async def claim(self, asked: Asked, request_id: str, *, instead_of: str = "") -> Claim | Found:
        """A claim for exactly one of all who come with this key: nobody did in the last day, or whoever asked is dead,
        or the answer of the request `instead_of` does not open. Else what is there. IdempotencyReused for another
        request under the key."""
        if asked.key_hash in self._live:
            return Running()  # here, and not noted in the database perhaps
        claim, claimed, kept = Claim(asked, request_id), False, None
        self._live[asked.key_hash] = request_id
        try:
            async with self._database.write() as connection:
                claimed = bool((await connection.execute(self._claiming(asked, request_id, instead_of))).rowcount)
                if not claimed:
                    kept = await self._kept(connection, asked)
        finally:
            if not claimed:
                self._give_up(claim)
        if claimed:
            return claim
        return Running() if kept is None else await self._found(asked, kept)  # None: it was given up this moment

    def _claiming(self, asked: Asked, request_id: str, instead_of: str) -> Any:
        now = self._now()
        row = {
            "key_hash": asked.key_hash,
            "request_mac": asked.request_mac,
            "tenant_id": asked.tenant.id,
            "request_id": request_id,
            "holder": self._me,
            "until": now + self.lease,
            "status": _RUNNING,
            "envelope": None,
            "created_at": now,
            "bytes": None,
        }
        given_up = answers.c.holder == self._me  # by this very process, which could not say so
        left = and_(answers.c.status == _RUNNING, or_(answers.c.until <= now, given_up))
        lost = and_(answers.c.status != _RUNNING, answers.c.request_id == instead_of)
        free = and_(answers.c.request_mac == asked.request_mac, or_(left, lost))
        insert = (sqlite if self._database.is_sqlite else postgresql).insert(answers).values(**row)
        return insert.on_conflict_do_update(
            index_elements=[answers.c.key_hash], set_=row, where=or_(answers.c.created_at <= now - KEPT, free)
        )

    async def look(self, asked: Asked) -> Found | None:
        """What is there now; None when the request may be claimed. IdempotencyReused as for `claim`."""
        async with self._database.read() as connection:
            kept = await self._kept(connection, asked)
        now = self._now()
        if kept is None or kept.row.created_at <= now - KEPT:
            return None
        found = await self._found(asked, kept)
        return None if isinstance(found, Running) and kept.row.until <= now else found

    async def renew(self) -> None:
        """Say of every claim that is held here that its process lives."""
        now, held = self._now(), list(self._live)
        for start in range(0, len(held), _RENEWED):
            mine = answers.c.key_hash.in_(held[start : start + _RENEWED]) & (answers.c.holder == self._me)
            change = update(answers).where(mine, answers.c.status == _RUNNING).values(until=now + self.lease)
            async with self._database.write() as connection:
                await connection.execute(change)

    # --- what came of it ---------------------------------------------------------------------------------------------

    async def finish(self, claim: Claim, answer: Answer) -> bool:
        """Keep the answer for a day; False when it is too large for that or for what is left of its tenant's room, or
        somebody else has the claim by now. The claim is held no longer, whatever happens."""
        try:
            packed = await _near(lambda: pack(answer), size=len(answer.body))
            if packed is None or not await self._has_room(claim, len(packed) + ROW_BYTES):
                await self.forget(claim)
                return False
            spot = _spot(claim.asked, claim.request_id, answer.status)
            async with self._database.write() as connection:
                key = await self._keys.data_key(connection, claim.asked.tenant)
                nonce = self._random(NONCE_BYTES)
                sealed = seal_answer(key.dek, packed, spot, dek_id=key.dek_id, nonce=nonce)
                values = {"status": answer.status, "envelope": sealed, "bytes": len(packed) + ROW_BYTES}
                change = update(answers).where(_held(claim)).values(values)
                return bool((await connection.execute(change)).rowcount)
        finally:
            self._give_up(claim)

    async def _has_room(self, claim: Claim, size: int) -> bool:
        """Whether so many bytes may be kept, which are counted then."""
        tenant_id = claim.asked.tenant.id
        if self._rooms.must_look(tenant_id, self._now()):
            try:
                self._rooms.looked(tenant_id, await self._kept_bytes(tenant_id))
            except BaseException:
                self._rooms.failed(tenant_id)
                raise
        return self._rooms.take(tenant_id, size)

    async def _kept_bytes(self, tenant_id: str) -> int:
        """What the tenant's answers take, those that are old and still there included."""
        mine = (answers.c.tenant_id == tenant_id, answers.c.bytes.is_not(None))
        async with self._database.read() as connection:
            found = await connection.execute(select(func.coalesce(func.sum(answers.c.bytes), 0)).where(*mine))
            return int(found.scalar_one())

    async def forget(self, claim: Claim) -> None:
        """Nothing is kept: the next who comes asks again."""
        self._give_up(claim)
        async with self._database.write() as connection:
            await connection.execute(delete(answers).where(_held(claim)))

    def _give_up(self, claim: Claim) -> None:
        if self._live.get(claim.asked.key_hash) == claim.request_id:
            del self._live[claim.asked.key_hash]

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _kept(self, connection: AsyncConnection, asked: Asked) -> _Kept | None:
        same = answers.c.key_hash == asked.key_hash
        row = (await connection.execute(select(answers).where(same))).first()
        if row is None or row.envelope is None:
            return None if row is None else _Kept(row)
        try:
            dek_id = dek_id_of_answer(bytes(row.envelope))
        except EnvelopeDamaged:
            return _Kept(row)
        return _Kept(row, (await self._keys.all_of(connection, asked.tenant.id)).get(dek_id))

    async def _found(self, asked: Asked, kept: _Kept) -> Found:
        row = kept.row
        if not hmac.compare_digest(bytes(row.request_mac), asked.request_mac):
            raise IdempotencyReused
        if row.status == _RUNNING:
            return Running()
        try:
            return Stored(row.request_id, await self._opened(asked, kept))
        except (EnvelopeDamaged, SealingError):
            return Unreadable(row.request_id)

    async def _opened(self, asked: Asked, kept: _Kept) -> Answer:
        if kept.key is None or kept.row.envelope is None:
            raise EnvelopeDamaged
        sealed, row = bytes(kept.row.envelope), kept.row
        packed = open_answer(self._keys.open_key(kept.key), sealed, _spot(asked, row.request_id, row.status))
        return await _near(lambda: unpack(packed, row.status), size=len(packed))

    # --- old rows ----------------------------------------------------------------------------------------------------

    async def expire(self) -> int:
        """Delete what is older than a day, some thousands at a time, every ten seconds; how many."""
        now = self._now()
        if not self._expiring.is_due(now):
            return 0
        self._rooms.tidy(now)
        old = answers.c.created_at <= now - KEPT
        deleted, more = await delete_old(self._database, answers, old, _DELETED, by=answers.c.created_at)
        self._expiring.done(now, more=more)
        return deleted


def _held(claim: Claim) -> Any:
    same = (answers.c.key_hash == claim.asked.key_hash) & (answers.c.request_id == claim.request_id)
    return same & (answers.c.status == _RUNNING)


def _spot(asked: Asked, request_id: str, status: int) -> Spot:
    return Spot(asked.tenant.id, asked.key_hash, asked.request_mac, request_id, status)


async def _near(work: Callable[[], Result], *, size: int) -> Result:
    """`work` done here, or in a thread when there is much to do."""
    return work() if size < _LARGE else await asyncio.to_thread(work)
