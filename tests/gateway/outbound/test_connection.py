"""What an answer may look like on the wire, and what becomes of a connection after it. The provider is the attacker."""

import asyncio
import select
import time
import tracemalloc
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.outbound.answer import WAITING, Answer
from gateway.outbound.connection import MOST_BODY, MOST_HEAD, MOST_HEADERS, Connection, Deadlines
from gateway.outbound.pool import Pool
from tests.gateway.outbound.playing import SOON, Playing, always, ask, playing, request, until, whole

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"content-length: 2\r\n\r\nhi"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    one = Pool(most=20)
    yield one
    await one.aclose()


def headers(count: int, size: int = 1) -> bytes:
    return b"".join(b"h%d: %s\r\n" % (n, b"x" * size) for n in range(count))


# Bytes of an answer after which the connection stays open: the body that is read, and whether the next request may use
# the connection again.
GOOD = {
    "length": (TWO, b"hi", True),
    "chunks": (CHUNKED + b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", b"hi", True),
    "chunk extensions": (CHUNKED + b'2;a=b;c="d"\r\nhi\r\n0;e\r\n\r\n', b"hi", True),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nx: y\r\n\r\n", b"hi", True),
    "most headers": (OK + headers(MOST_HEADERS - 1) + b"content-length: 2\r\n\r\nhi", b"hi", True),
    "interim answers": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + TWO, b"hi", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", b"", True),
    "length of nothing": (OK + b"content-length: 0\r\n\r\n", b"", True),
    "no reason phrase": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", b"hi", True),
    "told to close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi", b"hi", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"hi", False),
    "a second answer at once": (TWO + TWO, b"hi", False),
    "half a second answer": (TWO + OK + b"content-le", b"hi", False),
    "bytes that nobody asked for": (TWO + b"and more", b"hi", False),
}


@pytest.mark.parametrize("name", GOOD)
async def test_good_answer_is_read_and_its_connection_is_used_again_only_when_it_may_be(pool: Pool, name: str) -> None:
    raw, body, again = GOOD[name]
    async with playing(always(raw)) as provider:
        for _ in range(2):
            assert await whole(await ask(pool, provider.origin)) == body
            await until(lambda: again or provider.standing == 0)
        assert provider.connections == (1 if again else 2)


async def test_answer_without_a_length_ends_with_its_connection(pool: Pool) -> None:
    async with playing(always(OK + b"\r\nall of it", again=False)) as provider:
        assert await whole(await ask(pool, provider.origin)) == b"all of it"


TOO_MUCH = "more than 128 headers or 65536 bytes"
# Bytes of an answer that is no good, whether it breaks before its head is read, and what is said of it.
BAD = {
    "one header too many": (OK + headers(MOST_HEADERS) + b"content-length: 2\r\n\r\nhi", TOO_MUCH),
    "long headers": (OK + headers(3, MOST_HEAD // 2) + b"\r\n", TOO_MUCH),
    "a header without an end": (OK + b"x: " + b"y" * (MOST_HEAD * 3), TOO_MUCH),
    "a header name without an end": (OK + b"y" * (MOST_HEAD * 3), TOO_MUCH),
    "a status line without an end": (b"HTTP/1.1 200 " + b"y" * (MOST_HEAD * 3), TOO_MUCH),
    "interim answers without an end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 6000, TOO_MUCH),
    "headers of interim answers": (b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" * (MOST_HEADERS + 1), TOO_MUCH),
    "too many trailers": (CHUNKED + b"2\r\nhi\r\n0\r\n" + headers(MOST_HEADERS + 1) + b"\r\n", TOO_MUCH),
    "a trailer without an end": (CHUNKED + b"2\r\nhi\r\n0\r\nx: " + b"y" * (MOST_HEAD * 8), TOO_MUCH),
    "an extension without an end": (CHUNKED + b"2;" + b"y" * (MOST_HEAD * 8), TOO_MUCH),
    "switching protocols": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n", "switches protocols"),
    "switching with a connection header": (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "switches protocols",
    ),
    "a malformed chunk size": (CHUNKED + b"zz\r\nhi\r\n", "not HTTP"),
    "a negative chunk size": (CHUNKED + b"-2\r\nhi\r\n", "not HTTP"),
    "a signed chunk size": (CHUNKED + b"+2\r\nhi\r\n", "not HTTP"),
    "a chunk size without an end": (CHUNKED + b"0" * 200 + b"f" * 40 + b"\r\n", "not HTTP"),
    "a chunk longer than it says": (CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", "not HTTP"),
    "length and chunks": (
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "chunks and length": (
        OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "two lengths": (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi!", "not HTTP"),
    "a length that is no number": (OK + b"content-length: two\r\n\r\nhi", "not HTTP"),
    "a length that overflows": (OK + b"content-length: 99999999999999999999999\r\n\r\nhi", "not HTTP"),
    "HTTP/2's preface": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "not HTTP"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
    "a NUL in a header": (OK + b"x: a\x00b\r\ncontent-length: 2\r\n\r\nhi", "not HTTP"),
    "a space before the colon": (OK + b"content-length : 2\r\n\r\nhi", "not HTTP"),
    "cut in the head": (OK + b"content-le", "hung up"),
    "nothing": (b"", "hung up"),
    "cut in the body": (OK + b"content-length: 10\r\n\r\nhi", "broke in the middle"),
    "cut between chunks": (CHUNKED + b"2\r\nhi\r\n", "broke in the middle"),
    "cut before the last line": (CHUNKED + b"2\r\nhi\r\n0\r\n", "broke in the middle"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_answer_is_refused_and_its_connection_is_not_used_again(pool: Pool, name: str) -> None:
    raw, said = BAD[name]
    async with playing(always(raw, again=False)) as provider:
        for _ in range(2):
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError), match=said):
                await whole(await ask(pool, provider.origin))
        assert provider.connections == 2
    assert not pool._places, "what broke is given back"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "x-gzip"])
async def test_content_coding_is_nobodys_business_here(pool: Pool, coding: str) -> None:
    """The bytes are handed on as they are: nothing unfolds."""
    raw = OK + b"content-encoding: %s\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00" % coding.encode()
    async with playing(always(raw)) as provider:
        answer = await ask(pool, provider.origin)
        assert answer.headers[b"content-encoding"] == coding.encode() and await whole(answer) == b"\x1f\x8b\x08\x00"


async def test_trailer_changes_no_header(pool: Pool) -> None:
    raw = OK + b"content-type: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ncontent-type: b\r\n\r\n"
    async with playing(always(raw)) as provider:
        answer = await ask(pool, provider.origin)
        await whole(answer)
        assert answer.headers[b"content-type"] == b"a"


async def test_body_is_bounded() -> None:
    part = b"x" * (MOST_BODY // 16)
    head = OK + b"content-length: %d\r\n\r\n" % (MOST_BODY + 1)
    assert outcome([head] + [part] * 16, keep=False)[3:5] == (False, None)
    error = (httpx.RemoteProtocolError, f"the answer is larger than {MOST_BODY} bytes")
    assert outcome([head] + [part] * 16 + [b"x"], keep=False)[3:5] == (False, error)


async def test_answer_before_the_request_was_sent_whole_ends_the_connection(pool: Pool) -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.Event().wait()  # and never reads the rest

    async with playing(play) as provider:
        answer = await ask(pool, provider.origin, b"x" * 30_000_000)
        assert (answer.status, await whole(answer)) == (413, b"no")
        await until(lambda: pool._open == 0)


async def test_million_tiny_chunks_cost_bounded_time_and_memory(pool: Pool) -> None:
    count = 1_000_000

    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(CHUNKED)
        for _ in range(count // 10_000):
            writer.write(b"1\r\nx\r\n" * 10_000)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with playing(play) as provider:
        began, size, most = time.monotonic(), 0, 0
        answer = await ask(pool, provider.origin)
        async for piece in answer:
            size += len(piece)
            most = max(most, answer._size)
        assert size == count and most <= WAITING + 65_536
        assert time.monotonic() - began < 20


async def test_reader_that_is_behind_holds_the_provider_up_and_not_the_memory(pool: Pool) -> None:
    length = 64 * 1024 * 1024
    sent = 0

    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request(reader)
        writer.write(OK + b"content-length: %d\r\n\r\n" % length)
        for _ in range(length // 65_536):
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with playing(play) as provider:
        answer = await ask(pool, provider.origin, deadlines=Deadlines(5, 5, 0.2))
        await until(lambda: answer._paused)
        tracemalloc.start()
        before = -1
        while before != sent:  # until the sockets' own buffers are full
            before = sent
            await asyncio.sleep(0.3)  # longer than the idle deadline: the silence is our own
        assert answer._size <= WAITING + 262_144 and sent < length
        assert tracemalloc.get_traced_memory()[0] < 16 * 1024 * 1024
        tracemalloc.stop()
        assert len(await whole(answer)) == length
        assert await whole(await ask(pool, provider.origin)) and provider.connections == 2  # the first was closed


async def test_connection_that_was_held_up_at_the_end_of_an_answer_is_read_again(pool: Pool) -> None:
    """All of a large answer may come in one read: it is complete while reading is held up."""
    answer = OK + b"content-length: %d\r\n\r\n" % (WAITING * 4) + b"x" * (WAITING * 4)
    async with playing(always(answer)) as provider:
        for _ in range(20):
            got = await ask(pool, provider.origin)
            await until(lambda got=got: got.complete or got._paused)  # type: ignore[misc]
            assert len(await whole(got)) == WAITING * 4
        assert provider.connections == 1


def test_answer_that_ends_while_it_is_held_up_lets_go_at_once() -> None:
    told: list[bool] = []
    answer = Answer(told.append, lambda: None, lambda: None)
    answer.begin(200, {})
    answer.feed(b"x" * (WAITING + 1))
    answer.end()
    assert told == [True, False]


async def silent(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    await reader.read()


async def test_silence_before_the_head_ends_at_the_first_bytes_deadline(pool: Pool) -> None:
    async with playing(silent) as provider:
        with pytest.raises(httpx.ReadTimeout, match="nothing came in time"):
            await ask(pool, provider.origin, deadlines=Deadlines(5, 0.1, 9))
        await until(lambda: provider.standing == 0)


@pytest.mark.parametrize("first_byte_s", [0.1, 9.0])
async def test_silence_in_the_middle_ends_at_the_idle_deadline(pool: Pool, first_byte_s: float) -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK + b"content-length: 5\r\n\r\nhi")
        await reader.read()

    async with playing(play) as provider:
        answer = await ask(pool, provider.origin, deadlines=Deadlines(5, first_byte_s, 0.3))
        assert await answer.piece() == b"hi"
        began = time.monotonic()
        with pytest.raises(httpx.ReadTimeout, match="silent"):
            await answer.piece()
        assert 0.2 < time.monotonic() - began < 2


async def test_interim_answers_do_not_put_the_first_bytes_deadline_off(pool: Pool) -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with playing(play) as provider:
        with pytest.raises(httpx.ReadTimeout):
            await ask(pool, provider.origin, deadlines=Deadlines(5, 0.3, 9))


async def test_drip_that_is_never_silent_ends_with_the_callers_own_deadline(pool: Pool) -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK + b"content-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with playing(play) as provider:
        answer = await ask(pool, provider.origin, deadlines=Deadlines(5, 0.3, 0.3))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await whole(answer)
        answer.aclose()
        await until(lambda: provider.standing == 0)


async def test_reader_that_waits_is_told_when_somebody_closes_the_answer(pool: Pool) -> None:
    async with playing(always(OK + b"content-length: 9\r\n\r\nhi")) as provider:
        answer = await ask(pool, provider.origin)
        assert await answer.piece() == b"hi"
        reading = asyncio.create_task(answer.piece())
        await asyncio.sleep(0)
        answer.aclose()
        answer.aclose()
        with pytest.raises(httpx.ReadError, match="closed"):
            await reading
        await until(lambda: provider.standing == 0)


async def test_closing_a_complete_answer_leaves_its_connection_alone(pool: Pool) -> None:
    async with playing(always(TWO)) as provider:
        first = await ask(pool, provider.origin)
        await until(lambda: first.complete)
        second = await ask(pool, provider.origin)
        first.aclose()
        assert (await whole(first), await whole(second), provider.connections) == (b"hi", b"hi", 1)


async def test_connection_that_is_reset_in_the_middle_is_a_read_error(pool: Pool) -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK + b"\r\nuntil it closes")  # a reset is no end of it
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER of 0 s
        writer.transport.abort()

    async with playing(play) as provider:
        with pytest.raises(httpx.ReadError):
            await whole(await ask(pool, provider.origin))


class _Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        class Socket:
            def fileno(self) -> int:
                return 0

        return Socket()

    def write(self, data: object) -> None: ...
    def abort(self) -> None:
        self.closing = True

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def may_be_used(one: Connection) -> bool:
    return one.usable


async def test_connection_is_usable_only_while_it_carries_nothing_and_stays_open() -> None:
    one, wire = Connection(lambda _: None, lambda _: None), _Wire()
    assert not may_be_used(one)
    one.connection_made(wire)
    one._poll = select.poll()
    assert may_be_used(one)
    one.ask(b"", [b""], SOON)
    assert not may_be_used(one)
    one.data_received(TWO)
    assert may_be_used(one)
    one._look()  # a timer of the last answer
    assert may_be_used(one)
    one.abort()
    assert not may_be_used(one)
    one.data_received(b"late")
    one.connection_lost(None)
    assert not may_be_used(one)
    one.abort()


EVERY = [row[0] for row in GOOD.values()] + [row[0] for row in BAD.values()]
SHAPES = sorted({raw for raw in EVERY if len(raw) < 10_000})


def outcome(pieces: list[bytes], *, keep: bool = True) -> tuple[object, ...]:
    """What a connection makes of bytes in these pieces: status, headers, body, error, and whether it may go on."""
    released: list[Connection] = []
    one = Connection(released.append, lambda _: None)
    wire = _Wire()
    one.connection_made(wire)
    answer = one.ask(b"", [b""], SOON)
    body = bytearray()
    for piece in pieces:
        if not wire.closing:
            one.data_received(piece)
            body += b"".join(answer._pieces) if keep else b""
            answer._pieces.clear()
    error = answer._error
    said = None if error is None else (type(error), str(error))
    one._stop_timer()
    return answer.status, answer.headers, bytes(body), answer.complete, said, bool(released) and not wire.closing


@given(raw=st.sampled_from(SHAPES), cuts=st.sets(st.integers(1, 10_000), max_size=12))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_how_an_answer_is_cut_into_pieces_changes_nothing(raw: bytes, cuts: set[int]) -> None:
    async def run() -> None:
        places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
        pieces = [raw[a:b] for a, b in pairwise(places)]
        assert outcome([piece for piece in pieces if piece]) == outcome([raw] if raw else [])

    asyncio.run(run())


async def test_what_is_left_of_an_answer_comes_before_its_error() -> None:
    answer = Answer(lambda _: None, lambda: None, lambda: None)
    answer.begin(200, {})
    answer.feed(b"a")
    answer.fail(httpx.ReadError("first"))
    answer.fail(httpx.ReadError("second"))
    assert await answer.piece() == b"a"
    with pytest.raises(httpx.ReadError, match="first"):
        await answer.piece()


async def test_answer_that_is_left_gives_its_connection_back_when_it_ends_by_itself(pool: Pool) -> None:
    """The end mark of a stream often comes before the end of its body."""
    ends = asyncio.Event()

    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            writer.write(CHUNKED + b"4\r\ndone\r\n")
            await ends.wait()
            writer.write(b"4\r\nmore\r\n0\r\n\r\n")

    async with playing(play) as provider:
        answer = await ask(pool, provider.origin)
        assert await answer.piece() == b"done"
        answer.leave()
        answer.leave()
        answer.aclose()  # whoever left it may close it as well
        ends.set()
        await until(lambda: answer.complete)
        assert await whole(await ask(pool, provider.origin)) == b"donemore" and provider.connections == 1


async def test_answer_that_is_left_and_does_not_end_takes_its_connection_with_it(pool: Pool) -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(CHUNKED + b"4\r\ndone\r\n")
        while await reader.read(1):
            pass

    async with playing(play) as provider:
        answer = await ask(pool, provider.origin)
        assert await answer.piece() == b"done"
        answer.leave()
        await until(lambda: provider.standing == 0)
