"""A price release goes live: every replica moves to it under load, and no answer is priced by another than it names."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from gateway.pricing import decisions
from gateway.pricing.refreshing import Outcome, Refresh, RefreshReport
from gateway.rules import Rules, load_rules
from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from router.price_release import version_of
from tests import services
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.prices import JUMPS, M2, begin_with_few, bundled_rows, published, serving, times

Result = TypeVar("Result")
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HELLO: dict[str, Any] = {"model": M2, "messages": [{"role": "user", "content": "Hello"}]}
WITHIN_S = 1.0


@dataclass
class Replicas:
    """Two gateways on one database, and how to decide past them."""

    operator: RunningGateway  # never started: the settings alone
    urls: list[str]
    token: str

    def publish(self, content: bytes) -> None:
        (self.operator.folder / "prices.json").write_bytes(content)

    def do(self, work: Callable[[Keystore, Rules], Awaitable[Result]]) -> tuple[Result, float]:
        """What the work gives, and when every process could know of it."""
        rules = load_rules(self.operator.settings)

        async def timed(keystore: Keystore) -> tuple[Result, float]:
            return await work(keystore, rules), time.monotonic()

        return self.operator.operate(timed)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def replicas(request: pytest.FixtureRequest, tmp_path: Path, sandbox: SandboxServer) -> Iterator[Replicas]:
    """On SQLite two processes; on PostgreSQL two gateways in this one, which costs half: what they share is the
    database either way."""
    prices = f'[prices]\nurls = ["file:{tmp_path}/prices.json"]\nauto_approve = "never"\n'
    config = sandbox_config(sandbox.url, prices + "[limits]\ndrain_notice_s = 0\n")
    folders = [tmp_path / name for name in "ab"]
    with ExitStack() as stack:
        url = ""
        if request.param == "postgres":
            url = stack.enter_context(services.database(request.getfixturevalue("pg_dsn")))
        operator = RunningGateway(tmp_path, config, url)
        token = operator.tenant("acme", keys={"MINIMAX_API_KEY": "sk-sandbox-acme"})
        operator.operate(begin_with_few)
        for folder in folders:
            folder.mkdir()
            shutil.copy(tmp_path / "sealing-keys", folder)
        if request.param == "postgres":
            running = [stack.enter_context(RunningGateway(folder, config, url)).url for folder in folders]
        else:
            running = stack.enter_context(serving(folders, operator.environment()))
        yield Replicas(operator, running, token)


@dataclass
class Load:
    """Asks one replica all the time. `answers` are (version, cost, input tokens, output tokens); `seen` says when a
    version was first served."""

    url: str
    token: str
    failed: list[str] = field(default_factory=list)
    answers: Counter[tuple[str, str, int, int]] = field(default_factory=Counter)
    seen: dict[str, float] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(headers={"authorization": f"Bearer {self.token}"}, timeout=30) as client:
            while not self._stop.wait(0.02):
                answer = client.post(f"{self.url}/v1/chat/completions", json=HELLO)
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    continue
                version, usage = answer.headers["x-wardgate-catalogue"], answer.json()["usage"]
                self.seen.setdefault(version, time.monotonic())
                if self.order[-1:] != [version]:
                    self.order.append(version)
                cost = answer.headers["x-wardgate-cost-usd"]
                self.answers[version, cost, usage["prompt_tokens"], usage["completion_tokens"]] += 1

    def stop(self) -> None:
        self._stop.set()


def test_replicas_move_to_a_release_under_load_and_back(replicas: Replicas) -> None:
    replicas.publish(published(**{M2: times(M2, "2"), JUMPS: times(JUMPS, "10")}))
    loads = [Load(url, replicas.token) for url in replicas.urls]
    threads = [threading.Thread(target=load.run) for load in loads]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(load.seen for load in loads))
        before = loads[0].order[0]
        report, _ = replicas.do(refresh)
        assert report.outcome is Outcome.STAGED and report.release
        number = report.release.number
        assert (report.release.counts["repriced"], report.release.counts["waiting"]) == (1, 1)
        assert all(load.order == [before] for load in loads)  # nothing moves before somebody says so

        release, told_at = replicas.do(lambda keystore, rules: decisions.approve(keystore, rules, number, "t", now=NOW))
        after = version_of(release.number, release.digest)
        eventually(lambda: all(after in load.seen for load in loads))
        replicas.do(lambda keystore, _: decisions.roll_back(keystore, None, "t"))
        eventually(lambda: all(load.order[-1] == before for load in loads))
    finally:
        for load in loads:
            load.stop()
        for thread in threads:
            thread.join(60)
    assert [load.failed for load in loads] == [[], []]
    assert max(load.seen[after] - told_at for load in loads) < WITHIN_S
    assert [load.order for load in loads] == [[before, after, before]] * 2
    for load in loads:
        for version, cost, read, written in load.answers:
            assert Decimal(cost) == expected(read, written) * (2 if version == after else 1), version


async def refresh(keystore: Keystore, rules: Rules) -> RefreshReport:
    return await Refresh(keystore, rules, "test", True, NOW, lambda: 0.5).run()


def expected(read: int, written: int) -> Decimal:
    row = bundled_rows()[M2]
    cost: Decimal = row["input_cost_per_token"] * read + row["output_cost_per_token"] * written
    return cost
