"""RELIABILITY S13, S14, G10: Valkey and PostgreSQL gone, silent, late, full or emptied, while requests come at a rate.

Two gateways share both. `WARDGATE_OUTAGE_S` is how long each ill lasts, `WARDGATE_OUTAGE_RPS` how many requests come in
a second; what they met is printed, with how long it took.
"""

import asyncio
import itertools
import json
import math
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
import redis.asyncio as redis

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from tests import services
from tests.gateway.limiting.link import link_to
from tests.harness import NO_LIMITS, RunningGateway, eventually, sandbox_config
from tests.scenarios.lines import Lines, post
from tests.scenarios.replicas import know_each_other, replica, share_ring
from tests.scenarios.truth import CHAT, select
from tests.served import Served, process_of

pytestmark = pytest.mark.services

OUTAGE_S = float(os.environ.get("WARDGATE_OUTAGE_S", "0.4"))
RPS = int(os.environ.get("WARDGATE_OUTAGE_RPS", "60"))
WHOLE = OUTAGE_S >= 30  # on demand: long enough to use up what there is
LIMIT = 60  # requests a minute of the limited tenant
KEY = {"MINIMAX_API_KEY": "sk-sandbox-a"}
PLANS = f"[plans.team]\n{NO_LIMITS}\n[plans.solo]\n" + NO_LIMITS.replace("10_000_000", str(LIMIT), 1)
PLAN_OF = {"soft": "team", "limited": "solo", "hard": "team"}
HARD_USD = "0.01" if WHOLE else "0.001"  # the last call that fits may cost 0.0003 at most
FLAPS, FLAP_S = (10, 30.0) if WHOLE else (1, 0.5)
ASKED = {"role": "user", "content": "[sandbox: tokens=5] Hi"}
BODY = {"model": "minimax/MiniMax-M2", "messages": [ASKED], "max_tokens": 50}


@dataclass
class Phase:
    """What the requests of one time met: seconds and statuses by tenant."""

    name: str
    began: float = field(default_factory=time.monotonic)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def note(self, tenant: str, status: int, body: bytes, seconds: float) -> None:
        self.statuses.setdefault(tenant, Counter())[status] += 1
        if status == 200:
            self.seconds.append(seconds)
        else:
            self.codes[json.loads(body)["error"]["code"]] += 1

    @property
    def p99_ms(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98] * 1000 if len(self.seconds) > 1 else math.nan

    def told(self) -> str:
        half = statistics.median(self.seconds) * 1000 if self.seconds else math.nan
        seen = {tenant: dict(found) for tenant, found in self.statuses.items()}
        return f"{self.name:22} {seen} {dict(self.codes)} p50 {half:.1f} ms, p99 {self.p99_ms:.1f} ms"


@dataclass
class Traffic:
    """Requests of these tenants in turn, at a rate, over all gateways in turn, whatever becomes of those before."""

    home: RunningGateway  # not started: the database, and what the processes over it are given
    gateways: Sequence[Served]
    tokens: Mapping[str, str]
    phases: list[Phase] = field(default_factory=lambda: [Phase("warm")])
    sent: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.lines = {each.url: Lines(int(each.url.rpartition(":")[2])) for each in self.gateways}

    @property
    def now(self) -> Phase:
        return self.phases[-1]

    async def during(self, name: str, seconds: float = OUTAGE_S) -> Phase:
        """From now on what comes is noted under this name, for so long."""
        self.phases.append(Phase(name))
        await asyncio.sleep(seconds)
        return self.now

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        await self._warm()
        pacing = asyncio.create_task(self._pace())
        try:
            yield
        finally:
            pacing.cancel()
            await asyncio.gather(pacing, return_exceptions=True)
            await asyncio.gather(*self.sent)
            for each in self.lines.values():
                await each.close()

    async def _warm(self) -> None:
        """Every gateway knows every tenant."""
        for tenant, gateway in itertools.product(self.tokens, self.gateways):
            for _ in range(100):
                before = self.now.statuses.get(tenant, Counter())[200]
                await self._one(gateway, tenant)
                if self.now.statuses[tenant][200] > before:
                    break
        self.now.codes.clear()

    async def _pace(self) -> None:
        began, gap = time.monotonic(), 1 / RPS
        whose = itertools.cycle(itertools.product(self.tokens, self.gateways))
        for number, (tenant, gateway) in enumerate(whose):
            await asyncio.sleep(began + number * gap - time.monotonic())
            task = asyncio.create_task(self._one(gateway, tenant))
            self.sent.add(task)
            task.add_done_callback(self.sent.discard)

    async def _one(self, gateway: Served, tenant: str) -> None:
        phase, began = self.now, time.monotonic()
        async with asyncio.timeout(60):
            status, body = await self.lines[gateway.url].ask(post(CHAT, self.tokens[tenant], BODY))
        phase.note(tenant, status, body, time.monotonic() - began)

    def admitted(self, tenant: str) -> tuple[int, float]:
        """How many were answered since the first phase that is judged, and in how many seconds."""
        since = self.phases[0].began
        return sum(phase.statuses.get(tenant, Counter())[200] for phase in self.phases), time.monotonic() - since

    def tell(self) -> None:
        print()
        for phase in self.phases:
            print(phase.told())


def tenants(gateway: RunningGateway) -> dict[str, str]:
    """One without limits and with a soft budget, one with a limit, one whose hard budget ends soon."""
    tokens = {slug: gateway.tenant(slug, plan, KEY) for slug, plan in PLAN_OF.items()}

    async def budgets(keystore: Keystore) -> None:
        soft, hard = await keystore.tenants.get("soft"), await keystore.tenants.get("hard")
        await keystore.budgets.set(soft, "day", "byok", Decimal("0.000001"), hard=False)
        await keystore.budgets.set(hard, "day", "byok", Decimal(HARD_USD), hard=True)

    gateway.operate(budgets)
    return tokens


@asynccontextmanager
async def gateways(folder: Path, sandbox: SandboxServer, database: str, valkey: str) -> AsyncIterator[Traffic]:
    """Two processes, who know of each other, with traffic that flows; they end in order, and ship what they have."""
    config = sandbox_config(sandbox.url, PLANS)
    first, second = (replica(folder, config, database, valkey, number) for number in range(2))
    tokens = await asyncio.to_thread(tenants, first)
    share_ring(first, second)
    with ExitStack() as stack:
        both = [await asyncio.to_thread(stack.enter_context, process_of(each, "")) for each in (first, second)]
        await asyncio.to_thread(eventually, lambda: know_each_other((first, second)), 30)
        traffic = Traffic(first, both, tokens)
        async with traffic.flowing():
            yield traffic
        traffic.tell()
        for each in both:
            each.process.send_signal(signal.SIGINT)
        for each in both:
            assert await asyncio.to_thread(each.process.wait, 30) == 0


def only(traffic: Traffic, tenant: str, *statuses: int) -> None:
    """A tenant met nothing else, whatever failed."""
    for phase in traffic.phases:
        assert phase.statuses.get(tenant, Counter()).keys() <= set(statuses), phase.told()


def assert_limit_held(traffic: Traffic) -> None:
    """A burst of the whole limit, and its refill: never more, whoever counts."""
    admitted, seconds = traffic.admitted("limited")
    least = LIMIT * 0.9 if WHOLE else 1
    assert least <= admitted <= LIMIT * (1 + seconds / 60), f"{admitted} in {seconds:.1f} s"


async def assert_budget_held(traffic: Traffic) -> None:
    """By the rows themselves: used nearly to its end, and not beyond."""
    whose = "SELECT id FROM wardgate_tenants WHERE slug = 'hard'"
    statement = f"SELECT SUM(cost_nano) AS nano FROM wardgate_ledger WHERE tenant_id = ({whose})"
    (found,) = await select(traffic.home, statement)
    amount = int(Decimal(HARD_USD) * 10**9)
    assert (amount * 0.95 if WHOLE else 1) <= int(found["nano"]) <= amount


async def assert_every_answer_has_its_row(traffic: Traffic) -> None:
    answered = sum(found[200] for phase in traffic.phases for found in phase.statuses.values())
    statement = "SELECT count(*) AS rows, count(DISTINCT request_id) AS ids FROM wardgate_ledger WHERE outcome = 'ok'"
    found: Mapping[str, int] = {}
    for _ in range(600):
        (found,) = await select(traffic.home, statement)
        if found["rows"] >= answered:
            break
        await asyncio.sleep(0.1)
    assert (found["rows"], found["ids"]) == (answered, answered)


async def test_valkey_in_every_trouble(tmp_path: Path, fresh_database: str, sandbox: SandboxServer) -> None:
    """Nobody is refused but by a limit or a budget, and both hold."""
    with services.valkey() as url:
        async with link_to(url) as line, redis.Redis.from_url(url) as valkey:
            async with gateways(tmp_path, sandbox, fresh_database, line.url) as traffic:
                await traffic.during("calm")
                line.silent = True
                await traffic.during("silent")
                line.silent = False
                await traffic.during("heard again")
                await line.down()
                await traffic.during("refuses")
                await valkey.flushall()
                await valkey.script_flush()
                await line.up()
                await traffic.during("back, and empty")
                line.late_s = min(5, OUTAGE_S)
                await traffic.during("late")
                line.late_s = 0
                await valkey.config_set("maxmemory", 1)
                await traffic.during("full")
                await valkey.config_set("maxmemory", 0)
                await traffic.during("calm again")
            await assert_every_answer_has_its_row(traffic)
            await assert_budget_held(traffic)
    only(traffic, "soft", 200)
    only(traffic, "limited", 200, 429)
    only(traffic, "hard", 200, 429)
    assert set().union(*(phase.codes for phase in traffic.phases)) <= {"rate_limit_exceeded", "insufficient_quota"}
    assert_limit_held(traffic)


async def test_database_in_every_trouble(tmp_path: Path, fresh_redis: str, sandbox: SandboxServer) -> None:
    """Whoever is known goes on; a hard budget is refused rather than overrun; no row is lost."""
    with services.stoppable_postgres() as server:
        path = server.dsn.partition("host=")[2] + "/.s.PGSQL.5432"
        async with link_to(path) as line:
            url = f"postgresql://postgres@127.0.0.1:{line.port}/postgres"
            async with gateways(tmp_path, sandbox, url, fresh_redis) as traffic:
                await traffic.during("calm")
                line.silent = True
                await traffic.during("silent")
                await line.down()
                await traffic.during("refuses")
                await line.up()
                await traffic.during("back")
                line.late_s = 0.1
                await traffic.during("late")
                line.late_s = 0
                for number in range(FLAPS):
                    await asyncio.to_thread(server.stop)
                    await traffic.during(f"stopped, {number}", FLAP_S)
                    await asyncio.to_thread(server.start)
                    await traffic.during(f"started, {number}", FLAP_S)
                await traffic.during("calm again")
            await assert_every_answer_has_its_row(traffic)
            await assert_budget_held(traffic)
    only(traffic, "soft", 200)
    only(traffic, "limited", 200, 429)
    only(traffic, "hard", 200, 429, 503)
    told = set().union(*(phase.codes for phase in traffic.phases))
    assert told <= {"rate_limit_exceeded", "insufficient_quota", "budget_unavailable"}
    assert_limit_held(traffic)
