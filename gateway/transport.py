"""The one way out: every request to a provider leaves through here, with its key put in at the last moment.

LiteLLM and the SDK inside it never hold a tenant's key. They are given HANDLE; this transport takes out the headers
that hold it and puts the key in where the provider's row says. It refuses a request that does not carry the handle (so
none ever leaves without a key), that has no open Exchange, that repeats one, or that goes to a host that the
key is not for. It follows no redirect, keeps no cookie, and reads along, so that what really came back is known.
"""

import re
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import httpx

from gateway.outbound.answer import Answer
from gateway.outbound.connection import Body, Deadlines
from gateway.outbound.pool import Origin, Pool, nothing
from gateway.scrub import tells_of
from gateway.seen import MOST_INNER, Seen, parse
from gateway.sse import EventReader, EventTooLarge
from keystore.keyring import Credential
from keystore.providers import Auth, Provider, host_of
from router.failure import Reached

HANDLE: Final = "wardgate-credential-handle"
HANDLE_BYTES: Final = HANDLE.encode()
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes of a plain answer
KEPT_ERROR_BODY: Final = 64 * 1024  # bytes of an error answer that are read for classification
# Of what the SDK below adds, and of what a caller could not have meant for a provider.
WITHHELD: Final = re.compile(rb"cookie|accept-encoding|user-agent|x-stainless-.*|openai-.*", re.IGNORECASE)
NOT_PASSED: Final = (b"set-cookie", b"location", b"www-authenticate")
HEADER_VALUE: Final = re.compile(rb"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")  # of a provider, to be passed on
SENT_ALWAYS: Final = b"user-agent: wardgate\r\naccept-encoding: identity\r\ncontent-type: application/json\r\n"
KNOWN_BASES: Final = 4096  # base URLs whose parts are remembered: tenants may have their own

Headers = Sequence[tuple[bytes, bytes]]

PLACES: Final[Mapping[Auth, Callable[[str], tuple[bytes, bytes]]]] = {
    Auth.BEARER: lambda key: (b"authorization", b"Bearer " + key.encode()),
    Auth.X_API_KEY: lambda key: (b"x-api-key", key.encode()),
    Auth.API_KEY: lambda key: (b"api-key", key.encode()),
    Auth.X_GOOG_API_KEY: lambda key: (b"x-goog-api-key", key.encode()),
}


class TransportRefusal(httpx.RequestError):
    """The request must not leave: its key is not for that host, it carries no key, or it is a repetition."""


class AnswerRefused(httpx.RemoteProtocolError):
    """The answer is HTTP, and is not taken all the same: too large, or compressed."""


@dataclass(slots=True)
class Exchange:
    """One call to one provider: whose key may go where, and what was seen of the answer."""

    credential: Credential
    provider: Provider
    idle_s: float  # the longest silence between two reads
    stream: bool = False  # whether a stream was asked for
    status: int | None = None
    raw_headers: Mapping[bytes, bytes] = field(default_factory=dict)  # names in lower case
    body: bytearray = field(default_factory=bytearray)  # of a plain answer or an error
    whole: bool = False  # the answer was read to its end
    seen: Seen = field(default_factory=Seen)
    error: httpx.HTTPError | None = None
    sent: int = 0
    written: bool = False  # the request went onto a connection
    hang_up: Callable[[], None] = nothing  # close the answer, if it is not complete

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers, names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers.items()}

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of events."""
        kind = self.raw_headers.get(b"content-type", b"").lower()
        return self.status == 200 and (b"text/event-stream" in kind or (self.stream and b"json" not in kind))

    @property
    def reached(self) -> Reached:
        """How far it came."""
        if self.status is not None:
            return Reached.REFUSED if self.status >= HTTPStatus.MULTIPLE_CHOICES else Reached.ANSWERED
        return Reached.SENT if self.written else Reached.UNSENT

    def note_written(self) -> None:
        """The request went onto a connection."""
        self.written = True

    @property
    def request_id(self) -> str | None:
        """The provider's own id of the request, as its headers tell it; None where they do not, or tell a key."""
        value = self.raw_headers.get(b"x-request-id") or self.raw_headers.get(b"request-id")
        if value is None or not REQUEST_ID.fullmatch(value):
            return None
        told = value.decode("ascii")
        return None if tells_of(told, self.credential.secret.reveal()) else told

    def fail(self, error: httpx.HTTPError) -> httpx.HTTPError:
        """Remember the first error of the exchange and return it for raising."""
        self.error = self.error or error
        return error


_current: ContextVar[tuple["Transport", Exchange] | None] = ContextVar("wardgate_exchange", default=None)


class Transport:
    """One pool of connections for all tenants; what is sent belongs to an Exchange. `listed` are the hosts that the
    operator names in `wardgate.toml`: they alone may be at private addresses."""

    def __init__(self, *, connect_timeout_s: float, max_connections: int, listed: Container[str] = ()) -> None:
        self._pool = Pool(most=max_connections)
        self._connect_s = connect_timeout_s
        self._listed = listed
        self._bases: dict[str, _Base] = {}

    def begin(self, credential: Credential, provider: Provider, *, idle_s: float, stream: bool = False) -> Exchange:
        """Open an Exchange: from now on it is the one of this task and of what the task starts.

        It stays until the task begins another or ends, because LiteLLM makes some streaming calls only when the first
        chunk is asked for. Every request is served in a task of its own.
        """
        record = Exchange(credential, provider, idle_s, stream)
        _current.set((self, record))
        return record

    async def post(self, exchange: Exchange, path: bytes, headers: Headers, body: Body, first_byte_s: float) -> Answer:
        """POST `body` to `path` below the row's base URL, with the key and these headers; returns when the answer's
        head is there. Raises httpx.HTTPError, and TransportRefusal where it may not leave."""
        base = self._base(exchange.provider.base_url)
        check_host(base.host, exchange)
        name, value = key_header(exchange)
        lines = [base.post, path, base.rest, name, b": ", value]
        for each in headers:
            lines += (b"\r\n", each[0], b": ", each[1])
        lines.append(b"\r\ncontent-length: %d\r\n\r\n" % sum(map(len, body)))
        deadlines = Deadlines(self._connect_s, first_byte_s, exchange.idle_s)
        return await self._ask(exchange, base.origin, b"".join(lines), body, deadlines)

    async def send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        """Send what a library made, with the key in the place of its handle. Raises as `post` does."""
        outgoing = with_key(request, exchange)
        body = await outgoing.aread()
        deadlines = Deadlines(self._connect_s, exchange.idle_s, exchange.idle_s)
        answer = await self._ask(exchange, self._origin(outgoing.url), head_of(outgoing), [body], deadlines)
        kept = [(name, value) for name, value in answer.headers.items() if name not in NOT_PASSED]
        return httpx.Response(answer.status, headers=kept, stream=_ReadAlong(answer, exchange), request=request)

    async def post_form(self, url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        """POST a form that carries no tenant's key, such as a signed request for a token; status and the answer's first
        64 KiB. httpx.HTTPError when it fails; no redirect is followed."""
        request = httpx.Request("POST", url, data=dict(fields), headers={"user-agent": "wardgate"})
        deadlines = Deadlines(self._connect_s, self._connect_s, self._connect_s)
        body = await request.aread()
        answer = await self._pool.ask(self._origin(request.url), head_of(request), [body], deadlines)
        kept = bytearray()
        try:
            async for piece in answer:
                kept += piece
                if len(kept) > KEPT_ERROR_BODY:
                    raise httpx.RemoteProtocolError("the answer is too large")
        finally:
            answer.aclose()
        return answer.status, bytes(kept)

    async def _ask(self, exchange: Exchange, origin: Origin, head: bytes, body: Body, deadlines: Deadlines) -> Answer:
        exchange.sent += 1
        try:
            answer = await self._pool.ask(origin, head, body, deadlines, exchange.note_written)
        except httpx.HTTPError as error:
            raise exchange.fail(error) from None
        exchange.hang_up = answer.aclose
        exchange.status = answer.status
        exchange.raw_headers = answer.headers
        if answer.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            answer.aclose()
            raise exchange.fail(AnswerRefused("the answer is compressed although that was ruled out"))
        return answer

    def _base(self, base_url: str) -> "_Base":
        known = self._bases.get(base_url)
        if known is None:
            if len(self._bases) >= KNOWN_BASES:
                self._bases.clear()
            known = self._bases[base_url] = self._read_base(base_url)
        return known

    def _read_base(self, base_url: str) -> "_Base":
        url = httpx.URL(base_url)
        prefix = url.raw_path.rstrip(b"/")
        authority = url.netloc
        rest = b" HTTP/1.1\r\nhost: " + authority + b"\r\n" + SENT_ALWAYS
        return _Base(self._origin(url), host_of(base_url), b"POST " + prefix, rest)

    def _origin(self, url: httpx.URL) -> Origin:
        tls = url.scheme == "https"
        listed = host_of(str(url)) in self._listed
        return Origin(url.raw_host.decode("ascii"), url.port or (443 if tls else 80), tls, private_ok=listed)

    async def aclose(self) -> None:
        await self._pool.aclose()


@dataclass(frozen=True, slots=True)
class _Base:
    """What every request below one base URL has in common."""

    origin: Origin
    host: str  # as `hosts` spells it
    post: bytes  # the request line up to the path below
    rest: bytes  # from there to the key's header


class CurrentExchangeTransport(httpx.AsyncBaseTransport):
    """What is given to LiteLLM once for the whole process: stateless, it finds the Exchange of the running task."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        current = _current.get()
        if current is None:
            raise TransportRefusal(f"a request to {request.url.host} was made outside any exchange", request=request)
        transport, exchange = current
        return await transport.send(request, exchange)


def check_host(host: str, exchange: Exchange) -> None:
    """Raise TransportRefusal where the key is not for this host, and where the exchange has had its request."""
    if host not in exchange.provider.hosts or host not in exchange.credential.hosts:
        raise exchange.fail(TransportRefusal(f"the key is not for {host}"))
    if exchange.sent:  # LiteLLM's handler repeats a request whose connection broke, and the tenant would pay twice
        raise TransportRefusal("an exchange is one request")


def key_header(exchange: Exchange) -> tuple[bytes, bytes]:
    """The header that carries the key, where the row says; raises TransportRefusal when none can."""
    place = PLACES.get(exchange.provider.auth)
    if place is None:
        raise exchange.fail(TransportRefusal("the key does not travel: it is exchanged for a token"))
    name, value = place(exchange.credential.secret.reveal())
    if not HEADER_VALUE.fullmatch(value):
        raise exchange.fail(TransportRefusal("the key holds characters that no header can carry"))
    return name, value


def with_key(request: httpx.Request, exchange: Exchange) -> httpx.Request:
    """The request as it may leave, with the key where the row says; raises TransportRefusal when it may not."""
    host = host_of(str(request.url))
    if request.url.userinfo:
        raise exchange.fail(TransportRefusal(f"the key is not for {host}"))
    check_host(host, exchange)
    # Uncompressed, so that the bytes can be read along and no small answer unfolds into a large one.
    headers: list[tuple[bytes, bytes]] = [(b"accept-encoding", b"identity"), (b"user-agent", b"wardgate")]
    carried = 0
    for name, value in request.headers.raw:
        if HANDLE_BYTES in value:
            carried += 1
        elif not WITHHELD.fullmatch(name):
            headers.append((name, value))
    if not carried or HANDLE_BYTES in request.url.raw_path:
        raise exchange.fail(TransportRefusal("the request carries its key in no header"))
    headers.append(key_header(exchange))
    return httpx.Request(request.method, request.url, headers=headers, stream=request.stream)


def head_of(request: httpx.Request) -> bytes:
    """The request line and headers; the body's length is told, whatever a library wanted. Raises TransportRefusal for
    what would be two requests."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    for name, value in request.headers.raw:
        if name.lower() not in (b"content-length", b"transfer-encoding", b"connection"):
            lines.append(name + b": " + value)
    if request.content or request.method != "GET":
        lines.append(b"content-length: %d" % len(request.content))
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise TransportRefusal("a header holds a line break")
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _ReadAlong(httpx.AsyncByteStream):
    """Passes an answer's bytes on and notes what they hold."""

    def __init__(self, answer: Answer, exchange: Exchange) -> None:
        self._answer = answer
        self._exchange = exchange
        self._inner = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        note = self._note_events() if self._exchange.streams else self._keep
        try:
            async for chunk in self._answer:
                note(chunk)
                yield chunk  # what is good in it comes first
                if self._exchange.seen.malformed:
                    raise httpx.RemoteProtocolError("an event of the stream is not JSON")
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

        return note

    def _keep(self, chunk: bytes) -> None:
        body, most = self._exchange.body, KEPT_ERROR_BODY if self._exchange.status != 200 else MAX_ANSWER
        self._inner += chunk.count(b"{") + chunk.count(b"[")
        if self._inner > MOST_INNER:  # a library makes objects of it
            raise AnswerRefused(f"the answer holds more than {MOST_INNER} objects and lists")
        if len(body) + len(chunk) > MAX_ANSWER:
            raise AnswerRefused(f"the answer is larger than {MAX_ANSWER} bytes")
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
        self._answer.aclose()
