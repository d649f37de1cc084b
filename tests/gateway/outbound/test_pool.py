"""How many connections there are, whose turn it is, and that every way to end gives back what it took."""

import asyncio
import os
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from gateway.outbound.addresses import Address
from gateway.outbound.connection import Connection, Deadlines
from gateway.outbound.pool import KEPT_S, Origin, Pool, _Slot
from tests.gateway.outbound.playing import Play, Playing, always, ask, counts, playing, request, until, whole

TWO = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
NONE = (0, 0, 0)


def held(gate: asyncio.Event) -> Play:
    """Answers when the gate opens."""

    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            state.requests.append(await request(reader))
            opening, leaving = asyncio.ensure_future(gate.wait()), asyncio.ensure_future(reader.read(1))
            await asyncio.wait((opening, leaving), return_when=asyncio.FIRST_COMPLETED)
            opening.cancel()
            if leaving.done():
                return
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            writer.write(TWO)

    return play


async def answered(pool: Pool, origin: Origin, body: bytes = b"{}") -> bytes:
    return await whole(await ask(pool, origin, body))


@pytest.fixture
async def gate() -> AsyncIterator[asyncio.Event]:
    yield asyncio.Event()


async def test_connection_is_used_again_and_a_new_one_is_made_while_it_is_busy() -> None:
    pool = Pool(most=20)
    async with playing(always(TWO)) as provider:
        for _ in range(5):
            assert await answered(pool, provider.origin) == b"hi"
        assert provider.connections == 1
        assert await asyncio.gather(*[answered(pool, provider.origin) for _ in range(8)]) == [b"hi"] * 8
        assert provider.connections <= 8
        await pool.aclose()
        await until(lambda: provider.standing == 0)
    assert counts(pool) == NONE


async def test_idle_connection_that_the_other_end_closed_is_not_used() -> None:
    pool = Pool(most=20)
    for _ in range(20):  # the close may or may not have reached the event loop
        async with playing(always(TWO, again=False)) as provider:
            assert [await answered(pool, provider.origin) for _ in range(3)] == [b"hi"] * 3
            assert provider.connections == 3
    await pool.aclose()
    assert counts(pool) == NONE


async def test_close_that_only_the_kernel_knows_of_is_seen() -> None:
    """The loop has not run since the other end closed: a request sent now would be lost."""
    pool, listener = Pool(most=4), socket.create_server(("127.0.0.1", 0))
    origin = Origin("127.0.0.1", listener.getsockname()[1], tls=False, private_ok=True)
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(answered(pool, origin))
    there, _ = await loop.run_in_executor(None, listener.accept)
    await loop.run_in_executor(None, there.recv, 1000)
    there.sendall(TWO)
    assert await asking == b"hi"
    there.close()
    assert pool._idle(origin) is None
    listener.close()
    await pool.aclose()


async def test_idle_connection_is_not_used_after_its_time() -> None:
    pool = Pool(most=20)
    async with playing(always(TWO)) as provider:
        await answered(pool, provider.origin)
        (kept,) = pool._connections
        kept.idle_since -= KEPT_S + 1
        await answered(pool, provider.origin)
        assert provider.connections == 2
        await pool.aclose()


async def test_one_host_has_at_most_half_of_all_connections(gate: asyncio.Event) -> None:
    pool = Pool(most=6)
    async with playing(held(gate)) as busy, playing(always(TWO)) as other:
        tasks = [asyncio.create_task(answered(pool, busy.origin, b"%d" % n)) for n in range(9)]
        await until(lambda: len(busy.requests) == 3 and pool._waiting == 6)
        assert await answered(pool, other.origin) == b"hi", "the other half is free"
        assert busy.connections == 3
        gate.set()
        assert await asyncio.gather(*tasks) == [b"hi"] * 9
        assert busy.connections == 3
        assert busy.requests[3:] == [b"%d" % n for n in range(3, 9)], "first come, first served"
        await pool.aclose()
    assert counts(pool) == NONE


async def test_waiting_host_gets_the_room_of_an_idle_connection_elsewhere(gate: asyncio.Event) -> None:
    pool = Pool(most=2)
    async with playing(held(gate)) as one, playing(held(gate)) as two, playing(always(TWO)) as three:
        tasks = [asyncio.create_task(answered(pool, each.origin)) for each in (one, two)]
        await until(lambda: bool(one.requests and two.requests))
        late = asyncio.create_task(answered(pool, three.origin))
        await until(lambda: pool._waiting == 1)
        gate.set()  # both are idle then, at hosts for which nobody waits
        assert await asyncio.wait_for(late, 2) == b"hi"
        assert await asyncio.gather(*tasks) == [b"hi"] * 2
        assert await asyncio.wait_for(answered(pool, two.origin), 2) == b"hi", "of what is idle by then, one is dropped"
        await pool.aclose()
    assert counts(pool) == NONE


async def test_idle_connection_elsewhere_makes_room_at_once() -> None:
    pool = Pool(most=2)
    async with playing(always(TWO)) as one, playing(always(TWO)) as two, playing(always(TWO)) as three:
        for each in (one, two, three, one):
            assert await asyncio.wait_for(answered(pool, each.origin), 2) == b"hi"
            assert pool._open <= 2
        await pool.aclose()
    assert counts(pool) == NONE


async def test_turn_goes_to_who_can_use_it_and_not_to_a_host_that_is_full(gate: asyncio.Event) -> None:
    pool, soon = Pool(most=4), Deadlines(2, 5, 5)
    own = asyncio.Event()
    async with playing(held(gate)) as full, playing(held(own)) as leaving, playing(held(gate)) as three:
        tasks = [asyncio.create_task(ask(pool, full.origin)) for _ in range(3)]  # two, and one that waits
        tasks += [asyncio.create_task(ask(pool, each.origin)) for each in (leaving, three)]
        await until(lambda: pool._open == 4 and pool._waiting == 1)
        async with playing(always(TWO)) as late:
            asking = asyncio.create_task(ask(pool, late.origin, deadlines=soon))
            await until(lambda: pool._waiting == 2)
            tasks[3].cancel()  # one connection ends; the host that waits longest may not have another
            assert (await asking).status == 200
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pool.aclose()
    assert counts(pool) == NONE


async def test_turn_of_one_who_leaves_at_that_moment_is_the_next_ones(gate: asyncio.Event) -> None:
    pool = Pool(most=2)
    async with playing(held(gate)) as provider:
        first = asyncio.create_task(answered(pool, provider.origin))
        await until(lambda: len(provider.requests) == 1)
        waiting = [asyncio.create_task(answered(pool, provider.origin, b"%d" % n)) for n in range(3)]
        await until(lambda: pool._waiting == 3)
        (connection,) = pool._connections
        released = connection._released

        def leaving(one: Connection) -> None:
            waiting[0].cancel()  # while it waits: its turn does not come
            released(one)
            waiting[1].cancel()  # after it got its turn, before it takes it

        connection._released = leaving
        gate.set()
        await until(lambda: waiting[0].done() and waiting[1].done())
        connection._released = released
        assert await asyncio.wait_for(waiting[2], 2) == b"hi" and await first == b"hi"
        assert waiting[0].cancelled() and waiting[1].cancelled()
        await pool.aclose()
    assert counts(pool) == NONE


async def test_one_who_was_overtaken_keeps_the_place_in_the_queue(gate: asyncio.Event) -> None:
    pool = Pool(most=2)
    async with playing(held(gate)) as provider:
        first = asyncio.create_task(answered(pool, provider.origin))
        await until(lambda: len(provider.requests) == 1)
        waiting = [asyncio.create_task(answered(pool, provider.origin, b"%d" % n)) for n in range(2)]
        await until(lambda: pool._waiting == 2)
        quick: list[asyncio.Task[bytes]] = []
        turn = pool._places[provider.origin].waiting[0]
        connection = next(iter(pool._connections))
        released = connection._released

        def overtaking(one: Connection) -> None:
            released(one)
            if not quick:  # before the one whose turn it is has run
                coroutine = answered(pool, provider.origin, b"quick")
                coroutine.send(None)
                quick.append(asyncio.create_task(asyncio.sleep(0, b"")))
                coroutine.close()

        connection._released = overtaking
        gate.set()
        assert await asyncio.wait_for(asyncio.gather(first, *waiting), 3) == [b"hi"] * 3
        assert turn.done() and provider.requests[-1] == b"1"
        await pool.aclose()
    assert counts(pool) == NONE


async def test_waiting_ends_at_the_connect_deadline(gate: asyncio.Event) -> None:
    pool = Pool(most=2)
    async with playing(held(gate)) as provider:
        first = asyncio.create_task(answered(pool, provider.origin))
        await until(lambda: len(provider.requests) == 1)
        with pytest.raises(httpx.ConnectTimeout, match=r"within 0\.1 s"):
            await ask(pool, provider.origin, deadlines=Deadlines(0.1, 5, 5))
        gate.set()
        await first
        await pool.aclose()
    assert counts(pool) == NONE


async def test_dialling_that_is_cancelled_or_too_slow_gives_its_place_back() -> None:
    pool = Pool(most=2, resolve=never)
    origin = Origin("slow.example", 80, tls=False)
    with pytest.raises(httpx.ConnectTimeout):
        await ask(pool, origin, deadlines=Deadlines(0.05, 5, 5))
    assert counts(pool) == NONE
    dialling = asyncio.create_task(ask(pool, origin))
    await until(lambda: pool._open == 1)
    dialling.cancel()
    await asyncio.gather(dialling, return_exceptions=True)
    assert dialling.cancelled() and counts(pool) == NONE


async def never(host: str, port: int) -> list[Address]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_request_that_is_cancelled_closes_its_connection(gate: asyncio.Event) -> None:
    pool = Pool(most=4)
    async with playing(held(gate)) as provider:
        asking = asyncio.create_task(ask(pool, provider.origin))
        await until(lambda: len(provider.requests) == 1)
        asking.cancel()
        await until(lambda: provider.standing == 0 and counts(pool) == NONE)


async def test_next_address_is_tried_and_the_last_failure_told() -> None:
    async def two(host: str, port: int) -> list[Address]:
        return [ip_address("127.9.9.9"), ip_address("127.0.0.1")]

    pool = Pool(most=4, resolve=two)
    async with playing(always(TWO)) as provider:  # at the second address alone
        origin = Origin("provider.example", provider.port, tls=False, private_ok=True)
        assert await answered(pool, origin) == b"hi"
        await pool.aclose()
    closed = Pool(most=4, resolve=two)
    with pytest.raises(httpx.ConnectError, match=r"no connection to provider\.example"):
        await ask(closed, origin)
    assert counts(pool) == counts(closed) == NONE


async def test_host_that_hangs_up_at_once_is_an_error_of_the_connection() -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    pool = Pool(most=4)
    async with playing(play) as provider:
        for _ in range(30):
            with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
                await ask(pool, provider.origin)
    assert counts(pool) == NONE


async def test_connection_that_is_gone_before_it_is_used_is_not_used() -> None:
    class Gone(Pool):
        async def _connect(self, origin: Origin, within_s: float) -> Connection:
            made = await super()._connect(origin, within_s)
            made.abort()
            await asyncio.sleep(0.05)
            return made

    pool = Gone(most=4)
    async with playing(always(TWO)) as provider:
        with pytest.raises(httpx.ConnectError, match="hung up at once"):
            await ask(pool, provider.origin)
    assert counts(pool) == NONE


async def test_bytes_before_any_request_end_the_connection() -> None:
    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.requests.append(await request(reader))
        writer.write(TWO)
        await asyncio.sleep(0.05)
        writer.write(TWO)  # an answer to nothing, for the next request to take
        await reader.read()

    pool = Pool(most=4)
    async with playing(play) as provider:
        assert await answered(pool, provider.origin) == b"hi"
        await until(lambda: provider.standing == 0 and counts(pool) == NONE)


async def test_closing_tells_those_who_read_and_those_who_wait(gate: asyncio.Event) -> None:
    pool = Pool(most=2)
    async with playing(held(gate)) as provider:
        tasks = [asyncio.create_task(ask(pool, provider.origin)) for _ in range(4)]
        await until(lambda: len(provider.requests) == 1 and pool._waiting == 3)
        await pool.aclose()
        got = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
        assert [type(error) for error in got] == [httpx.ReadError] + [httpx.ConnectError] * 3
        await until(lambda: provider.standing == 0)
        with pytest.raises(httpx.ConnectError):
            await ask(pool, provider.origin)
    assert counts(pool) == NONE


async def test_closing_passes_over_those_who_have_just_left(gate: asyncio.Event) -> None:
    pool = Pool(most=2)
    async with playing(held(gate)) as provider:
        tasks = [asyncio.create_task(ask(pool, provider.origin)) for _ in range(3)]
        await until(lambda: pool._waiting == 2)
        tasks[1].cancel()
        await pool.aclose()
        got = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
        assert sorted(type(error).__name__ for error in got) == ["CancelledError", "ConnectError", "ReadError"]
    assert counts(pool) == NONE


async def test_closing_ends_an_answer_whose_reader_was_behind() -> None:
    length = 64 * 1024 * 1024
    pool = Pool(most=2)
    async with playing(always(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length + b"x" * length)) as provider:
        answer = await ask(pool, provider.origin)
        await until(lambda: answer._paused)
        await pool.aclose()
        assert await answer.piece()
        with pytest.raises(httpx.ReadError, match="being closed"):
            await answer.piece()
    assert counts(pool) == NONE


def test_place_is_given_back_once() -> None:
    pool = Pool(most=2)
    place = pool._place(Origin("a", 1, tls=False))
    pool._open = place.open = 1
    slot = _Slot(pool, place)
    slot.free()
    slot.free()
    assert counts(pool) == NONE


async def test_connection_that_comes_back_while_the_pool_closes_is_closed(gate: asyncio.Event) -> None:
    pool = Pool(most=4)
    async with playing(always(TWO)) as provider:
        answer = await ask(pool, provider.origin)
        pool._closing = True
        await whole(answer)
        await pool.aclose()
        await until(lambda: provider.standing == 0)
    assert counts(pool) == NONE


async def test_nothing_is_lost_when_hundreds_come_go_wait_and_leave() -> None:
    random_ = random.Random(5)

    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            body = await request(reader)
            await asyncio.sleep(random_.random() * 0.01)
            kind = random_.random()
            if kind < 0.1:
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            if kind < 0.2:
                return

    pool = Pool(most=8)

    async def one(origin: Origin, number: int) -> bool:
        body = b"%d" % number
        if random_.random() < 0.3:
            with_timeout = asyncio.wait_for(answered(pool, origin, body), random_.random() * 0.02)
            return await asyncio.gather(with_timeout, return_exceptions=True) is None
        (got,) = await asyncio.gather(answered(pool, origin, body), return_exceptions=True)
        assert got == body or (isinstance(got, httpx.HTTPError) and not isinstance(got, httpx.ConnectTimeout)), got
        return got == body

    async with playing(play) as a, playing(play) as b, playing(play) as c:
        origins = [each.origin for each in (a, b, c)]
        done = await asyncio.wait_for(asyncio.gather(*[one(origins[n % 3], n) for n in range(900)]), 30)
        assert sum(done) > 400
        await until(lambda: pool._waiting == 0)
        await pool.aclose()
        await until(lambda: counts(pool) == NONE)


# TLS


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and signed by it right.pem (for provider.test) and other.pem; self.pem is signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
    openssl(folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA")
    for name, host in (("right", "provider.test"), ("other", "other.test")):
        openssl(folder, "req", *new[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={host}")
        (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\n")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext", "-days", "30")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *sign, "-out", f"{name}.pem")
    san = ("-addext", "subjectAltName=DNS:provider.test")
    openssl(folder, "req", "-x509", *new, *san, "-keyout", "self.key", "-out", "self.pem", "-subj", "/CN=provider.test")
    return folder


CHILD = """
import asyncio, ssl, sys
from ipaddress import ip_address
import httpx
from gateway.outbound.pool import Origin, Pool
from tests.gateway.outbound.playing import always, ask, playing, whole
async def here(host, port):
    return [ip_address("127.0.0.1")]
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    pool = Pool(most=4, resolve=here)
    async with playing(always(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nhi"), ssl=context) as provider:
        try:
            for _ in range(2):
                print((await whole(await ask(pool, Origin("provider.test", provider.port, True, True)))).decode())
        except httpx.ConnectError as error:
            print(error)
        print(len(provider.requests), "requests over", provider.connections)
        await pool.aclose()
    assert (pool._open, len(pool._places)) == (0, 0)
asyncio.run(main())
"""
TLS = {
    "right": (True, "hi\nhi\n2 requests over 1\n"),
    "other": (True, "no TLS with provider.test"),
    "self": (True, "no TLS with provider.test"),
    "unknown CA": (False, "no TLS with provider.test"),
}


async def test_certificate_that_signs_itself_is_refused_here_too(certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "self.pem", certificates / "self.key")
    pool = Pool(most=4)
    async with playing(always(TWO), ssl=context) as provider:
        with pytest.raises(httpx.ConnectError, match="no TLS with localhost"):
            await ask(pool, Origin("localhost", provider.port, tls=True, private_ok=True))
        assert provider.requests == []
    assert counts(pool) == NONE


@pytest.mark.parametrize("name", TLS)
def test_certificate_must_be_of_a_known_authority_and_for_the_host(certificates: Path, name: str) -> None:
    trusted, said = TLS[name]
    certificate = "right" if name == "unknown CA" else name
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
    if trusted:
        environment["SSL_CERT_FILE"] = str(certificates / "ca.pem")
    arguments = [str(certificates / f"{certificate}.{end}") for end in ("pem", "key")]
    command = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(said), done.stdout
    assert name == "right" or "0 requests" in done.stdout
