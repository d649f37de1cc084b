"""A price release goes live: every replica moves to it under load, and no answer is priced by another than it names."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.opening import open_keystore
from gateway.pricing import decisions
from gateway.rules import load_rules
from gateway.sandbox.server import SandboxServer
from keystore.price_releases import Release
from router.price_release import version_of
from tests import services
from tests.harness import RunningGateway, eventually, run_cli, sandbox_config
from tests.prices import JUMPS, M2, as_json, bundled_rows, priced, serving, times

HELLO: dict[str, Any] = {"model": M2, "messages": [{"role": "user", "content": "Hello"}]}
WITHIN_S = 1.0


@dataclass
class Replicas:
    """Two processes on one database, and how to decide past them."""

    operator: RunningGateway  # never started: settings, and the command line
    urls: list[str]
    token: str

    def cli(self, *arguments: str) -> Any:
        run = run_cli(*arguments, "--json", env=self.operator.environment(), cwd=self.operator.folder)
        return as_json(run, 0, 3)

    def publish(self, content: bytes) -> None:
        (self.operator.folder / "prices.json").write_bytes(content)

    def approve(self, number: int) -> tuple[Release, float]:
        """The release, and when every process could know of it."""

        async def work() -> tuple[Release, float]:
            settings = self.operator.settings
            rules = load_rules(settings)
            keystore = await open_keystore(settings, rules, create=False)
            try:
                now = datetime.now(UTC)
                return await decisions.approve(keystore, rules, number, "test", now=now), time.monotonic()
            finally:
                await keystore.close()

        return asyncio.run(work())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def replicas(request: pytest.FixtureRequest, tmp_path: Path, sandbox: SandboxServer) -> Iterator[Replicas]:
    with ExitStack() as stack:
        url = ""
        if request.param == "postgres":
            url = stack.enter_context(services.database(request.getfixturevalue("pg_dsn")))
        prices = f'[prices]\nurls = ["file:{tmp_path}/prices.json"]\nauto_approve = "never"\n'
        operator = RunningGateway(tmp_path, sandbox_config(sandbox.url, prices), url)
        token = operator.tenant("acme", keys={"MINIMAX_API_KEY": "sk-sandbox-acme"})
        folders = [tmp_path / name for name in "ab"]
        for folder in folders:
            folder.mkdir()
        urls = [stack.enter_context(serving(folder, operator.environment())) for folder in folders]
        yield Replicas(operator, urls, token)


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
            while not self._stop.wait(0.01):
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
    replicas.publish(priced(**{M2: times(M2, "2"), JUMPS: times(JUMPS, "10")}))
    loads = [Load(url, replicas.token) for url in replicas.urls]
    threads = [threading.Thread(target=load.run) for load in loads]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(load.seen for load in loads))
        before = loads[0].order[0]
        staged = replicas.cli("price", "refresh")["release"]
        assert (staged["state"], staged["counts"]["repriced"], staged["counts"]["waiting"]) == ("staged", 1, 1)
        assert all(load.order == [before] for load in loads)  # nothing moves before somebody says so

        release, told_at = replicas.approve(staged["release"])
        after = version_of(release.number, release.digest)
        eventually(lambda: all(after in load.seen for load in loads))
        status = replicas.cli("price", "status")
        assert replicas.cli("price", "rollback")["version"] == before
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
    assert status["live"]["version"] == after
    assert {one["name"] for one in status["waiting_rows"]} == {JUMPS}
    at = replicas.cli("price", "as-of", status["live"]["since"])
    assert (at["version"], at["cause"]) == (after, "approved")


def expected(read: int, written: int) -> Decimal:
    row = bundled_rows()[M2]
    cost: Decimal = row["input_cost_per_token"] * read + row["output_cost_per_token"] * written
    return cost
