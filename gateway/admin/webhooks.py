"""Webhooks over HTTP: list, add, rotate, test, remove. A secret is shown once, when it is made; a URL never."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.parts import WebhookId
from gateway.admin.shapes import Sent, Text, Told
from gateway.alerting.sending import Sent as Tried
from gateway.alerting.sending import check_url
from gateway.alerting.trying import told, told_of_try, told_once, try_webhook
from gateway.control.gate import Operation
from keystore.webhooks import LONGEST_OVERLAP, NewSecret, WebhookInfo

_HOURS = LONGEST_OVERLAP / timedelta(hours=1)


class WebhookNew(Sent):
    """Where alerts are to be sent: https, to a public address or to a host that the operator lists."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    name: Text = ""


class WebhookRotation(Sent):
    """How long the former secret signs beside the new one."""

    overlap_hours: Annotated[float, Field(ge=0, le=_HOURS, allow_inf_nan=False, strict=True)] = 24.0


class WebhookOut(Told):
    """A webhook; of its URL the host alone, for the rest may be a secret."""

    object: Literal["webhook"] = "webhook"
    id: str
    name: str
    host: str
    created_at: datetime
    secret_since: datetime


class WebhookMade(WebhookOut):
    """A webhook with the secret that was just made: shown once, null when the request was done before (`replayed`)."""

    secret: str | None = Field(repr=False)
    replayed: bool = False


class WebhookTried(Told):
    """What came of a test. `status` is the receiver's; null where there was no answer, and `why` says why."""

    object: Literal["webhook_test"] = "webhook_test"
    id: str
    delivered: bool
    status: int | None
    why: str | None


class WebhookRemoved(WebhookOut):
    """A webhook that is no more."""

    removed: Literal[True] = True


async def list_webhooks(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[WebhookOut]:
    """Webhooks, oldest first."""

    async def work(at: Operation) -> list[WebhookInfo]:
        return await at.keystore.webhooks.list()

    found = await call.run(work)
    return cut(
        found, query, lambda one: WebhookOut.model_validate(told(one)), lambda one: (one.created_at.isoformat(), one.id)
    )


async def add_webhook(call: OfCall, body: WebhookNew) -> WebhookMade:
    """Add a webhook and show its secret once. Every alert is sent to each webhook from now on."""

    async def work(at: Operation) -> NewSecret:
        return await at.keystore.webhooks.add(check_url(body.url, at.rules.alerts.webhook_hosts), name=body.name)

    return WebhookMade.model_validate(told_once(await call.run(work, describe=lambda one: {"webhook": one.info.id})))


async def rotate_webhook(call: OfCall, webhook_id: WebhookId, body: WebhookRotation) -> WebhookMade:
    """Make another secret and show it once; the former one signs beside it for a while."""
    overlap = timedelta(hours=body.overlap_hours)

    async def work(at: Operation) -> NewSecret:
        return await at.keystore.webhooks.rotate(webhook_id, overlap=overlap)

    return WebhookMade.model_validate(told_once(await call.run(work, target=webhook_id)))


async def test_webhook(call: OfCall, webhook_id: WebhookId) -> WebhookTried:
    """Send the webhook a `webhook.test` now, once."""
    sender = call.services.alerting.sender

    async def work(at: Operation) -> Tried:
        return await try_webhook(at.keystore, sender, webhook_id)

    sent = await call.run(work, target=webhook_id, describe=lambda one: {"delivered": one.delivered})
    return WebhookTried.model_validate(told_of_try(webhook_id, sent))


async def remove_webhook(call: OfCall, webhook_id: WebhookId) -> WebhookRemoved:
    """Remove a webhook, and what was still to be sent to it."""

    async def work(at: Operation) -> WebhookInfo:
        return await at.keystore.webhooks.remove(webhook_id)

    return WebhookRemoved.model_validate(told(await call.run(work, target=webhook_id)))
