"""RELIABILITY S7, S14, S17, G10, G11: what was answered is in the ledger once, though processes are killed or the
database is away.

WARDGATE_KILLS says how often a serving process is killed; 4 times in the suite.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from tests import services
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.keystore.journals import full_disk
from tests.scenarios.truth import CHAT, rows_of, rows_soon, select, serving
from tests.served import Served, process_of

KILLS = int(os.environ.get("WARDGATE_KILLS", "4"))
WORKERS = 8
KEY = {"MINIMAX_API_KEY": "sk-sandbox-a"}
MODEL = "minimax/MiniMax-M2"


def body(order: str, *, stream: bool = False, **more: object) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"[sandbox: {order}] Hello"}],
        "stream": stream,
    } | more


@dataclass
class Load:
    """What its clients know: `whole` are the plain answers that arrived to their last byte, with the tokens they tell;
    `begun` is all that was sent."""

    begun: set[str] = field(default_factory=set)
    whole: dict[str, tuple[int, int]] = field(default_factory=dict)
    ended_streams: set[str] = field(default_factory=set)

    async def worker(self, gateway: Served, worker: int, kill: int) -> None:
        """Ask one after the other, until nobody answers."""
        random_ = random.Random(1000 * kill + worker)
        headers = {"authorization": f"Bearer {gateway.token}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as client:
            with suppress(httpx.TransportError):
                for number in range(100_000):
                    name = f"kill-{kill}-{worker}-{number}"
                    self.begun.add(name)
                    await self._one(client, name, random_)

    async def _one(self, client: httpx.AsyncClient, name: str, random_: random.Random) -> None:
        stream = random_.random() < 0.3
        order = f"tokens={random_.randint(1, 20)}" + (
            "; gap=0.005" if stream else f"; delay={random_.choice([0, 0.03])}"
        )
        answer = await client.post(CHAT, json=body(order, stream=stream), headers={"x-request-id": name})
        assert answer.status_code == 200, answer.text
        if not stream:
            usage = answer.json()["usage"]
            self.whole[name] = (usage["prompt_tokens"], usage["completion_tokens"])
        elif answer.text.rstrip().endswith("data: [DONE]"):
            self.ended_streams.add(name)


async def killed_under_load(gateway: RunningGateway, token: str, load: Load, kill: int) -> None:
    """One process that serves, and is killed at a random moment."""

    @asynccontextmanager
    async def started() -> Any:
        manager = process_of(gateway, token)
        child = await asyncio.to_thread(manager.__enter__)
        try:
            yield child
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)

    async with started() as child:
        before = len(load.whole)
        tasks = [asyncio.create_task(load.worker(child, worker, kill)) for worker in range(WORKERS)]
        async with asyncio.timeout(60):
            while len(load.whole) < before + 40:
                await asyncio.sleep(0.01)
        await asyncio.sleep(random.Random(kill).uniform(0, 0.1))
        child.process.kill()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
@pytest.mark.timeout(120 + 10 * KILLS)
async def test_answer_that_arrived_has_its_row_though_the_process_is_killed(
    where: str, tmp_path: Path, sandbox: SandboxServer, request: pytest.FixtureRequest
) -> None:
    database = "" if where == "sqlite" else request.getfixturevalue("fresh_database")
    gateway, load = RunningGateway(tmp_path, sandbox_config(sandbox.url), database), Load()
    token = await asyncio.to_thread(gateway.tenant, "acme", "team", KEY)
    for kill in range(max(1, KILLS // 2)):
        await killed_under_load(gateway, token, load, kill)
    asked = {dict(one.headers).get("x-request-id", "") for one in sandbox.requests()}
    arrived = len(sandbox.requests())
    async with serving(gateway):
        rows = await rows_soon(gateway, "kill", arrived)
        await asyncio.to_thread(eventually, lambda: not _others(tmp_path / "journal"), 20)
        rows = await rows_of(gateway, "kill")
    by_name = {row["client_request_id"]: row for row in rows}
    assert len(by_name) == len(rows), "a request is there twice"
    assert load.whole.keys() | load.ended_streams <= by_name.keys() <= load.begun, "answered, and lost"
    assert asked == {""}, "the caller's id is its own affair"
    for name, told in load.whole.items():
        row = by_name[name]
        assert (row["state"], row["outcome"], row["input_tokens"], row["output_tokens"]) == ("settled", "ok", *told)
    assert len(rows) >= arrived, "somebody was asked, and there is no row"
    rest = Counter((row["state"], row["outcome"]) for row in rows if row["client_request_id"] not in load.whole)
    assert rest[("estimated", "lost")] >= KILLS // 2, rest
    assert {state for state, _ in rest} <= {"settled", "estimated", "released"}
    assert all(row["cost_nano"] for row in rows if row["outcome"] == "lost"), "what ran may have cost something"


def _others(folder: Path) -> bool:
    """Whether more than one journal is there."""
    return len({path.name[:36] for path in folder.iterdir()}) > 1


# --- the disk is full ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
async def test_answer_whose_row_found_no_room_has_it_when_there_is_some_though_nobody_asks(
    where: str, tmp_path: Path, sandbox: SandboxServer, request: pytest.FixtureRequest
) -> None:
    """With SQLite the disk is full for the database too."""
    database = "" if where == "sqlite" else request.getfixturevalue("fresh_database")
    gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url), database)
    async with serving(gateway), httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        token = await asyncio.to_thread(gateway.tenant, "acme", "team", KEY)
        names = iter(range(100))

        async def ask(order: str, *, stream: bool = False) -> httpx.Response:
            head = {"x-request-id": f"full-{next(names)}", "authorization": f"Bearer {token}"}
            return await client.post(CHAT, json=body(order, stream=stream), headers=head)

        assert (await ask("tokens=5")).status_code == 200
        orders = [("tokens=5; delay=1", False), ("tokens=5; delay=1", True), ("status=400; delay=1", False)]
        asking = [asyncio.create_task(ask(order, stream=stream)) for order, stream in orders]
        await asyncio.to_thread(eventually, lambda: len(sandbox.requests()) == 4)
        with full_disk():
            plain, stream, failed = await asyncio.gather(*asking)
            refused = await ask("tokens=5")
            await asyncio.to_thread(eventually, lambda: bool(gateway.logs.records("ledger.kept")))
        rows = await rows_soon(gateway, "full", 5)
    assert (plain.status_code, stream.status_code, failed.status_code) == (200, 200, 400)
    assert stream.text.rstrip().endswith("data: [DONE]")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert len(sandbox.requests()) == 4, "nobody is asked whose cost cannot be written down"
    states = {row["client_request_id"]: (row["state"], bool(row["cost_nano"])) for row in rows}
    settled, released = ("settled", True), ("released", False)
    assert states == {f"full-{number}": each for number, each in enumerate([settled] * 3 + [released] * 2)}


# --- the database is away --------------------------------------------------------------------------------------------


@pytest.fixture
def stoppable() -> Iterator[services.Stoppable]:
    with services.stoppable_postgres() as server:
        yield server


def with_budget(gateway: RunningGateway, slug: str, amount: str) -> str:
    """A tenant whose own keys may cost so many dollars a day, and no more."""
    token = gateway.tenant(slug, "team", KEY)

    async def set_it(keystore: Keystore) -> None:
        await keystore.budgets.set(await keystore.tenants.get(slug), "day", "byok", Decimal(amount), hard=True)

    gateway.operate(set_it)
    return token


@pytest.mark.services
async def test_database_that_is_away_loses_no_row_and_is_no_budget_without_end(
    tmp_path: Path, sandbox: SandboxServer, stoppable: services.Stoppable
) -> None:
    gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url), stoppable.dsn)
    async with serving(gateway), httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        free = await asyncio.to_thread(gateway.tenant, "free", "team", KEY)
        bound = await asyncio.to_thread(with_budget, gateway, "bound", "1")
        unused = await asyncio.to_thread(gateway.tenant, "unused", "team", KEY)
        names = iter(range(10_000))

        async def ask(token: str) -> httpx.Response:
            head = {"x-request-id": f"away-{next(names)}", "authorization": f"Bearer {token}"}
            return await client.post(CHAT, json=body("tokens=5", max_tokens=500), headers=head)

        first = [await ask(free), await ask(bound)]
        assert len(await rows_soon(gateway, "away", 2)) == 2
        first += [await ask(free), await ask(bound)]  # what is told of their setting up has been heard by now
        assert {each.status_code for each in first} == {200}

        await asyncio.to_thread(stoppable.stop)
        cached = await asyncio.gather(*[ask(free) for _ in range(50)])
        assert Counter(each.status_code for each in cached) == {200: 50}, cached[0].text
        answers = [await ask(bound)]
        while answers[-1].status_code == 200 and len(answers) < 2000:
            answers.append(await ask(bound))
        refused = answers.pop()
        assert answers, "what is held is used"
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "budget_unavailable"), refused.text
        assert refused.headers["x-should-retry"] == "true" and int(refused.headers["retry-after"]) > 0
        unknown = await ask(unused)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (503, "keystore_unavailable"), "never a 401"
        asked = len(first) + len(cached) + len(answers)
        assert len(sandbox.requests()) == asked
        assert await asyncio.to_thread(gateway.metric, "wardgate_ledger_pending_lines") > 0

        await asyncio.to_thread(stoppable.start)
        rows = await rows_soon(gateway, "away", asked + 1, within_s=30)
        again = await ask(bound)
        for _ in range(50):
            if again.status_code == 200:
                break
            await asyncio.sleep(0.1)
            again = await ask(bound)
        assert again.status_code == 200, again.text
        assert (await ask(unused)).status_code == 200
    served = {each.headers["x-wardgate-request-id"] for each in [*first, *cached, *answers]}
    assert len({row["request_id"] for row in rows}) == len(rows), "none twice"
    assert served <= {row["request_id"] for row in rows}, "none lost"
    assert Counter(row["outcome"] for row in rows if row["request_id"] in served) == {"ok": asked}
    spent, counted = await _spent(gateway)
    assert spent == counted > 0


async def _spent(gateway: RunningGateway) -> tuple[int, int]:
    """Of the bound tenant: what the budget says is spent, and the rows' sum."""
    (found,) = await select(gateway, "SELECT spent_nano FROM wardgate_budget_use WHERE budget_key LIKE 'tenant:%'")
    (rows,) = await select(
        gateway,
        "SELECT SUM(cost_nano) AS nano FROM wardgate_ledger WHERE tenant_id ="
        " (SELECT id FROM wardgate_tenants WHERE slug = 'bound')",
    )
    return int(found["spent_nano"]), int(rows["nano"])
