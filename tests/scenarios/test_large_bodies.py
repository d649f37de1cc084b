"""Bodies that are held while they wait for an answer are bounded together: nobody's pictures take all the memory."""

import asyncio
from pathlib import Path

import pytest

from gateway.bodies import Bodies
from gateway.errors import ApiError
from tests.harness import SANDBOXED, RunningGateway, sandbox_config
from tests.scenarios.cutting import KEYS, Case, asking, caller, cutting, plain_answer

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
            upstream.cases[1] = Case([plain_answer(b"POST /chat ")], pause_s=60, raw=True)
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
                while (answer := await client.post(CHAT, json=large(4))).status_code == 503:
                    await asyncio.sleep(0.01)
                assert answer.status_code == 200, answer.text
        finally:
            await asyncio.to_thread(gateway.__exit__, None, None, None)


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
