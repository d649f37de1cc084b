"""The live check against real upstreams on real ports: whatever one answers becomes a result without a word of its own.

The canary key is in every answer that the upstream gives; it is in nothing that is passed on.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.live_check import AT_ONCE, LISTINGS, SHOWN, LiveCheck, LiveResult, Outcome, listing_of
from gateway.transport import Transport
from keystore.keyring import Credential
from keystore.providers import Provider, load_registry
from keystore.resolve import Store, Via
from keystore.secret import Secret
from tests.harness import Loopback
from tests.raw_upstream import RawUpstream, raw_upstream

CANARY = "Zq7canary0123456789abcdefXw"
MODELS = [{"id": f"model-{number}", "object": "model"} for number in range(7)]


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    opened = Transport(connect_timeout_s=2, max_connections=100, listed=Loopback())
    yield opened
    await opened.aclose()


def row(url: str, provider_id: str = "minimax", path: str = "/v1", **fields: object) -> Provider:
    host = url.removeprefix("http://")
    found = load_registry({provider_id: {"base_url": url + path, "hosts": [host]} | fields}).get(provider_id)
    assert found is not None
    return found


def credential(provider: Provider, key: str = CANARY, hosts: tuple[str, ...] | None = None) -> Credential:
    allowed = frozenset(provider.hosts if hosts is None else hosts)
    return Credential(provider.id, Secret(key), allowed, "X_API_KEY", Via.CANONICAL, Store.CREDENTIALS, provider)


async def ask(transport: Transport, provider: Provider, **limits: Any) -> LiveResult:
    (result,) = await LiveCheck(transport, **limits).ask([credential(provider)])
    assert CANARY not in repr(result) and "upstream said" not in repr(result)
    return result


# --- what the provider answers ---------------------------------------------------------------------------------------


async def test_no_name_is_told_that_holds_a_piece_of_the_key(upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain(json.dumps({"data": [{"id": f"x-{CANARY[:8]}"}]}))
    result = await ask(transport, row(upstream.url))
    assert (result.models, result.names) == (1, ())
    assert result.text.endswith(
        "none is named here, since each holds 8 characters of the key in a row or is no plain name"
    )


async def test_models_are_counted_and_five_are_named(upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain(json.dumps({"object": "list", "data": MODELS}))
    result = await ask(transport, row(upstream.url))
    assert (result.outcome, result.status, result.models, result.more) == (Outcome.LISTED, 200, 7, False)
    assert result.names == tuple(f"model-{number}" for number in range(SHOWN))
    assert result.text.startswith("minimax lists 7 models to this key, perhaps to anybody: model-0, model-1, ")
    assert result.text.endswith("model-4, and others")
    (sent,) = upstream.requests
    assert sent.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"\r\nauthorization: bearer " + CANARY.encode().lower() + b"\r\n" in sent.lower()


async def test_no_model_is_a_list_too(upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain('{"data": []}')
    result = await ask(transport, row(upstream.url))
    assert (result.outcome, result.models, result.names) == (Outcome.LISTED, 0, ())


async def test_bare_list_is_read(upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain(json.dumps(MODELS))
    assert (await ask(transport, row(upstream.url, "together"))).models == 7


async def test_anthropic_is_asked_in_its_own_way(upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain(json.dumps({"data": [{"id": "claude-opus-4-6"}], "has_more": True}))
    result = await ask(transport, row(upstream.url, "anthropic", ""))
    assert (result.models, result.more, result.proves) == (1, True, True)
    assert result.text == "anthropic lists at least 1 models to this key: claude-opus-4-6"
    (sent,) = upstream.requests
    assert sent.startswith(b"GET /v1/models?limit=1000 HTTP/1.1\r\n")
    assert b"\r\nanthropic-version: 2023-06-01\r\n" in sent
    assert b"\r\nx-api-key: " + CANARY.encode() + b"\r\n" in sent and b"authorization" not in sent.lower()


async def test_gemini_is_asked_in_its_own_way(upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain(json.dumps({"models": [{"name": "models/gemini-2.5-pro"}], "nextPageToken": "x"}))
    result = await ask(transport, row(upstream.url, "google", "/v1beta"))
    assert (result.names, result.more, result.proves) == (("gemini-2.5-pro",), True, True)
    (sent,) = upstream.requests
    assert sent.startswith(b"GET /v1beta/models?pageSize=1000 HTTP/1.1\r\n")
    assert b"\r\nx-goog-api-key: " + CANARY.encode() + b"\r\n" in sent


@dataclass(frozen=True)
class Refusal:
    status: str
    outcome: Outcome
    text: str
    body: str = json.dumps({"error": {"message": f"upstream said: no such key {CANARY}", "code": "x"}})


REFUSALS = {
    "401": Refusal("401 Unauthorized", Outcome.REJECTED, "minimax rejected this key (status 401)"),
    "403": Refusal("403 Forbidden", Outcome.REJECTED, "it is not valid, or lacks that permission (status 403)"),
    "a bad key at Google": Refusal(
        "400 Bad Request",
        Outcome.REJECTED,
        "rejected this key (status 400)",
        json.dumps({"error": {"message": f"API key not valid: {CANARY}", "status": "INVALID_ARGUMENT"}}),
    ),
    "400": Refusal("400 Bad Request", Outcome.MALFORMED, "(status 400)"),
    "402": Refusal("402 Payment Required", Outcome.LIMITED, "(status 402)"),
    "404": Refusal("404 Not Found", Outcome.NO_LISTING, "minimax has no list of models at this address (status 404)"),
    "429": Refusal("429 Too Many Requests", Outcome.LIMITED, "minimax limits calls with this key"),
    "500": Refusal("500 Internal Server Error", Outcome.TROUBLE, "minimax is in trouble"),
    "503 without a word": Refusal("503 Service Unavailable", Outcome.TROUBLE, "(status 503)", ""),
    "529": Refusal("529 Overloaded", Outcome.TROUBLE, "(status 529)"),
    "204": Refusal("204 No Content", Outcome.MALFORMED, "(status 204)", ""),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusal_is_told_by_its_class(name: str, upstream: RawUpstream, transport: Transport) -> None:
    refusal = REFUSALS[name]
    upstream.plain(refusal.body, status=refusal.status)
    result = await ask(transport, row(upstream.url))
    assert (result.outcome, result.status) == (refusal.outcome, int(refusal.status[:3]))
    assert refusal.text in result.text


MALFORMED = {
    "not JSON": "<html>" + CANARY,
    "nothing": "",
    "another object": '{"models": 3}',
    "a text": json.dumps(CANARY),
    "no list": json.dumps({"data": {CANARY: 1}}),
    "items without names": '{"data": [{"id": 3}]}',
    "items that are none": '{"data": [1, null]}',
    "deep": "[" * 100_000,
    "an error inside": json.dumps({"error": {"message": CANARY, "code": "invalid_api_key"}}),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_answer_that_is_no_list(name: str, upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain(MALFORMED[name])
    result = await ask(transport, row(upstream.url))
    assert (result.outcome, result.status, result.names) == (Outcome.MALFORMED, 200, ())


async def test_answer_that_is_no_http(upstream: RawUpstream, transport: Transport) -> None:
    for answer in (b"", b"SSH-2.0-" + CANARY.encode() + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"):
        upstream.answer = answer
        assert (await ask(transport, row(upstream.url))).outcome is Outcome.MALFORMED


async def test_names_never_hold_the_key(upstream: RawUpstream, transport: Transport) -> None:
    names = [CANARY, f"x-{CANARY[:12]}", "a\nb", "a" * 129, "[red]", "", "good-1", "sk-abcdefghijkl"]
    upstream.plain(json.dumps({"data": [{"id": name} for name in names]}))
    result = await ask(transport, row(upstream.url))
    assert (result.models, result.names) == (8, ("good-1",))


async def test_redirect_is_not_followed(upstream: RawUpstream, transport: Transport) -> None:
    with raw_upstream() as other:
        upstream.plain("{}", status="302 Found", headers=f"location: {other.url}/v1/models?key={CANARY}\r\n")
        result = await ask(transport, row(upstream.url))
        assert (result.outcome, result.status, other.requests) == (Outcome.MALFORMED, 302, [])


async def test_huge_answer_is_read_in_part(transport: Transport) -> None:
    """The upstream writes until it is hung up on."""
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        try:
            while sent < 64 * 1024 * 1024:
                writer.write(b" " * 65536)
                sent += 65536
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        result = await ask(transport, row(url), most=1024 * 1024)
    assert (result.outcome, result.text) == (Outcome.MALFORMED, "minimax answered with more than 1048576 bytes")
    assert sent < 32 * 1024 * 1024


async def test_provider_that_is_silent_or_away(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        silent = await ask(transport, row(url), timeout_s=0.1)
    assert (silent.outcome, silent.text) == (Outcome.TROUBLE, "minimax did not answer within 0.1 s")
    away = await ask(transport, row(url))
    assert (away.outcome, away.text) == (Outcome.TROUBLE, "minimax could not be reached")


async def test_provider_that_dribbles_is_given_up(transport: Transport) -> None:
    """Each byte comes in time, the answer never does."""
    hung_up = asyncio.Event()

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        gone = asyncio.create_task(reader.read())
        while not gone.done():
            writer.write(b" ")
            await asyncio.wait({gone}, timeout=0.02)
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert (await ask(transport, row(url), timeout_s=0.3)).outcome is Outcome.TROUBLE
        await asyncio.wait_for(hung_up.wait(), 10)


# --- where a key may go ----------------------------------------------------------------------------------------------


async def test_key_goes_to_its_own_hosts_alone(upstream: RawUpstream, transport: Transport) -> None:
    (result,) = await LiveCheck(transport).ask([credential(row(upstream.url), hosts=("api.minimax.io",))])
    assert (result.outcome, upstream.requests) == (Outcome.NOT_ASKED, [])


async def test_cohere_is_asked_beside_its_chat(upstream: RawUpstream, transport: Transport) -> None:
    upstream.plain(json.dumps({"models": [{"name": "command-r-08-2024"}]}))
    result = await ask(transport, row(upstream.url, "cohere", "/v2/chat"))
    assert (result.names, result.more, result.proves) == (("command-r-08-2024",), False, False)
    assert upstream.requests[0].startswith(b"GET /v1/models?page_size=1000 HTTP/1.1")


async def test_retired_provider_is_not_asked(upstream: RawUpstream, transport: Transport) -> None:
    result = await ask(transport, row(upstream.url, retired=True))
    assert (result.outcome, upstream.requests) == (Outcome.NOT_ASKED, [])


async def test_wire_without_a_listing_cannot_be_checked(upstream: RawUpstream, transport: Transport) -> None:
    result = await ask(transport, row(upstream.url, wire="litellm", litellm_prefix="bedrock"))
    assert (result.outcome, upstream.requests) == (Outcome.NO_LISTING, [])
    assert "cannot be checked live" in result.text


async def test_key_that_does_not_travel_cannot_be_checked(upstream: RawUpstream, transport: Transport) -> None:
    result = await ask(transport, row(upstream.url, "vertex", "/{project}/{location}"))
    assert (result.outcome, upstream.requests) == (Outcome.NO_LISTING, [])


def test_every_shipped_provider_has_a_listing_whose_keys_travel() -> None:
    assert [one.id for one in load_registry().providers if listing_of(one) is None] == ["vertex"]
    prefixes = {one.litellm_prefix for one in load_registry().providers}
    assert {prefix for _, prefix, _ in LISTINGS if prefix} <= prefixes


async def test_nothing_of_the_key_is_logged(
    upstream: RawUpstream, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.plain(json.dumps({"error": CANARY}), status="401 Unauthorized")
    await ask(transport, row(upstream.url))
    assert CANARY not in caplog.text


# --- several ---------------------------------------------------------------------------------------------------------


async def test_four_are_asked_at_once_and_answers_keep_their_order(transport: Transport) -> None:
    running, peak, told = 0, 0, list[tuple[int, int]]()
    four = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running, peak
        head = await reader.readuntil(b"\r\n\r\n")
        running += 1
        peak = max(peak, running)
        if running == AT_ONCE:
            four.set()
        await four.wait()
        for _ in range(100):  # whoever else is sent comes now
            await asyncio.sleep(0)
        name = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization")).split()[-1]
        body = json.dumps({"data": [{"id": f"of-{name.decode()[-2:]}"}]}).encode()
        running -= 1
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        provider = row(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        keys = [credential(provider, f"key-of-tenant-number-{number:02}") for number in range(10)]
        results = await LiveCheck(transport).ask(keys, lambda done, total: told.append((done, total)))
    assert [one.models for one in results] == [1] * 10
    assert peak == AT_ONCE and told == [(done, 10) for done in range(1, 11)]


async def test_no_question_is_no_answer(transport: Transport) -> None:
    assert await LiveCheck(transport).ask([]) == []
