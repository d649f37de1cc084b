"""The decisions that were made for requests, kept for a while: one row for each request id of ours.

Owns the statements on `decisions`, how a document is compressed, and when a row is too old. A document is JSON that
others make; it holds no secret and nothing of a prompt. Must not know what is in it, nor HTTP.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import DecisionUnknown
from keystore.old_rows import delete_old
from keystore.seldom import Seldom
from keystore.tables import decisions

_ID: Final = re.compile(r"req_[0-9a-f]{32}\Z")
_LEVEL: Final = 1  # zlib's fastest: a tenth larger than its default, five times as fast
_BATCH: Final = 500
_DELETED: Final = 1_000  # rows of one transaction
_EVERY: Final = timedelta(seconds=10)
_COUNTED: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long decisions are kept, and how many at most; nothing for zero."""

    kept: timedelta = timedelta(hours=24)
    most: int = 1_000_000

    @property
    def on(self) -> bool:
        return self.kept > timedelta(0)


A_DAY: Final = Keeping()


@dataclass(frozen=True, slots=True)
class KeptDecision:
    """One request's: `pieces` are JSON together; one that several records of a batch share is compressed once.
    `created_at` is when the request came."""

    request_id: str
    tenant_id: str
    created_at: datetime
    pieces: tuple[bytes, ...]

    @property
    def document(self) -> bytes:
        """The JSON."""
        return b"".join(self.pieces)

    @property
    def size(self) -> int:
        """Bytes of the JSON."""
        return sum(map(len, self.pieces))


class DecisionStore:
    """Each batch is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, keeping: Keeping, *, now: Clock) -> None:
        self._database = database
        self._now = now
        self._expiring = Seldom(_EVERY)
        self._counted_at: datetime | None = None
        self._beyond = datetime.min.replace(tzinfo=UTC)  # all rows up to here are more than the most
        self.keeping = keeping

    async def write(self, batch: Sequence[KeptDecision]) -> None:
        """Keep these. One that is kept already stays as it is."""
        insert = (sqlite if self._database.is_sqlite else postgresql).insert(decisions).on_conflict_do_nothing()
        packed: dict[bytes, bytes] = {}
        for start in range(0, len(batch), _BATCH):
            async with self._database.write(told=False) as connection:
                await connection.execute(insert, [_row(one, packed) for one in batch[start : start + _BATCH]])

    async def get(self, request_id: str, *, tenant_id: str | None = None) -> KeptDecision:
        """What is kept of a request, of this tenant alone when one is given. DecisionUnknown when there is nothing, or
        not any more; it says how long decisions are kept."""
        row = None
        if _ID.match(request_id) and self.keeping.on:
            wanted = select(decisions).where(decisions.c.request_id == request_id)
            wanted = wanted.where(decisions.c.created_at > self._now() - self.keeping.kept)
            if tenant_id is not None:
                wanted = wanted.where(decisions.c.tenant_id == tenant_id)
            async with self._database.read() as connection:
                row = (await connection.execute(wanted)).first()
        if row is None:
            raise DecisionUnknown(self._unknown())
        return KeptDecision(row.request_id, row.tenant_id, row.created_at, (_unpacked(row.document),))

    def _unknown(self) -> str:
        if not self.keeping.on:
            return "this gateway keeps no decisions ([limits] decisions_kept_h is 0)"
        hours = self.keeping.kept / timedelta(hours=1)
        return (
            "no decision is kept under this request id (x-wardgate-request-id of the answer). One is kept for"
            f" {hours:g} hours, for each request that came as far as a decision, from about a second after its end;"
            " when more end than can be written, some are not kept"
        )

    async def expire(self) -> int:
        """Delete what is too old or too much, some thousands at a time, every ten seconds; how many."""
        now = self._now()
        if not self._expiring.is_due(now):
            return 0
        old = decisions.c.created_at <= max(now - self.keeping.kept, await self._too_many(now))
        deleted, more = await delete_old(self._database, decisions, old, _DELETED, by=decisions.c.created_at)
        self._expiring.done(now, more=more)
        return deleted

    async def _too_many(self, now: datetime) -> datetime:
        """The time of the newest row of those beyond the most, looked for once a minute."""
        if self._counted_at is None or now - self._counted_at >= _COUNTED:
            newest = select(decisions.c.created_at).order_by(decisions.c.created_at.desc())
            async with self._database.read() as connection:
                found: datetime | None = (await connection.execute(newest.offset(self.keeping.most).limit(1))).scalar()
            self._counted_at, self._beyond = now, found or self._beyond
        return self._beyond


def _row(one: KeptDecision, packed: dict[bytes, bytes]) -> dict[str, object]:
    """`packed` remembers the last pieces of this batch, compressed."""
    *own, shared = one.pieces
    if shared not in packed:
        packed[shared] = zlib.compress(shared, _LEVEL)
    return {
        "request_id": one.request_id,
        "tenant_id": one.tenant_id,
        "created_at": one.created_at,
        "document": b"".join((*(zlib.compress(piece, _LEVEL) for piece in own), packed[shared])),
    }


def _unpacked(stored: bytes) -> bytes:
    """Compressed pieces, one behind the other."""
    pieces = []
    while stored:
        one = zlib.decompressobj()
        pieces.append(one.decompress(stored))
        if not one.eof:
            raise zlib.error("a kept decision ends too early")
        stored = one.unused_data
    return b"".join(pieces)
