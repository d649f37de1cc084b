"""Pages of other origins that may call the gateway from a browser: which ones, and what their browsers are told.

Owns the words of CORS (Fetch standard). Without origins nothing of it is there. The control plane is never opened to
pages. Must not know tokens: a page sends its own in a header, and no cookie counts.
"""

import re
from collections.abc import Collection
from typing import Final

from gateway.asgi import App, Message, Receive, Scope, Send, encode_headers, header
from gateway.origins import ANY

ASKED_HEADERS: Final = re.compile(r"[A-Za-z0-9-]{1,64}(?:, ?[A-Za-z0-9-]{1,64}){0,63}")
METHODS: Final = "GET, HEAD, POST"
MAX_AGE_S: Final = 600  # for which a browser need not ask again
VARY: Final = "origin"
VARY_PREFLIGHT: Final = "origin, access-control-request-method, access-control-request-headers"


class Browsers:
    """Wraps the application: a preflight request of an allowed origin is answered here, and every other answer to it
    names it. Paths with a part in `closed` are left alone, as are all other origins."""

    def __init__(self, app: App, origins: Collection[str], *, closed: frozenset[str]) -> None:
        self._app = app
        self._origins = origins
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = self._allowed(scope) if scope["type"] == "http" else None
        if origin is None:
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and header(scope, "access-control-request-method") is not None:
            await _preflight(scope, origin, send)
            return
        told = encode_headers({"access-control-allow-origin": origin, "vary": VARY})

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *told]}
            await send(message)

        await self._app(scope, receive, answer)

    def _allowed(self, scope: Scope) -> str | None:
        """The origin as it is told back; None for one that may not call, and for no browser at all."""
        origin = header(scope, "origin")
        if origin is None or self._closed & set(scope["path"].casefold().split("/")):
            return None
        if ANY in self._origins:
            return ANY
        return origin if origin in self._origins else None


async def _preflight(scope: Scope, origin: str, send: Send) -> None:
    """Which requests the page may make. The headers that it names are allowed as they are: what counts of them is read
    here, and none of them reaches a provider but those that any caller may send."""
    told = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": METHODS,
        "access-control-max-age": str(MAX_AGE_S),
        "vary": VARY_PREFLIGHT,
    }
    wanted = header(scope, "access-control-request-headers")
    if wanted is not None and ASKED_HEADERS.fullmatch(wanted):
        told["access-control-allow-headers"] = wanted
    await send({"type": "http.response.start", "status": 204, "headers": encode_headers(told)})
    await send({"type": "http.response.body", "body": b""})
