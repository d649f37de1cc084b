"""The outermost layer, plain ASGI: request id, headers on every answer, and one event at the end of each request."""

import re
import time
from collections.abc import Callable

from gateway.asgi import App, Message, Receive, Scope, Send, encode_headers, header
from gateway.events import Endpoint, Events
from gateway.metrics import Metrics
from gateway.scrub import looks_like_key
from gateway.tally import KEY, Tally, mint_request_id

WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}\Z")
EXPOSED = ", ".join(
    (
        "x-request-id",
        *(
            f"x-wardgate-{name}"
            for name in (
                "request-id",
                "provider",
                "provider-request-id",
                "model",
                "key",
                "key-label",
                "key-former",
                "attempts",
                "dropped",
                "passed-over",
                "estimated",
                "cost-usd",
                "catalogue",
                "replayed",
                "idempotency",
                "priority",
                "waited-ms",
                "next-cursor",
            )
        ),
        *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
        "x-should-retry",
        "retry-after",
        "retry-after-ms",
        "request-id",
        "openai-version",
        "openai-processing-ms",
    )
)

OPENAI_VERSION = "2020-10-01"  # of OpenAI's API, as it says itself
OPENAIS = frozenset(
    {Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES, Endpoint.MODELS}
)


class Edge:
    """Wraps the application; `catalogue` tells the version that is served."""

    def __init__(
        self,
        app: App,
        *,
        events: Events,
        metrics: Metrics,
        catalogue: Callable[[], str],
    ) -> None:
        self._app = app
        self._events = events
        self._metrics = metrics
        self._catalogue = catalogue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tally = Tally(mint_request_id(), scope["method"], time.monotonic(), self._catalogue())
        scope[KEY] = tally
        answer = _Answer(scope, tally, send)
        self._metrics.request_began()
        try:
            await self._app(scope, receive, answer)
        finally:
            if tally.give_back is not None:
                tally.give_back()
            if tally.account is not None:
                tally.account.settle()
            self._metrics.request_ended()
            self._events.publish(tally.completed(time.monotonic()))


class _Answer:
    """`send` with our headers on the first message; the tally notes that there was one."""

    def __init__(self, scope: Scope, tally: Tally, send: Send) -> None:
        incoming = header(scope, "x-request-id") or ""
        if WELL_FORMED_ID.match(incoming) and not looks_like_key(incoming):  # it is logged, and kept in the ledger
            tally.client_request_id = incoming
        self._public_id = tally.client_request_id or tally.request_id
        self._browser = header(scope, "origin") is not None
        self._tally = tally
        self._send = send

    async def __call__(self, message: Message) -> None:
        tally, account = self._tally, self._tally.account
        if message["type"] == "http.response.start":
            tally.status = message["status"]
            if account is not None and (not tally.stream or tally.status != 200):
                await account.close()
            tally.begun = True
            ours = {"x-request-id": self._public_id} | tally.response_headers()
            if tally.endpoint in OPENAIS:
                took_ms = (time.monotonic() - tally.started) * 1000
                ours |= {"openai-version": OPENAI_VERSION, "openai-processing-ms": str(int(took_ms))}
            if self._browser:
                ours["access-control-expose-headers"] = EXPOSED
            message = {**message, "headers": [*message.get("headers", []), *encode_headers(ours)]}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and account is not None:
            await account.close()
        await self._send(message)
        if last:
            tally.ended = True
