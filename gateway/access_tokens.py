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
        self._locks: dict[bytes, asyncio.Lock] = {}

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
                self._tokens.pop(key, None)
                if token is known:
                    raise UpstreamFailed(replace(failed.failure, of_the_key=False)) from None
            raise

    async def _token(self, key: bytes, call: UpstreamCall) -> _Token:
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            return await self._token_alone(lock, key, call)
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _token_alone(self, lock: asyncio.Lock, key: bytes, call: UpstreamCall) -> _Token:
        async with lock:
            token = self._tokens.get(key)
            if token is None or token.ends_at - EARLY_S <= self._clock():
                token = self._tokens[key] = await self._exchange(call)
            self._tokens.move_to_end(key)
            while len(self._tokens) > REMEMBERED:
                self._tokens.popitem(last=False)
            return token

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
        lasts_s = float(lasts) if isinstance(lasts, int) and not isinstance(lasts, bool) else 0.0
        return _Token(Secret(token), asked_at + lasts_s)


def _key_of(call: UpstreamCall) -> bytes:
    """The whole of what decides the token, hashed: the key and where it is exchanged."""
    return hashlib.sha256(f"{call.provider.token_url}\n{call.credential.secret.reveal()}".encode()).digest()


def _failed(call: UpstreamCall, kind: FailureKind, text: str, *, status: int | None = None) -> UpstreamFailed:
    return UpstreamFailed(failure(call, kind, text, status=status))
