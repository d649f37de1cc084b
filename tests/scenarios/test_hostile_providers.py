"""The provider is the attacker: bombs (T24), redirects (T05), cookies (T10); the key that is not there (T09); and the
outage that is not made worse (G7)."""

import asyncio
import ctypes
import gzip
import os
import time
import zlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.transport import MAX_ANSWER
from tests.harness import SANDBOXED, RunningGateway, sandbox_config
from tests.scenarios.cutting import KEYS, MODELS, PLAIN, Case, Cutting, answer, asking, caller, cutting, keep_well

CHAT = "/v1/chat/completions"
FORCED = "deepseek/deepseek-v3.2"  # an OpenAI-wire provider that is sent through LiteLLM
LANES = {**MODELS, "forced": FORCED}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[RunningGateway, Cutting, str]]:
    async with cutting() as upstream:
        providers = {name: path for name, path in SANDBOXED.items() if name != "deepseek"}
        host = upstream.url.removeprefix("http://")
        forced = f'base_url = "{upstream.url}/v1"\nhosts = ["{host}"]\nforwarding = "litellm"\n'
        config = sandbox_config(upstream.url, f"[providers.deepseek]\n{forced}", providers)
        gateway = RunningGateway(folder, config)
        await asyncio.to_thread(gateway.__enter__)
        try:
            yield gateway, upstream, await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
        finally:
            await asyncio.to_thread(gateway.__exit__, None, None, None)


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ZEROS = b"\0" * (32 * 1024 * 1024)
COMMENTS = b": nothing yet\n\n" * 4000
CHOICE = b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]'
HOLLOW = b'data: {"usage":{"a":[' + b"{}," * 4_000_000 + b"{}]}," + CHOICE + b"}\n\n"
FOLDED = {"objects": b"{},", "numbers": b"1.5,"}  # six million of them are twenty times as large in memory


def coded(coding: str, body: bytes) -> list[bytes]:
    head = OK + f"content-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return [head, body]


LARGEST = "a body without an end"  # the last: of a plain answer, MAX_ANSWER bytes are kept
# What comes, and whether a stream was asked for.
BOMBS: dict[str, tuple[list[bytes], bool]] = {
    "gzip": (coded("gzip", gzip.compress(ZEROS, 1)), False),
    "gzip of a stream": (coded("gzip", gzip.compress(ZEROS, 1)), True),
    "gzip under its other name": (coded("x-gzip", gzip.compress(ZEROS, 1)), False),
    "deflate": (coded("deflate", zlib.compress(ZEROS, 1)), False),
    "br": (coded("br", b"\x0b\x02\x80" * 100), False),
    "zstd": (coded("zstd", b"\x28\xb5\x2f\xfd" * 100), False),
    "several": (coded("identity, gzip", gzip.compress(ZEROS, 1)), False),
    "gzip that does not say so": ([OK + b"content-length: 4\r\n\r\n", b"\x1f\x8b\x08\x00"], False),
    "headers without an end": ([OK, *[b"x: " + b"y" * 60_000 + b"\r\n"] * 20], False),
    "a header without an end": ([OK + b"x: ", *[b"y" * 60_000] * 20], False),
    "trailers without an end": ([CHUNKED + b"2\r\n{}\r\n0\r\n", *[b"x: " + b"y" * 60_000 + b"\r\n"] * 20], False),
    "a malformed chunk": ([CHUNKED + b"2\r\n{}\r\nzz\r\n"], False),
    "a malformed chunk of a stream": ([EVENTS + b"zz\r\n"], True),
    "a million tiny chunks": ([CHUNKED, *[b"1\r\n \r\n" * 10_000] * 100, b"0\r\n\r\n"], False),
    "an event without an end": ([EVENTS, *[b"100000\r\n" + b"x" * 0x100000 + b"\r\n"] * 20], True),
    "comments without an end": ([EVENTS, *[b"%x\r\n%b\r\n" % (len(COMMENTS), COMMENTS)] * 300], True),
    "an event of empty objects": ([EVENTS, *[b"%x\r\n%b\r\n" % (len(HOLLOW), HOLLOW)]], True),
    LARGEST: ([CHUNKED, *[b"100000\r\n" + b" " * 0x100000 + b"\r\n"] * 66], False),
}


def resident() -> int:
    """Bytes of this process that are in memory; the gateway is in it. What the C library keeps of freed ones, to hand
    them out again, is given back first, where it can be told to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_bombs_are_refused_while_others_are_served(tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, upstream, token), caller(gateway.url, token) as client:
        await keep_well(client, "openai", 20)
        good = asking("openai") | {"model": "openai/gpt-4o-mini"}
        waits: list[float] = []

        async def other() -> None:
            began = time.monotonic()
            reply = await client.post(CHAT, json=good)
            assert reply.status_code == 200, reply.text
            waits.append(time.monotonic() - began)

        async def bomb(number: int, *, stream: bool) -> httpx.Response:
            return await client.post(CHAT, json=asking("openai", number, stream=stream))

        await asyncio.gather(*[other() for _ in range(20)])
        calm, before = max(waits), resident()
        for number, (name, (pieces, stream)) in enumerate(BOMBS.items(), 1):
            upstream.cases[number] = Case(pieces, raw=True)
            others = asyncio.gather(*[other() for _ in range(5)])
            refused = await bomb(number, stream=stream)
            await others
            assert (refused.status_code, refused.json()["error"]["fault"]) == (502, "provider"), (name, refused.text)
            assert upstream.asked[number] == 1, name
            await keep_well(client, "openai", 3)
            kept = MAX_ANSWER if name == LARGEST else 0
            assert resident() - before < kept + 64 * 1024 * 1024, name
        assert max(waits) < 2 + 10 * calm, sorted(waits)[-5:]


@pytest.mark.parametrize("shape", FOLDED)
async def test_answer_that_unfolds_in_memory_is_made_into_objects_by_nobody(tmp_path: Path, shape: str) -> None:
    async with running(tmp_path) as (gateway, upstream, token), caller(gateway.url, token) as client:
        await client.post(CHAT, json=asking("openai") | {"model": FORCED})  # LiteLLM is in memory from here on
        whole = b'{"x":[' + FOLDED[shape] * 6_000_000 + b"{}]," + CHOICE + b"}"
        upstream.cases[1] = Case([OK + b"content-length: %d\r\n\r\n" % len(whole), whole], raw=True)
        asked = {"model": "openai/gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "case-1"}]}
        before, slowest = resident(), 0.0

        async def watched(call: Awaitable[httpx.Response]) -> httpx.Response:
            nonlocal slowest
            task = asyncio.ensure_future(call)
            while not task.done():
                began = time.monotonic()
                await client.get("/livez")
                slowest = max(slowest, time.monotonic() - began)
            return await task

        straight = await watched(client.post(CHAT, json=asked))
        assert straight.content == whole
        said_again = await watched(client.post("/v1/messages", json=asked | {"model": "minimax/MiniMax-M2"}))
        assert said_again.status_code == 502
        if shape == "objects":
            assert (await watched(client.post(CHAT, json=asked | {"model": FORCED}))).status_code == 502
        assert resident() - before < 8 * len(whole) and slowest < 2


async def test_redirect_is_followed_in_no_lane(tmp_path: Path) -> None:
    strangers = 0

    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal strangers
        strangers += 1
        writer.close()

    server = await asyncio.start_server(strange, "127.0.0.1", 0)
    elsewhere = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    places = (
        f"http://{elsewhere}/v1",
        f"//{elsewhere}/v1",
        f"http://user:x@{elsewhere}/v1",
        "/v1/again",
        f"{elsewhere}",
    )
    async with server, running(tmp_path) as (gateway, upstream, token), caller(gateway.url, token) as client:
        number = 0
        for lane, model in LANES.items():
            good = asking("openai") | {"model": model}
            for status in (301, 302, 303, 307, 308):
                for place in places:
                    number += 1
                    raw = answer({}, f"{status} Elsewhere", f"location: {place}\r\n".encode())
                    upstream.cases[number] = Case([raw], raw=True)
                    body = asking("openai", number, stream=number % 2 == 0) | {"model": model}
                    replies = await asyncio.gather(*[client.post(CHAT, json=one) for one in (good, good, body)])
                    assert [one.status_code for one in replies] == [200, 200, 502], (lane, place, replies[2].text)
                    assert "location" not in replies[2].headers and upstream.asked[number] == 1
    assert number == 100 and strangers == 0


async def test_cookie_of_one_tenants_answer_is_sent_for_nobody(tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, upstream, token):
        tokens = [token] + [await asyncio.to_thread(gateway.tenant, f"t{n}", "enterprise", KEYS) for n in range(3)]
        wires = {"openai": "openai", "anthropic": "anthropic", "gemini": "gemini", "forced": "openai"}
        for number, wire in enumerate(wires.values(), 1):
            cookie = b"set-cookie: session=of-somebody; path=/\r\n"
            upstream.cases[number] = Case([answer(PLAIN[wire], headers=cookie)], raw=True)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:

            async def one(turn: int) -> httpx.Response:
                lane = [*LANES][turn // 4 % 4]
                body = asking("openai", [*wires].index(lane) + 1) | {"model": LANES[lane]}
                client.cookies.clear()
                return await client.post(CHAT, json=body, headers={"authorization": f"Bearer {tokens[turn % 4]}"})

            replies = await asyncio.gather(*map(one, range(64)))
        assert {one.status_code for one in replies} == {200} and len(upstream.heads) == 64
        assert not any("set-cookie" in one.headers for one in replies)
        assert not any(b"cookie" in head.lower() for head in upstream.heads)


async def test_key_of_the_operators_environment_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {*KEYS, "GEMINI_API_KEY", "GROQ_API_KEY", "MINIMAX_2_7_API_KEY", "COHERE_API_KEY", "AZURE_API_KEY"}
    names |= {"AWS_SECRET_ACCESS_KEY", "LITELLM_API_KEY", "LITELLM_PROXY_API_KEY", "OPENAI_ORGANIZATION", "HF_TOKEN"}
    for name in names:
        monkeypatch.setenv(name, "sk-canary-of-the-operator")
    async with running(tmp_path) as (gateway, upstream, token):
        without = await asyncio.to_thread(gateway.tenant, "keyless", "pro", {"GROQ_API_KEY": "Key.of-groq-0123"})
        for model in LANES.values():
            for stream in (True, False):
                body = asking("openai", stream=stream) | {"model": model}
                reply = await asyncio.to_thread(gateway.post, CHAT, without, body)
                assert reply.status_code == 403, reply.text
                assert reply.json()["error"]["code"] == "provider_key_missing", reply.text
        assert upstream.heads == []
        for model in LANES.values():
            reply = await asyncio.to_thread(gateway.post, CHAT, token, asking("openai") | {"model": model})
            assert reply.status_code == 200
        assert len(upstream.heads) == len(LANES) and b"canary" not in b"".join(upstream.heads)


async def test_outage_is_not_made_worse(tmp_path: Path) -> None:
    """Every provider fails every request, and every request has others to turn to. WARDGATE_OUTAGE says how many; G7
    is 60,000."""
    count = int(os.environ.get("WARDGATE_OUTAGE", "200"))
    async with running(tmp_path) as (gateway, upstream, token), caller(gateway.url, token) as client:
        upstream.cases = dict.fromkeys(range(1, count + 1), Case([answer({}, "503 Away")], raw=True))
        models = [MODELS["openai"], "openai/gpt-4o-mini", "deepseek/deepseek-v3.2"]
        bodies = [asking("openai", n, models=models, stream=n % 2 == 0) for n in range(1, count + 1)]
        for start in range(0, count, 50):
            replies = await asyncio.gather(*[client.post(CHAT, json=body) for body in bodies[start : start + 50]])
            assert {one.status_code for one in replies} <= {502, 503}, replies[0].text
        assert sum(upstream.asked.values()) <= 1.10 * count and max(upstream.asked.values()) <= 3
