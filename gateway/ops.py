"""Health on the main port: `/livez` (the process), `/readyz` (send traffic here?), `HEAD /` (a cheap 200)."""

import asyncio

import orjson

from gateway.asgi import Receive, Scope, Send, send_body
from gateway.errors import Problem
from gateway.events import Endpoint
from gateway.services import Services
from gateway.tally import KEY
from keystore.errors import KeystoreError
from router.reasons import Fault

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
        self._services.metrics.set_ready(why_not is None)
        head = scope["method"] == "HEAD"
        if why_not is None:
            await send_body(send, 200, orjson.dumps({"status": "ready"}), head=head)
            return
        problem = Problem(503, "not_ready", f"Not ready: {why_not}.", Fault.GATEWAY, caller_may_retry=True)
        scope[KEY].note(problem)
        await send_body(send, 503, problem.body(), headers=problem.response_headers(), head=head)

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
