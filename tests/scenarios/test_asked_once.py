"""RELIABILITY S10: a request with an Idempotency-Key is asked once, over two gateways and across a crash."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.sandbox.server import SandboxServer
from keystore.engine import parse_url
from keystore.money_tables import answers
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.scenarios.replicas import replicas
from tests.scenarios.truth import CHAT, select
from tests.served import process_of

pytestmark = pytest.mark.services
KEY = {"MINIMAX_API_KEY": "sk-sandbox-a"}


def body(order: str, **more: object) -> dict[str, Any]:
    return {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": f"[sandbox: {order}] Hi"}]} | more


@pytest.fixture
def both(tmp_path: Path, sandbox: SandboxServer, fresh_database: str) -> Iterator[list[RunningGateway]]:
    with replicas(tmp_path, sandbox_config(sandbox.url), fresh_database) as running:
        yield running


async def test_fifty_at_once_over_two_gateways_are_one_call_and_one_answer(
    both: list[RunningGateway], sandbox: SandboxServer
) -> None:
    token = await asyncio.to_thread(both[0].tenant, "acme", "team", KEY)
    async with Sdks(both, token) as sdks:

        async def ask(number: int) -> Any:
            create = sdks[number % 2].chat.completions.with_raw_response.create
            return await create(**body("tokens=7; delay=0.5"), extra_headers={"Idempotency-Key": "order-1"})

        found = await asyncio.gather(*map(ask, range(50)))
        assert len(sandbox.requests()) == 1
        assert len({each.content for each in found}) == 1 and {each.status_code for each in found} == {200}
        replayed = Counter(each.headers.get("x-wardgate-replayed") for each in found)
        assert replayed == {None: 1, "true": 49}
        later = await ask(1)
        assert later.content == found[0].content and len(sandbox.requests()) == 1
        with pytest.raises(openai.ConflictError) as caught:
            other = sdks[1].chat.completions.create
            await other(**body("tokens=8"), extra_headers={"Idempotency-Key": "order-1"})
        assert caught.value.code == "idempotency_key_reused" and len(sandbox.requests()) == 1
    await asyncio.to_thread(both[0].settled, "wardgate_requests_total")
    await _one_was_charged(both[0], requests=52)


async def _one_was_charged(gateway: RunningGateway, requests: int) -> None:
    async with asyncio.timeout(20):
        while len(rows := await select(gateway, "SELECT state, cost_nano FROM wardgate_ledger")) < requests:
            await asyncio.sleep(0.1)
    assert Counter(row["state"] for row in rows) == {"settled": 1, "released": requests - 1}
    assert len([row for row in rows if row["cost_nano"]]) == 1


class Sdks:
    """An SDK on each gateway."""

    def __init__(self, gateways: list[RunningGateway], token: str) -> None:
        self._sdks = [openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key=token, max_retries=0) for one in gateways]

    async def __aenter__(self) -> list[openai.AsyncOpenAI]:
        return self._sdks

    async def __aexit__(self, *_: object) -> None:
        for sdk in self._sdks:
            await sdk.close()


def test_crash_of_the_first_process_in_between(tmp_path: Path, sandbox: SandboxServer, fresh_database: str) -> None:
    """Killed after its answer: another process gives the same one. Killed before: another asks, when it may."""
    with ExitStack() as stack:
        (second,) = stack.enter_context(replicas(tmp_path, sandbox_config(sandbox.url), fresh_database, count=1))
        token = second.tenant("acme", "team", KEY)
        home = tmp_path / "first"
        home.mkdir()
        shutil.copy(second.folder / "sealing-keys", home / "sealing-keys")
        first = RunningGateway(home, sandbox_config(sandbox.url), fresh_database)
        child = stack.enter_context(process_of(first, token))
        pool = stack.enter_context(ThreadPoolExecutor(2))

        def ask(url: str, key: str, order: str) -> httpx.Response:
            head = {"authorization": f"Bearer {token}", "idempotency-key": key}
            return httpx.post(url + CHAT, json=body(order), headers=head, timeout=60)

        def asked(order: str) -> int:
            return sum(order in str(one.body) for one in sandbox.requests())

        stored = ask(child.url, "answered", "tokens=9")
        pending = pool.submit(ask, child.url, "running", "tokens=3; delay=1")
        eventually(lambda: asked("tokens=3") == 1)
        child.process.kill()
        child.process.wait()
        assert isinstance(pending.exception(timeout=30), httpx.TransportError)

        again = ask(second.url, "answered", "tokens=9")
        assert (stored.status_code, again.status_code, again.content) == (200, 200, stored.content)
        assert again.headers["x-wardgate-replayed"] == "true"
        assert again.headers["x-wardgate-request-id"] == stored.headers["x-wardgate-request-id"]
        assert asked("tokens=9") == 1

        waiting = pool.submit(ask, second.url, "running", "tokens=3; delay=1")
        eventually(lambda: second.metric("wardgate_inflight_requests") == 1)
        assert asked("tokens=3") == 1, "nobody knows yet that the first is dead"
        asyncio.run(age(second))
        assert waiting.result(60).status_code == 200
        assert asked("tokens=3") == 2


async def age(gateway: RunningGateway) -> None:
    """What the dead process claimed has run out."""
    engine = create_async_engine(parse_url(gateway.database_url))
    async with engine.begin() as connection:
        late = update(answers).where(answers.c.status == 0).values(until=datetime(2026, 1, 1, tzinfo=UTC))
        assert (await connection.execute(late)).rowcount == 1
    await engine.dispose()
