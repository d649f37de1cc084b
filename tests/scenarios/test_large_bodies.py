"""Bodies that are held while they wait for an answer are bounded together: nobody's pictures take all the memory."""

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.bodies import Bodies
from gateway.errors import ApiError
from tests.harness import SANDBOXED, RunningGateway, sandbox_config
from tests.scenarios.cutting import KEYS, Case, asking, caller, cutting, plain_answer
from tests.scenarios.truth import serving

CHAT = "/v1/chat/completions"


def large(number: int) -> dict[str, object]:
    body = asking("openai", number)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}
    text = {"type": "text", "text": f"case-{number}"}
    return body | {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": [text, picture]}]}


async def test_large_body_without_room_is_refused_and_small_ones_are_not(tmp_path: Path) -> None:
    async with cutting() as upstream:
        config = sandbox_config(upstream.url, "[limits]\nmax_held_bytes = 1000000\n", SANDBOXED)
        gateway = RunningGateway(tmp_path, config)
        await asyncio.to_thread(gateway.__enter__)
        try:
            token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
            upstream.cases[1] = Case([plain_answer(b"POST /chat ")], pause_s=600, raw=True)
            async with caller(gateway.url, token) as client:
                waits = asyncio.ensure_future(client.post(CHAT, json=large(1)))
                while not upstream.asked[1]:
                    await asyncio.sleep(0.01)
                refused = await client.post(CHAT, json=large(2))
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "gateway_busy")
                assert refused.headers["x-should-retry"] == "true" and not upstream.asked[2]
                assert (await client.post(CHAT, json=asking("openai", 3))).status_code == 200
                waits.cancel()
                await asyncio.gather(waits, return_exceptions=True)
                async with asyncio.timeout(10):
                    while (answer := await client.post(CHAT, json=large(4))).status_code == 503:
                        await asyncio.sleep(0.01)
                assert answer.status_code == 200, answer.text
        finally:
            await asyncio.to_thread(gateway.__exit__, None, None, None)


async def test_client_that_leaves_after_a_large_body_is_noticed_at_once(tmp_path: Path) -> None:
    """The last of a body may come in one piece that is more than is read ahead: reading goes on all the same."""
    async with cutting() as upstream, serving(RunningGateway(tmp_path, sandbox_config(upstream.url))) as gateway:
        token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
        for number, size in enumerate(range(100_000, 900_000, 80_000)):
            upstream.cases[number] = Case([b"never"], pause_s=600, raw=True)
            message = {"role": "user", "content": f"case-{number} " + "A" * size}
            writer = await sent_when_it_is_read(gateway, token, asking("openai", number) | {"messages": [message]})
            while not upstream.asked[number]:
                await asyncio.sleep(0.01)
            writer.close()
            async with asyncio.timeout(10):
                while number not in upstream.gone:
                    await asyncio.sleep(0.01)


async def sent_when_it_is_read(gateway: RunningGateway, token: str, body: object) -> asyncio.StreamWriter:
    """A request whose body is sent at once, when somebody waits for it; nothing of the answer is read."""
    raw = json.dumps(body).encode()
    url = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\nexpect: 100-continue\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(raw)
    await writer.drain()
    return writer


def test_room_is_given_back_once() -> None:
    bodies = Bodies(10)
    one, other = bodies.share(), bodies.share()
    one.take(6)
    one.take(4)
    with pytest.raises(ApiError):
        other.take(1)
    one.give_back()
    one.give_back()
    other.take(10)
    assert bodies.held == 10
