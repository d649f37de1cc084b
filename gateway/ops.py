"""Health on the main port: `/livez` (the process), `/readyz` (send traffic here?), `HEAD /` (a cheap 200)."""

import asyncio

import orjson

from gateway.asgi import Receive, Scope, Send, send_body
from gateway.events import Endpoint
from gateway.services import Services
from gateway.tally import KEY
from keystore.errors import KeystoreError

PING_TIMEOUT_S = 2.0


class Live:
    """200 as long as the event loop turns."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY].endpoint = Endpoint.OPS
        body = orjson.dumps({"status": "ok", "service": "wardgate"})
        await send_body(send, 200, body, head=scope["method"] == "HEAD")


class Ready:
    """200 when requests can be served; 503 with the reason while starting, draining or without a database."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY].endpoint = Endpoint.OPS
        why_not = await self._why_not()
        status = 503 if why_not else 200
        body = {"status": "unavailable", "reason": why_not} if why_not else {"status": "ready"}
        await send_body(send, status, orjson.dumps(body), head=scope["method"] == "HEAD")

    async def _why_not(self) -> str | None:
        readiness = self._services.readiness
        if not readiness.ready:
            return readiness.why_not
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._services.keystore.ping()
        except (KeystoreError, TimeoutError):
            return "the database does not answer"
        return None
