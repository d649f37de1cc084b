"""Webhooks: where the operator has alerts sent to.

Owns the statements on `webhooks` and the making of secrets: one is shown when it is made and never again. Must not know
how anything is sent, nor which URLs may be asked.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock, Random
from keystore.engine import Database
from keystore.errors import WebhookInvalid, WebhookUnknown
from keystore.money_tables import webhook_messages, webhooks
from keystore.sealing import NONCE_BYTES
from keystore.secret import Secret
from keystore.servicekeys import Purpose, ServiceKeys
from keystore.webhook_seal import Sealed, new_secret, open_webhook, seal_webhook

MOST: Final = 20
LONGEST_NAME: Final = 100
LONGEST_OVERLAP: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class WebhookInfo:
    """A webhook as it may be shown."""

    id: str
    name: str
    host: str
    created_at: datetime
    updated_at: datetime  # when its secret was made


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook and the secret that was made for it, to be shown once."""

    info: WebhookInfo
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook, open: where to send to, and the secrets that sign."""

    id: str
    url: str = field(repr=False)
    secrets: tuple[Secret, ...]


class WebhookStore:
    """Each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, service: ServiceKeys, *, now: Clock, random: Random) -> None:
        self._database = database
        self._service = service
        self._now = now
        self._random = random

    async def add(self, url: str, *, name: str = "") -> NewSecret:
        """A webhook at this URL, which the caller has checked. WebhookInvalid for a name that is none, or too many."""
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise WebhookInvalid(f"a name is at most {LONGEST_NAME} printable characters")
        now, webhook_id, secret = self._now(), f"wh_{self._random(6).hex()}", new_secret(self._random)
        sealed = self._sealed(Sealed(url, secret), webhook_id)
        info = WebhookInfo(webhook_id, name, urlsplit(url).netloc.rpartition("@")[2], now, now)
        values = {"webhook_id": webhook_id, "name": name, "host": info.host, "envelope": sealed}
        async with self._database.write() as connection:
            if len((await connection.execute(select(webhooks.c.webhook_id))).all()) >= MOST:
                raise WebhookInvalid(f"there are {MOST} webhooks already; remove one first")
            await connection.execute(insert(webhooks).values(**values, created_at=now, updated_at=now))
        return NewSecret(info, secret)

    async def list(self) -> list[WebhookInfo]:
        """All of them, oldest first."""
        query = select(webhooks).order_by(webhooks.c.created_at, webhooks.c.webhook_id)
        async with self._database.read() as connection:
            return [_info(row) for row in await connection.execute(query)]

    async def open(self, webhook_id: str) -> Webhook:
        """One, ready to be sent to. WebhookUnknown; EnvelopeDamaged when its row was changed."""
        async with self._database.read() as connection:
            row = await _row(connection, webhook_id)
        sealed = open_webhook(self._key(), bytes(row.envelope), webhook_id)
        return Webhook(webhook_id, sealed.url, sealed.secrets(self._now()))

    async def rotate(self, webhook_id: str, *, overlap: timedelta) -> NewSecret:
        """Another secret; the former one signs beside it for `overlap`. WebhookUnknown, WebhookInvalid."""
        if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
            raise WebhookInvalid(f"a former secret may go on signing for 0 to {LONGEST_OVERLAP.days} days")
        now, secret = self._now(), new_secret(self._random)
        async with self._database.write() as connection:
            row = await _row(connection, webhook_id, hold=True)
            before = open_webhook(self._key(), bytes(row.envelope), webhook_id)
            sealed = self._sealed(Sealed(before.url, secret, before.secret, now + overlap), webhook_id)
            mine = webhooks.c.webhook_id == webhook_id
            await connection.execute(update(webhooks).where(mine).values(envelope=sealed, updated_at=now))
        return NewSecret(WebhookInfo(webhook_id, row.name, row.host, row.created_at, now), secret)

    async def remove(self, webhook_id: str) -> WebhookInfo:
        """The webhook that is no more, with what was still to be sent to it. WebhookUnknown."""
        async with self._database.write() as connection:
            row = await _row(connection, webhook_id, hold=True)
            for table in (webhook_messages, webhooks):
                await connection.execute(delete(table).where(table.c.webhook_id == webhook_id))
        return _info(row)

    def _sealed(self, content: Sealed, webhook_id: str) -> bytes:
        return seal_webhook(self._key(), content, webhook_id, nonce=self._random(NONCE_BYTES))

    def _key(self) -> bytes:
        return self._service.get(Purpose.FINGERPRINT).key


async def _row(connection: AsyncConnection, webhook_id: str, *, hold: bool = False) -> Row[Any]:
    query = select(webhooks).where(webhooks.c.webhook_id == webhook_id)
    row = (await connection.execute(query.with_for_update() if hold else query)).first()
    if row is None:
        raise WebhookUnknown(f"there is no webhook {webhook_id!r}; `wardgate webhook list` shows them")
    return row


def _info(row: Row[Any]) -> WebhookInfo:
    return WebhookInfo(row.webhook_id, row.name, row.host, row.created_at, row.updated_at)
