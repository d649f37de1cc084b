"""Which addresses are connected to, shown by what the interpreter itself reports when a socket connects."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.outbound.addresses import INWARD, Address, is_public, literal, look_up
from gateway.outbound.pool import Origin, Pool
from tests.gateway.outbound.playing import always, ask, counts, playing, whole

ROWS: dict[str, list[str]] = tomllib.loads((Path(__file__).parents[2] / "vectors/inner_addresses.toml").read_text())
FORMS = (
    "http://{}/v1",
    "https://{}/v1",
    "http://{}:22/v1",
    "https://{}:8443/",
    "http://user:secret@{}/v1",
    "https://api.openai.com@{}:65535/v1",
    "gopher://{}:70/_x",
)
ODD = (
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "http:///v1",
    "http://[::1",
    "http://127.0.0.1:99999/",
    "//x",
)
PUBLIC = "8.8.8.8 9.255.255.255 11.0.0.1 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 2606:4700::1111 2001:4860::8888"

CHILD = """
import asyncio, json, sys
connected = []
sys.addaudithook(lambda event, args: connected.append(args[1]) if event == "socket.connect" else None)
import httpx
from gateway.transport import Transport
from tests.gateway.outbound.refused import exchange
async def main():
    refused = {}
    transport = Transport(connect_timeout_s=3, max_connections=10, listed=())
    for url in json.load(sys.stdin):
        try:
            await transport.post(exchange(url), b"/chat/completions", (), [b"{}"], 1)
            refused[url] = ""
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            refused[url] = type(error).__name__
    print(json.dumps({"connected": [str(one) for one in connected], "refused": refused}))
    del connected[:]
    listed = Transport(connect_timeout_s=3, max_connections=10, listed=("127.0.0.1:9",))
    try:
        await listed.post(exchange("http://127.0.0.1:9/v1"), b"/chat/completions", (), [b"{}"], 1)
    except httpx.HTTPError:
        print(json.dumps([str(one) for one in connected]))
asyncio.run(main())
"""


def test_no_spelling_of_an_inner_address_is_connected_to() -> None:
    urls = [form.format(host) for hosts in ROWS.values() for host in hosts for form in FORMS] + list(ODD)
    assert len(urls) > 400
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(urls),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    seen = json.loads(first)
    assert seen["connected"] == [] and len(seen["refused"]) == len(urls) and all(seen["refused"].values())
    assert json.loads(second) == ["('127.0.0.1', 9)"], "the hook does see what the operator listed"


async def test_name_that_moves_to_an_inner_address_is_not_followed() -> None:
    """Judged and connected to is one and the same answer: each connection looks the name up once."""
    answers: Iterator[int] = count()
    asked: list[str] = []

    async def moving(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ip_address("8.8.8.8" if next(answers) == 0 else "127.0.0.1")]

    assert await look_up("rebinding.example", 443, private_ok=False, resolve=moving) == [ip_address("8.8.8.8")]
    async with playing(always(b"")) as provider:
        pool = Pool(most=4, resolve=moving)
        for n in range(3):
            with pytest.raises(httpx.ConnectError, match="at a private address"):
                await ask(pool, Origin("rebinding.example", provider.port, tls=False))
            assert len(asked) == n + 2
        assert provider.connections == 0 and counts(pool) == (0, 0, 0)


async def test_name_that_was_connected_to_is_looked_up_again_for_the_next_connection() -> None:
    places = iter([["127.0.0.1"], ["10.0.0.1", "::1", "fd00:ec2::254"]])

    async def moving(host: str, port: int) -> list[Address]:
        return [ip_address(text) for text in next(places)]

    pool = Pool(most=4, resolve=moving)
    async with playing(always(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi")) as provider:
        listed = Origin("x.example", provider.port, tls=False, private_ok=True)
        assert await whole(await ask(pool, listed)) == b"hi"
        with pytest.raises(httpx.ConnectError, match="at a private address"):
            await ask(pool, Origin("x.example", provider.port, tls=False))
        await pool.aclose()


async def test_of_several_addresses_the_public_ones_remain_in_order_and_once() -> None:
    async def mixed(host: str, port: int) -> list[Address]:
        return [ip_address(text) for text in ("10.0.0.1", "1.1.1.1", "::1", "8.8.8.8", "1.1.1.1")]

    found = await look_up("x.example", 443, private_ok=False, resolve=mixed)
    assert found == [ip_address("1.1.1.1"), ip_address("8.8.8.8")]
    assert len(await look_up("x.example", 443, private_ok=True, resolve=mixed)) == 4


async def test_what_cannot_be_looked_up_is_an_error_of_the_connection() -> None:
    async def none(host: str, port: int) -> list[Address]:
        return []

    async def away(host: str, port: int) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(httpx.ConnectError, match="has no address"):
        await look_up("x.example", 443, private_ok=True, resolve=none)
    with pytest.raises(httpx.ConnectError, match="could not be looked up"):
        await look_up("x.example", 443, private_ok=True, resolve=away)
    for bad in ("a..b", "x" * 64 + ".example", "\ud800"):
        with pytest.raises(httpx.ConnectError, match="is no host name"):
            await look_up(bad, 443, private_ok=True)
    assert await look_up("localhost", 443, private_ok=True)


def test_public_addresses_are_public() -> None:
    assert all(is_public(ip_address(text)) for text in PUBLIC.split())
    assert not any(is_public(ip_address(text)) for text in ("168.63.129.16", "100.100.100.200", "192.0.0.192"))
    assert is_public(ip_address("::ffff:8.8.8.8")) and literal("8.8.8.8") and literal("example.com") is None


@given(number=st.integers(0, 2**128 - 1), network=st.sampled_from(INWARD))
def test_no_address_of_a_network_that_embeds_others_is_public(number: int, network: str) -> None:
    inside = ip_network(network)
    address = inside[number % inside.num_addresses]
    assert not is_public(address)


@given(number=st.integers(0, 2**32 - 1))
def test_mapped_address_is_judged_as_what_it_stands_for(number: int) -> None:
    plain = ip_address(number)
    assert is_public(ip_address(f"::ffff:{plain}")) == is_public(plain)


def test_event_loop_is_given_addresses_alone() -> None:
    """Of a name, the system would make its own second look-up."""

    async def here(host: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1")]

    async def run() -> list[object]:
        loop, asked = asyncio.get_running_loop(), list[object]()
        original = loop.create_connection

        async def noting(made: Any, host: Any, *rest: Any, **more: Any) -> object:
            asked.append(host)
            return await original(made, host, *rest, **more)

        loop.create_connection = noting  # type: ignore[method-assign, assignment]
        pool = Pool(most=2, resolve=here)
        async with playing(always(b"HTTP/1.1 204 No\r\n\r\n")) as provider:
            await ask(pool, Origin("name.example", provider.port, tls=False, private_ok=True))
            await pool.aclose()
        return asked

    assert asyncio.run(run()) == ["127.0.0.1"]
