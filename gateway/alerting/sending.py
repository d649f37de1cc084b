"""Sends one message to one webhook: checked address, signed, no redirect followed, little read of the answer.

Owns which URLs a webhook may have. Connections are of a pool of their own, so that a receiver that hangs takes none of
those to providers. Must not know what a message tells, nor when it is tried again.
"""

import asyncio
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx

from gateway.alerting.signing import signature
from gateway.outbound.addresses import Resolve, is_public, literal, system_resolver
from gateway.outbound.connection import Deadlines
from gateway.outbound.pool import Origin, Pool
from gateway.transport import head_of
from keystore.clock import Clock
from keystore.errors import WebhookInvalid
from keystore.providers import host_of
from keystore.webhooks import Webhook

CONNECTIONS: Final = 100  # in all; one host gets half of them
WITHIN_S: Final = 15.0  # from the look-up of the name to the end of the answer
READ: Final = 16 * 1024  # bytes of an answer that are read, and thrown away
_DEADLINES: Final = Deadlines(connect_s=5.0, first_byte_s=10.0, idle_s=5.0)
_LONGEST_URL: Final = 2000


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it: the receiver's status, or why there is none. Nothing that the receiver said is in it."""

    status: int | None = None
    why: str = ""

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """`listed` are hosts that the operator names: they alone may be at private addresses, or without TLS."""

    def __init__(
        self, listed: Container[str], *, now: Clock, resolve: Resolve = system_resolver, within_s: float = WITHIN_S
    ) -> None:
        self._listed = listed
        self._now = now
        self._within_s = within_s
        self._pool = Pool(most=CONNECTIONS, resolve=resolve)

    async def send(self, webhook: Webhook, message_id: str, body: str) -> Sent:
        """POST the message once. EnvelopeDamaged when the webhook has no secret that can sign."""
        try:
            check_url(webhook.url, self._listed)
            request = _request(webhook, message_id, body.encode(), self._now())
            async with asyncio.timeout(self._within_s):
                return Sent(await self._ask(request))
        except WebhookInvalid as error:
            return Sent(why=str(error))
        except TimeoutError:
            return Sent(why=f"there was no answer within {self._within_s:g} s")
        except httpx.HTTPError as error:
            return Sent(why=f"the receiver cannot be asked ({type(error).__name__})")

    async def _ask(self, request: httpx.Request) -> int:
        url, tls = request.url, request.url.scheme == "https"
        listed = host_of(str(url)) in self._listed
        origin = Origin(url.raw_host.decode("ascii"), url.port or (443 if tls else 80), tls, private_ok=listed)
        answer = await self._pool.ask(origin, head_of(request), [request.content], _DEADLINES)
        read = 0
        try:
            async for piece in answer:
                read += len(piece)
                if read > READ:
                    break
        finally:
            answer.aclose()
        return answer.status

    async def aclose(self) -> None:
        await self._pool.aclose()


def _request(webhook: Webhook, message_id: str, body: bytes, now: datetime) -> httpx.Request:
    stamp = int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "user-agent": "wardgate",
        "accept-encoding": "identity",
        "webhook-id": message_id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": signature(webhook.secrets, message_id, stamp, body),
    }
    return httpx.Request("POST", webhook.url, headers=headers, content=body)


def check_url(url: str, listed: Container[str]) -> str:
    """The URL, where a webhook may be: https to a public address, or whatever host is `listed`. What a name resolves to
    is judged when it is connected to. WebhookInvalid; the URL is not quoted, for it may hold a secret."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > _LONGEST_URL:
        raise WebhookInvalid(f"a webhook's URL is at most {_LONGEST_URL} ASCII characters without spaces")
    try:
        parts, host = httpx.URL(url), host_of(url)
        name = parts.host
    except (httpx.InvalidURL, ValueError):  # of a host too that is no name (IDNA)
        raise WebhookInvalid("this is no URL") from None
    if parts.scheme not in ("https", "http") or not name or parts.userinfo or parts.fragment:
        raise WebhookInvalid("a webhook's URL is https://HOST/PATH, without user, password or fragment")
    if host in listed:
        return url
    if parts.scheme != "https":
        raise WebhookInvalid("a webhook's URL begins with https://, unless webhook_hosts of [alerts] lists its host")
    address = literal(name)
    if address is not None and not is_public(address):
        raise WebhookInvalid("this host is at a private address; webhook_hosts of [alerts] may list it")
    return url
