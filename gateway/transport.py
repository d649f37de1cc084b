"""The one way out: every request to a provider leaves through here, with its key put in at the last moment.

LiteLLM and the SDK inside it never hold a tenant's key. They are given HANDLE; this transport replaces it, and refuses
to send a request that does not carry it (so none ever leaves without a key), that has no open Exchange, or that goes to
a host which the key is not for. It follows no redirect, keeps no cookie, and reads along as the bytes go by, so that
what really came back is known whatever the library above makes of it.
"""

import re
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import httpx

from gateway.event_check import EventCheck
from keystore.keyring import Credential

HANDLE = "wardgate-credential-handle"
HANDLE_BYTES = HANDLE.encode()
KEPT_ERROR_BODY = 64 * 1024  # bytes of an upstream's error answer that are read for classification
CARRY = 64  # bytes kept between chunks, more than the longest marker
WITHHELD = re.compile(rb"cookie|accept-encoding|user-agent|x-stainless-.*", re.IGNORECASE)  # of what the SDK below adds

# What ends an answer, and what says that usage was counted, on each wire. A marker inside generated text is escaped in
# JSON (\"finish_reason\"), hence the look-behind.
FINISHED = re.compile(
    rb'(?<!\\)"finish_reason"\s*:\s*"'  # OpenAI: choices[].finish_reason
    rb"|data:\s*\[DONE\]"
    rb'|(?<!\\)"stop_reason"\s*:\s*"|(?<!\\)"type"\s*:\s*"message_stop"'  # Anthropic
    rb'|(?<!\\)"finishReason"\s*:\s*"'  # Gemini
)
USAGE = re.compile(rb'(?<!\\)"(?:usage|usageMetadata)"\s*:\s*\{')


class TransportRefusal(httpx.RequestError):
    """The request must not leave: its key is not for that host, or it carries no key, or it is a repetition."""


@dataclass(slots=True)
class Exchange:
    """One call to one provider: whose key may go where, and what was seen of the answer."""

    credential: Credential
    hosts: frozenset[str]  # of the provider's row; the credential's own hosts are checked as well
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    error_body: bytes = b""
    finished: bool = False  # a terminal marker was seen in the raw bytes
    usage_seen: bool = False
    error: httpx.HTTPError | None = None
    sent: int = 0

    def see(self, window: bytes) -> None:
        """Look for markers in the latest bytes."""
        self.finished = self.finished or FINISHED.search(window) is not None
        self.usage_seen = self.usage_seen or USAGE.search(window) is not None


_current: ContextVar[tuple["Transport", Exchange] | None] = ContextVar("wardgate_exchange", default=None)


class Transport:
    """One connection pool for all tenants; what is sent belongs to the Exchange that is open in this task."""

    def __init__(self, *, connect_timeout_s: float, read_timeout_s: float, max_connections: int) -> None:
        limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=100, keepalive_expiry=15.0)
        context = ssl.create_default_context()
        self._pool = httpx.AsyncHTTPTransport(verify=context, limits=limits, retries=0, trust_env=False)
        self._timeout = httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=connect_timeout_s).as_dict()

    def begin(self, credential: Credential, hosts: frozenset[str]) -> Exchange:
        """Open an Exchange: from now on it is the one of this task and of what the task starts.

        It stays until the task begins another or ends, because LiteLLM makes some streaming calls only when the first
        chunk is asked for. Every request is served in a task of its own.
        """
        record = Exchange(credential, hosts)
        _current.set((self, record))
        return record

    async def send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        outgoing = _with_key(request, exchange, self._timeout)
        if exchange.sent:  # LiteLLM's handler repeats a request whose connection broke, and the tenant would pay twice
            raise TransportRefusal("an exchange is one request", request=request)
        exchange.sent += 1
        try:
            response = await self._pool.handle_async_request(outgoing)
        except httpx.HTTPError as error:
            exchange.error = error
            raise
        exchange.status = response.status_code
        exchange.headers = {name.lower(): value for name, value in response.headers.items()}
        if exchange.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            exchange.error = httpx.RemoteProtocolError("the answer is compressed although that was ruled out")
            raise exchange.error
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - the async pool gives no other
        kept = [
            (name, value) for name, value in response.headers.raw if name.lower() not in (b"set-cookie", b"location")
        ]
        body = _ReadAlong(response.stream, exchange)
        return httpx.Response(response.status_code, headers=kept, stream=body, extensions=response.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()


class CurrentExchangeTransport(httpx.AsyncBaseTransport):
    """What is given to LiteLLM once for the whole process: stateless, it finds the Exchange of the running task."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        current = _current.get()
        if current is None:
            raise TransportRefusal(f"a request to {request.url.host} was made outside any exchange", request=request)
        transport, exchange = current
        return await transport.send(request, exchange)


def _with_key(request: httpx.Request, exchange: Exchange, timeout: dict[str, float | None]) -> httpx.Request:
    """The request with HANDLE replaced in its headers; raises TransportRefusal when it may not leave."""
    host = request.url.netloc.decode("ascii")
    if request.url.userinfo or host not in exchange.hosts or host not in exchange.credential.hosts:
        exchange.error = TransportRefusal(f"the key is not for {host}", request=request)
        raise exchange.error
    secret = exchange.credential.secret.reveal().encode()
    carried = False
    # Uncompressed, so that the bytes can be read along and no small answer unfolds into a large one.
    headers: list[tuple[bytes, bytes]] = [(b"accept-encoding", b"identity"), (b"user-agent", b"wardgate")]
    for name, value in request.headers.raw:
        if WITHHELD.fullmatch(name):
            continue
        carried = carried or HANDLE_BYTES in value
        headers.append((name, value.replace(HANDLE_BYTES, secret)))
    if not carried or HANDLE_BYTES in request.url.raw_path:
        exchange.error = TransportRefusal("the request carries its key in no header", request=request)
        raise exchange.error
    extensions = {**request.extensions, "timeout": timeout}
    return httpx.Request(request.method, request.url, headers=headers, stream=request.stream, extensions=extensions)


class _ReadAlong(httpx.AsyncByteStream):
    """Passes an answer's bytes on and notes what they hold."""

    def __init__(self, stream: httpx.AsyncByteStream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange, carry = self._exchange, b""
        keep_body = (exchange.status or 0) >= 300
        check = EventCheck() if exchange.headers.get("content-type", "").startswith("text/event-stream") else None
        try:
            async for chunk in self._stream:
                if check is not None and check.feed(chunk) is not None:
                    raise httpx.RemoteProtocolError("an event of the stream is not JSON")
                window = carry + chunk
                exchange.see(window)
                carry = window[-CARRY:]
                if keep_body and len(exchange.error_body) < KEPT_ERROR_BODY:
                    exchange.error_body += chunk
                yield chunk
        except httpx.HTTPError as error:
            exchange.error = error
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()
