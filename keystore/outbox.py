"""Alerts on their way to webhooks: written with what they tell, claimed by one process at a time, gone when delivered.

Owns the statements on `webhook_messages`. A message is written in the transaction that found what it tells, so that it
is there if and only if that is; a claim runs out by itself, so that a process that died holds none up, and a message
may be sent twice. Must not know HTTP, nor what a message tells.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import Row, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock
from keystore.engine import Database
from keystore.money_tables import webhook_messages, webhooks

CLAIM: Final = timedelta(seconds=60)  # after which whoever claimed a message is taken for dead


@dataclass(frozen=True, slots=True)
class Message:
    """What is told: its type, and facts that JSON can say, money as text."""

    type: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to one webhook, claimed for the `tries`th time."""

    message_id: str
    webhook_id: str
    body: str = field(repr=False)
    created_at: datetime
    tries: int


async def enqueue(connection: AsyncConnection, messages: Sequence[Message], *, now: datetime) -> None:
    """Write messages to every webhook that there is, in the caller's transaction."""
    found = (await connection.execute(select(webhooks.c.webhook_id).with_for_update(read=True))).scalars().all()
    rows = [row for each in messages for row in _rows(each, found, now)]
    if rows:
        await connection.execute(insert(webhook_messages), rows)


def _rows(message: Message, webhook_ids: Sequence[str], now: datetime) -> list[dict[str, object]]:
    message_id = f"msg_{uuid.uuid4().hex}"
    body = body_of(message, message_id, now)
    times = {"created_at": now, "due_at": now, "tries": 0}
    return [{"message_id": message_id, "webhook_id": each, "body": body} | times for each in webhook_ids]


def body_of(message: Message, message_id: str, now: datetime) -> str:
    """The message as it is sent."""
    stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return orjson.dumps({"id": message_id, "type": message.type, "timestamp": stamp, "data": message.facts}).decode()


class Outbox:
    """Each method is at most one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now

    async def due(self) -> list[str]:
        """The webhooks that something is due for. No transaction that writes, since SQLite has one writer."""
        wanted = select(webhook_messages.c.webhook_id).where(webhook_messages.c.due_at <= self._now()).distinct()
        async with self._database.read() as connection:
            return list((await connection.execute(wanted)).scalars())

    async def claim(self, webhook_id: str, most: int) -> list[Letter]:
        """Messages that are due for a webhook, oldest first, ours until CLAIM is over."""
        now = self._now()
        mine = (webhook_messages.c.webhook_id == webhook_id, webhook_messages.c.due_at <= now)
        first = select(webhook_messages).where(*mine).order_by(webhook_messages.c.due_at).limit(most)
        async with self._database.write() as connection:
            rows = (await connection.execute(first.with_for_update(skip_locked=True))).all()
            those = _KEY.in_([(row.message_id, row.webhook_id) for row in rows])
            taken = {"due_at": now + CLAIM, "tries": webhook_messages.c.tries + 1}
            if rows:
                await connection.execute(update(webhook_messages).where(those).values(**taken))
        return [_letter(row) for row in rows]

    async def done(self, letter: Letter) -> None:
        """It was delivered, or is given up."""
        async with self._database.write() as connection:
            await connection.execute(delete(webhook_messages).where(*_claimed(letter)))

    async def later(self, letter: Letter, pause: timedelta) -> None:
        """It was not delivered, and is to be tried again."""
        again = update(webhook_messages).where(*_claimed(letter)).values(due_at=self._now() + pause)
        async with self._database.write() as connection:
            await connection.execute(again)

    async def waiting(self) -> int:
        """How many are not delivered yet."""
        async with self._database.read() as connection:
            return (await connection.execute(select(func.count()).select_from(webhook_messages))).scalar_one()


_KEY: Final = tuple_(webhook_messages.c.message_id, webhook_messages.c.webhook_id)


def _claimed(letter: Letter) -> tuple[Any, ...]:
    """The row as long as nobody else claimed it since."""
    mine = (webhook_messages.c.message_id == letter.message_id, webhook_messages.c.webhook_id == letter.webhook_id)
    return (*mine, webhook_messages.c.tries == letter.tries)


def _letter(row: Row[Any]) -> Letter:
    return Letter(row.message_id, row.webhook_id, row.body, row.created_at, row.tries + 1)
