"""The one way out: every request to a provider leaves through here, with its key put in at the last moment.

LiteLLM and the SDK inside it never hold a tenant's key. They are given HANDLE; this transport takes out the headers
that hold it and puts the key in where the provider's row says. It refuses a request that does not carry the handle (so
none ever leaves without a key), that has no open Exchange, that repeats one, or that goes to a host that the
key is not for. It follows no redirect, keeps no cookie, and reads along, so that what really came back is known.
"""

import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import httpx

from gateway.seen import Seen, parse
from gateway.sse import EventReader, EventTooLarge
from keystore.keyring import Credential
from keystore.providers import Auth, Provider, host_of

HANDLE: Final = "wardgate-credential-handle"
HANDLE_BYTES: Final = HANDLE.encode()
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes of a plain answer
KEPT_ERROR_BODY: Final = 64 * 1024  # bytes of an error answer that are read for classification
# Of what the SDK below adds, and of what a caller could not have meant for a provider.
WITHHELD: Final = re.compile(rb"cookie|accept-encoding|user-agent|x-stainless-.*|openai-.*", re.IGNORECASE)
NOT_PASSED: Final = (b"set-cookie", b"location", b"www-authenticate")

PLACES: Final[Mapping[Auth, Callable[[str], tuple[bytes, bytes]]]] = {
    Auth.BEARER: lambda key: (b"authorization", b"Bearer " + key.encode()),
    Auth.X_API_KEY: lambda key: (b"x-api-key", key.encode()),
    Auth.API_KEY: lambda key: (b"api-key", key.encode()),
    Auth.X_GOOG_API_KEY: lambda key: (b"x-goog-api-key", key.encode()),
}


class TransportRefusal(httpx.RequestError):
    """The request must not leave: its key is not for that host, it carries no key, or it is a repetition."""


@dataclass(slots=True)
class Exchange:
    """One call to one provider: whose key may go where, and what was seen of the answer."""

    credential: Credential
    provider: Provider
    idle_s: float  # the longest silence between two reads
    stream: bool = False  # whether a stream was asked for
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)  # of a plain answer or an error
    whole: bool = False  # the answer was read to its end
    seen: Seen = field(default_factory=Seen)
    error: httpx.HTTPError | None = None
    sent: int = 0

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of events."""
        kind = self.headers.get("content-type", "").lower()
        return self.status == 200 and ("text/event-stream" in kind or (self.stream and "json" not in kind))

    def fail(self, error: httpx.HTTPError) -> httpx.HTTPError:
        """Remember the first error of the exchange and return it for raising."""
        self.error = self.error or error
        return error


_current: ContextVar[tuple["Transport", Exchange] | None] = ContextVar("wardgate_exchange", default=None)


class Transport:
    """One connection pool for all tenants; what is sent belongs to the Exchange that is open in this task."""

    def __init__(self, *, connect_timeout_s: float, max_connections: int) -> None:
        limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=100, keepalive_expiry=15.0)
        context = ssl.create_default_context()
        self._pool = httpx.AsyncHTTPTransport(verify=context, limits=limits, retries=0, trust_env=False)
        self._connect_s = connect_timeout_s

    def begin(self, credential: Credential, provider: Provider, *, idle_s: float, stream: bool = False) -> Exchange:
        """Open an Exchange: from now on it is the one of this task and of what the task starts.

        It stays until the task begins another or ends, because LiteLLM makes some streaming calls only when the first
        chunk is asked for. Every request is served in a task of its own.
        """
        record = Exchange(credential, provider, idle_s, stream)
        _current.set((self, record))
        return record

    async def send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        outgoing = with_key(request, exchange)
        outgoing.extensions["timeout"] = httpx.Timeout(exchange.idle_s, connect=self._connect_s).as_dict()
        exchange.sent += 1
        try:
            response = await self._pool.handle_async_request(outgoing)
        except httpx.HTTPError as error:
            raise exchange.fail(error) from None
        exchange.status = response.status_code
        exchange.headers = {name.lower(): value for name, value in response.headers.items()}
        if exchange.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise exchange.fail(httpx.RemoteProtocolError("the answer is compressed although that was ruled out"))
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - the async pool gives no other
        kept = [(name, value) for name, value in response.headers.raw if name.lower() not in NOT_PASSED]
        body = _ReadAlong(response.stream, exchange)
        return httpx.Response(response.status_code, headers=kept, stream=body, extensions=response.extensions)

    async def post_form(self, url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        """POST a form that carries no tenant's key, such as a signed request for a token; status and the answer's first
        64 KiB. httpx.HTTPError when it fails; no redirect is followed."""
        request = httpx.Request("POST", url, data=dict(fields), headers={"user-agent": "wardgate"})
        request.extensions["timeout"] = httpx.Timeout(self._connect_s).as_dict()
        response = await self._pool.handle_async_request(request)
        body = bytearray()
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - as above
            async for chunk in response.stream:
                body += chunk
                if len(body) > KEPT_ERROR_BODY:
                    raise httpx.RemoteProtocolError("the answer is too large")
        finally:
            await response.aclose()
        return response.status_code, bytes(body)

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


def with_key(request: httpx.Request, exchange: Exchange) -> httpx.Request:
    """The request as it may leave, with the key where the row says; raises TransportRefusal when it may not."""
    host = host_of(str(request.url))
    if request.url.userinfo or host not in exchange.provider.hosts or host not in exchange.credential.hosts:
        raise exchange.fail(TransportRefusal(f"the key is not for {host}", request=request))
    if exchange.sent:  # LiteLLM's handler repeats a request whose connection broke, and the tenant would pay twice
        raise TransportRefusal("an exchange is one request", request=request)
    # Uncompressed, so that the bytes can be read along and no small answer unfolds into a large one.
    headers: list[tuple[bytes, bytes]] = [(b"accept-encoding", b"identity"), (b"user-agent", b"wardgate")]
    carried = 0
    for name, value in request.headers.raw:
        if HANDLE_BYTES in value:
            carried += 1
        elif not WITHHELD.fullmatch(name):
            headers.append((name, value))
    if not carried or HANDLE_BYTES in request.url.raw_path:
        raise exchange.fail(TransportRefusal("the request carries its key in no header", request=request))
    place = PLACES.get(exchange.provider.auth)
    if place is None:
        raise exchange.fail(TransportRefusal("the key does not travel: it is exchanged for a token", request=request))
    headers.append(place(exchange.credential.secret.reveal()))
    extensions = dict(request.extensions)
    return httpx.Request(request.method, request.url, headers=headers, stream=request.stream, extensions=extensions)


class _ReadAlong(httpx.AsyncByteStream):
    """Passes an answer's bytes on and notes what they hold."""

    def __init__(self, stream: httpx.AsyncByteStream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        note = self._note_events() if self._exchange.streams else self._keep
        try:
            async for chunk in self._stream:
                note(chunk)
                yield chunk
        except httpx.HTTPError as error:
            raise self._exchange.fail(error) from None
        self._finish()

    def _note_events(self) -> Callable[[bytes], None]:
        reader, seen = EventReader(), self._exchange.seen

        def note(chunk: bytes) -> None:
            try:
                for event in reader.feed(chunk):
                    seen.note_event(event)
            except EventTooLarge:
                seen.malformed = True
            if seen.malformed:
                raise httpx.RemoteProtocolError("an event of the stream is not JSON")

        return note

    def _keep(self, chunk: bytes) -> None:
        body, most = self._exchange.body, KEPT_ERROR_BODY if self._exchange.status != 200 else MAX_ANSWER
        if len(body) + len(chunk) > MAX_ANSWER:
            raise httpx.RemoteProtocolError(f"the answer is larger than {MAX_ANSWER} bytes")
        if len(body) < most:
            body += chunk

    def _finish(self) -> None:
        exchange = self._exchange
        exchange.whole = True
        if exchange.status == 200 and not exchange.streams:
            document = parse(bytes(exchange.body))
            if isinstance(document, dict):
                exchange.seen.note(document)

    async def aclose(self) -> None:
        await self._stream.aclose()
