"""RELIABILITY S12, S13, G9: the limits of a plan over HTTP, for one gateway and for two that share a Valkey, also when
that is gone."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from tests import services
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.scenarios.replicas import replicas
from tests.scenarios.truth import CHAT

KEY = {"MINIMAX_API_KEY": "sk-sandbox-a"}
SOLO = {"plan": "solo", "amount": 5, "remaining": 0}


def plan(name: str, **fields: int) -> str:
    """A plan with these limits, and none else that matters."""
    wide = {"requests_per_minute": 10_000_000, "tokens_per_minute": 10_000_000_000, "concurrency": 100_000} | fields
    return f"\n[plans.{name}]\n" + "\n".join(f"{key} = {value}" for key, value in wide.items()) + "\n"


PLANS = plan("solo", requests_per_minute=5) + plan("pro", requests_per_minute=90) + plan("team", concurrency=2)
PLANS += plan("enterprise", tokens_per_minute=3_000)


def body(order: str = "tokens=2", **more: object) -> dict[str, Any]:
    return {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": f"[sandbox: {order}] Hi"}]} | more


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("limited"), sandbox_config(running_sandbox.url, PLANS)) as gateway:
        yield gateway


def test_sixth_of_five_a_minute_is_refused_and_told_when_to_come_again(limited: RunningGateway) -> None:
    token = limited.tenant("five", "solo", KEY)
    answers = [limited.post(CHAT, token, body()) for _ in range(5)]
    began = time.monotonic()
    sixth = limited.post(CHAT, token, body())
    assert [each.status_code for each in answers] == [200] * 5
    assert [each.headers["x-ratelimit-remaining-requests"] for each in answers] == ["4", "3", "2", "1", "0"]
    assert {each.headers["x-ratelimit-limit-requests"] for each in answers} == {"5"}
    assert sixth.status_code == 429 and sixth.json()["error"]["code"] == "rate_limit_exceeded"
    assert sixth.json()["error"]["limit"] == {"kind": "requests", "whose": "plan", **SOLO}
    assert sixth.headers["x-ratelimit-remaining-requests"] == "0"
    wait_s = int(sixth.headers["retry-after-ms"]) / 1000
    assert 0 < wait_s <= 12 and int(sixth.headers["retry-after"]) == -(-int(sixth.headers["retry-after-ms"]) // 1000)
    assert sixth.headers["x-should-retry"] == "true"
    assert time.monotonic() - began < 12, "else the limit was free again"


def test_sdk_waits_as_told_and_succeeds(limited: RunningGateway, sandbox: SandboxServer) -> None:
    """90 a minute: the next is free after two thirds of a second, and the SDK asks again then, by itself."""
    token = limited.tenant("ninety", "pro", KEY)
    statuses: Counter[int] = Counter()
    while not statuses[429]:
        statuses[limited.post(CHAT, token, body()).status_code] += 1
    assert statuses[200] >= 90
    before = limited.settled("wardgate_limited_requests_total", limit="requests")
    with limited.client(token, max_retries=3) as client:
        while limited.settled("wardgate_limited_requests_total", limit="requests") == before:
            assert client.chat.completions.create(**body()).choices[0].message.content
    with limited.client(token) as client, pytest.raises(openai.RateLimitError) as caught:
        for _ in range(200):
            client.chat.completions.create(**body())
    assert caught.value.code == "rate_limit_exceeded"


def test_tokens_are_taken_by_estimate_and_settled_by_the_truth(limited: RunningGateway) -> None:
    """A call that may write 2,000 tokens and writes 2 leaves room for the next; one beyond the limit has none."""
    token = limited.tenant("tokens", "enterprise", KEY)
    left = []
    for _ in range(4):
        answer = limited.post(CHAT, token, body(max_tokens=2_000))
        assert answer.status_code == 200, answer.text
        left.append(int(answer.headers["x-ratelimit-remaining-tokens"]))
    assert {answer.headers["x-ratelimit-limit-tokens"]} == {"3000"} and max(left) < 3_000
    long = {"role": "user", "content": "word " * 4_000}
    never = limited.post(CHAT, token, body(messages=[long]))
    assert (never.status_code, never.json()["error"]["limit"]["kind"]) == (429, "tokens"), never.text
    assert never.headers["x-should-retry"] == "false" and "retry-after" not in never.headers


async def test_place_of_a_client_that_leaves_is_free_again(limited: RunningGateway, sandbox: SandboxServer) -> None:
    token = await asyncio.to_thread(limited.tenant, "two", "team", KEY)
    head = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=limited.url, headers=head, timeout=60) as client:
        for order, stream in (("silence", False), ("silent-after=2", True)):
            sandbox.clear()
            held = [asyncio.ensure_future(client.post(CHAT, json=body(order, stream=stream))) for _ in range(2)]
            await asyncio.to_thread(eventually, lambda: len(sandbox.requests()) == 2)
            third = await client.post(CHAT, json=body())
            assert (third.status_code, third.json()["error"]["limit"]["kind"]) == (429, "concurrency"), third.text
            assert int(third.headers["retry-after-ms"]) > 0
            for one in held:
                one.cancel()
            await asyncio.gather(*held, return_exceptions=True)
            async with asyncio.timeout(10):
                while (await client.post(CHAT, json=body())).status_code != 200:
                    await asyncio.sleep(0.05)
            both = await asyncio.gather(*[client.post(CHAT, json=body()) for _ in range(2)])
            assert [each.status_code for each in both] == [200, 200], "both places are free"


# --- two gateways ----------------------------------------------------------------------------------------------------

LIMIT, AT_ONCE = 20, 4


async def burst(gateways: Sequence[RunningGateway], token: str, count: int) -> Counter[int]:
    """So many, AT_ONCE at a time, over all of them in turn; how they were answered."""
    head, turn = {"authorization": f"Bearer {token}"}, asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(headers=head, timeout=60) as client:

        async def one(number: int) -> int:
            async with turn:
                return (await client.post(gateways[number % len(gateways)].url + CHAT, json=body())).status_code

        return Counter(await asyncio.gather(*map(one, range(count))))


@contextmanager
def two(folder: Path, sandbox: SandboxServer, database: str, redis_url: str) -> Iterator[list[RunningGateway]]:
    config = sandbox_config(sandbox.url, plan("solo", requests_per_minute=LIMIT))
    with replicas(folder, config, database, redis_url) as both:
        eventually(lambda: know_each_other(both), 30)
        yield both


def know_each_other(both: Sequence[RunningGateway]) -> bool:
    """Each has looked for others since the last of them was there."""

    async def work(keystore: Keystore) -> bool:
        found = await keystore.replicas.live()
        return len(found) == len(both) and min(one.seen_at for one in found) >= max(one.started_at for one in found)

    return both[0].operate(work)


def shared(both: Sequence[RunningGateway]) -> list[float]:
    """Whether each counts in Valkey."""
    return [gateway.metric("wardgate_limits_shared") for gateway in both]


@pytest.mark.services
def test_two_gateways_admit_no_more_than_the_limit_together_also_when_valkey_dies(
    tmp_path: Path, sandbox: SandboxServer, fresh_database: str
) -> None:
    """What was used while it lived counts; a tenant that comes later has the limit once, not once in each gateway."""
    admitted: list[int] = []
    with ExitStack() as stack, ExitStack() as valkey:
        both = stack.enter_context(two(tmp_path, sandbox, fresh_database, valkey.enter_context(services.valkey())))
        uneven = [both[0], both[0], both[0], both[1]]
        for number in range(2):  # cold processes are late themselves, which passes for a Valkey that is away
            asyncio.run(burst(both, both[0].tenant(f"warm-{number}", "solo", KEY), 3 * LIMIT))
        while True:
            old, new = [both[0].tenant(f"{name}-{len(admitted)}", "solo", KEY) for name in ("old", "new")]
            began = time.monotonic()
            before = asyncio.run(burst(uneven, old, 5 * LIMIT))
            refilled = (time.monotonic() - began) * LIMIT / 60
            admitted.append(before[200])
            assert set(before) == {200, 429} and before[200] <= LIMIT + refilled, before
            if before[200] >= LIMIT and shared(both) == [1, 1]:
                break
            assert len(admitted) < 5, admitted

        valkey.close()
        after = asyncio.run(burst(both, old, 3 * LIMIT))
        refilled = (time.monotonic() - began) * LIMIT / 60
        assert before[200] + after[200] <= LIMIT + refilled, "no second burst"
        began = time.monotonic()
        fresh = asyncio.run(burst(both, new, 5 * LIMIT))
        refilled = (time.monotonic() - began) * LIMIT / 60
        assert LIMIT * 9 // 10 <= fresh[200] <= LIMIT + refilled, fresh
        assert set(after) | set(fresh) <= {200, 429}, "no error for anybody"
        assert shared(both) == [0, 0]
