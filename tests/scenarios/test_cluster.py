"""A cluster of real processes behind a proxy: rolling restarts and kill -9 under load (G11, S16, S17).

`WARDGATE_ROLLS`, `WARDGATE_KILLS` and `WARDGATE_REPLICAS` say how many of each.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from gateway.sandbox.server import SandboxServer
from ops.cluster.cluster import Cluster
from ops.cluster.settings import Plan
from tests.forks import spawn
from tests.scenarios.cluster_load import Load, Row, loaded, settled_ledger, told_usage

REPLICAS = int(os.environ.get("WARDGATE_REPLICAS", "2"))
ROLLS = int(os.environ.get("WARDGATE_ROLLS", "10"))
KILLS = int(os.environ.get("WARDGATE_KILLS", "20"))


@pytest.fixture
def plan(tmp_path: Path, fresh_database: str, fresh_redis: str, sandbox: SandboxServer) -> Plan:
    """The session's servers; a drain that some streams outlive."""
    return Plan(
        replicas=REPLICAS,
        folder=tmp_path / "cluster",
        notice_s=0.4,
        drain_s=0.6,
        database_url=fresh_database,
        redis_url=fresh_redis,
        upstream=sandbox.url,
        spawn=spawn,
    )


def report(name: str, load: Load, rows: dict[str, Row]) -> None:
    print(f"\n{name}: {len(load.seen)} requests", end="; ")
    print(f"plain {dict(load.endings(stream=False))}; streams {dict(load.endings(stream=True))}", end="; ")
    print(f"ledger {dict(Counter(row['outcome'] for row in rows.values()))}; proxy missed {load.cluster.missed}")


def assert_every_acknowledged_answer_is_in(rows: dict[str, Row], load: Load) -> None:
    """With the tokens that the caller was told."""
    whole = {one.request_id: one.tokens for one in load.seen if one.ending == "whole"}
    assert whole.keys() - rows.keys() == set()
    held = {key: (rows[key]["input_tokens"], rows[key]["output_tokens"]) for key in whole}
    assert held == whole
    assert {rows[key]["outcome"] for key in whole} == {"ok"}


async def assert_usage_is_the_ledger(cluster: Cluster, rows: dict[str, Row]) -> None:
    total = await told_usage(cluster)
    assert total["requests"] == len(rows)
    assert total["prompt_tokens"] == sum(row["input_tokens"] or 0 for row in rows.values())
    assert total["completion_tokens"] == sum(row["output_tokens"] or 0 for row in rows.values())


@pytest.mark.timeout(120 + 40 * ROLLS * REPLICAS)
async def test_rolling_restarts_refuse_nobody_cut_nothing_and_lose_no_row(plan: Plan, sandbox: SandboxServer) -> None:
    async with Cluster(plan, print) as cluster:
        async with loaded(cluster) as load:
            for _ in range(ROLLS):
                await load.grown()
                assert set(await cluster.roll()) == {0}, "a replica did not end by itself"
            await load.grown()
        ids = {one.request_id for one in load.seen}
        rows = await settled_ledger(cluster.database_url, ids)
        report(f"{ROLLS} rolling restarts of {REPLICAS} replicas", load, rows)
        wrong = [one for one in load.seen if one.ending not in {"whole", "told"}]
        assert wrong == []
        assert load.endings(stream=False).keys() == {"whole"}
        assert {rows[one.request_id]["outcome"] for one in load.seen if one.ending == "told"} <= {"error"}
        assert cluster.refused == 0
        assert rows.keys() == ids
        assert_every_acknowledged_answer_is_in(rows, load)
        assert sum(row["attempts"] for row in rows.values()) == len(sandbox.requests())
        await assert_usage_is_the_ledger(cluster, rows)


@pytest.mark.timeout(120 + 20 * KILLS)
async def test_killed_replica_loses_no_answer_and_its_streams_are_seen_to_break(
    plan: Plan, sandbox: SandboxServer
) -> None:
    async with Cluster(plan, print) as cluster:
        async with loaded(cluster) as load:
            for number in range(KILLS):
                await load.grown()
                await cluster.kill(number % REPLICAS + 1)
            await load.grown()
        ids = {one.request_id for one in load.seen if one.request_id}
        rows = await settled_ledger(cluster.database_url, ids)
        report(f"{KILLS} kills of {REPLICAS} replicas", load, rows)
        streams = load.endings(stream=True)
        assert streams.keys() <= {"whole", "broken"} and streams["broken"] > 0
        assert load.endings(stream=False).keys() <= {"whole", "broken"}
        assert cluster.refused == 0
        assert ids <= rows.keys()
        assert_every_acknowledged_answer_is_in(rows, load)
        assert len(rows) >= len(sandbox.requests()), "a provider was asked, and no row says so"
        await assert_usage_is_the_ledger(cluster, rows)
