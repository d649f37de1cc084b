"""A test message to a webhook, and how webhooks are told to people and their programs.

Must not know who asks.
"""

import uuid
from typing import Final

from gateway.alerting.sending import Sender, Sent
from keystore.clock import utc_now
from keystore.keystore import Keystore
from keystore.outbox import Message, body_of
from keystore.webhooks import NewSecret, WebhookInfo

TYPE: Final = "webhook.test"


async def try_webhook(keystore: Keystore, sender: Sender, webhook_id: str) -> Sent:
    """Send a test once, now. WebhookUnknown; EnvelopeDamaged when the webhook's row was changed."""
    webhook, message_id = await keystore.webhooks.open(webhook_id), f"msg_{uuid.uuid4().hex}"
    message = Message(TYPE, {"webhook": webhook_id})
    return await sender.send(webhook, message_id, body_of(message, message_id, utc_now()))


def told(info: WebhookInfo) -> dict[str, object]:
    """A webhook; of its URL the host alone, for the rest may be a secret."""
    names: dict[str, object] = {"id": info.id, "name": info.name, "host": info.host}
    return names | {"created_at": info.created_at, "secret_since": info.updated_at}


def told_once(new: NewSecret) -> dict[str, object]:
    """The same, with the secret."""
    return told(new.info) | {"secret": new.secret}


def told_of_try(webhook_id: str, sent: Sent) -> dict[str, object]:
    """What came of a test."""
    return {"id": webhook_id, "delivered": sent.delivered, "status": sent.status, "why": sent.why or None}
