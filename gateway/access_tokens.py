"""Short-lived access tokens: what some providers want in the place of a stored key, which itself never travels.

Owns the exchange at the row's `token_url`, and what is remembered of it: one token for each key, until shortly before
it ends or until it is rejected. Several requests that need the same one wait for one exchange. Must not know where keys
come from.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import httpx

from gateway.seen import parse
from gateway.transport import Transport
from gateway.upstream import UpstreamCall, UpstreamFailed
from gateway.upstream_errors import failure
from keystore.errors import CredentialUnusable
from keystore.providers import Auth
from keystore.secret import Secret
from keystore.service_account import GRANT, assertion
from router.failure import FailureKind

REMEMBERED: Final = 1000
EARLY_S: Final = 300.0  # a token is exchanged anew that long before it ends
LONGEST_S: Final = 86400.0  # a token is not believed to last longer
TIMEOUT_S: Final = 10.0
_KINDS: Final = {
    400: FailureKind.KEY_REJECTED,
    401: FailureKind.KEY_REJECTED,
    403: FailureKind.KEY_REJECTED,
    429: FailureKind.RATE_LIMITED,
}


@dataclass(frozen=True, slots=True)
class _Token:
    secret: Secret
    ends_at: float


class AccessTokens:
    """The tokens of one gateway. Times on the monotonic clock."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._now = now
        self._tokens: OrderedDict[bytes, _Token] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[_Token]] = {}

    @asynccontextmanager
    async def ready(self, call: UpstreamCall) -> AsyncIterator[UpstreamCall]:
        """The call as it may be sent: with an access token where the row's keys are exchanged, else as it is. A token
        that is rejected inside is forgotten; if it was an old one, that says nothing of the key. Raises UpstreamFailed
        when the exchange fails."""
        if call.provider.auth is not Auth.GOOGLE_SERVICE_ACCOUNT:
            yield call
            return
        key = _key_of(call)
        known = self._tokens.get(key)
        token = await self._token(key, call)
        provider = replace(call.provider, auth=Auth.BEARER)
        try:
            yield replace(call, provider=provider, credential=replace(call.credential, secret=token.secret))
        except UpstreamFailed as failed:
            if failed.failure.kind is FailureKind.KEY_REJECTED:
                if self._tokens.get(key) is token:
                    del self._tokens[key]
                if token is known:
                    raise UpstreamFailed(replace(failed.failure, of_the_key=False)) from None
            raise

    async def _token(self, key: bytes, call: UpstreamCall) -> _Token:
        """What is remembered, or what the one exchange brings that runs for all who wait; it outlives each of them."""
        token = self._tokens.get(key)
        if token is not None and token.ends_at - EARLY_S > self._clock():
            self._tokens.move_to_end(key)
            return token
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._exchange(call))
            running.add_done_callback(lambda done: self._ended(key, done))
        try:
            return await asyncio.shield(running)
        except UpstreamFailed as failed:
            mine = replace(failed.failure, provider_id=call.provider.id, model=call.model)
            raise UpstreamFailed(mine) from None

    def _ended(self, key: bytes, done: asyncio.Task[_Token]) -> None:
        del self._running[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._tokens[key] = done.result()
        self._tokens.move_to_end(key)
        while len(self._tokens) > REMEMBERED:
            self._tokens.popitem(last=False)

    async def _exchange(self, call: UpstreamCall) -> _Token:
        url, asked_at = call.provider.token_url, self._clock()
        try:
            signed = assertion(call.credential.secret, audience=url, now=self._now())
        except CredentialUnusable as error:
            raise UpstreamFailed(failure(call, FailureKind.KEY_UNUSABLE, str(error))) from None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await self._transport.post_form(url, {"grant_type": GRANT, "assertion": signed})
        except TimeoutError:
            raise _failed(call, FailureKind.TIMEOUT, "the token endpoint did not answer in time") from None
        except httpx.HTTPError:
            raise _failed(call, FailureKind.CONNECT, "the token endpoint could not be reached") from None
        if status != 200:
            kind = _KINDS.get(status, FailureKind.SERVER_ERROR)
            raise _failed(call, kind, f"the token endpoint answered {status}", status=status)
        return self._read(call, body, asked_at)

    def _read(self, call: UpstreamCall, body: bytes, asked_at: float) -> _Token:
        answer = parse(body)
        told = answer if isinstance(answer, dict) else {}
        token, lasts = told.get("access_token"), told.get("expires_in")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise _failed(call, FailureKind.MALFORMED, "the token endpoint's answer holds no token", status=200)
        lasts_s = lasts if isinstance(lasts, int | float) and not isinstance(lasts, bool) and lasts > 0 else 0.0
        return _Token(Secret(token), asked_at + min(lasts_s, LONGEST_S))


def _key_of(call: UpstreamCall) -> bytes:
    """The whole of what decides the token, hashed: the key and where it is exchanged."""
    return hashlib.sha256(f"{call.provider.token_url}\n{call.credential.secret.reveal()}".encode()).digest()


def _failed(call: UpstreamCall, kind: FailureKind, text: str, *, status: int | None = None) -> UpstreamFailed:
    return UpstreamFailed(failure(call, kind, text, status=status))
