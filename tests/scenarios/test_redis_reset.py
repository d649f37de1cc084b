"""A balancer resets the gateway's idle connections to Valkey: nobody hangs, and what runs beside the requests lives."""

import asyncio
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
import redis

from gateway.sandbox.server import SandboxServer
from router.health_sharing import REPLICAS
from tests.gateway.limiting.link import Link, link_to
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.scenarios.truth import CHAT

BODY = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "[sandbox: tokens=2] Hi"}]}
LIMITS = "\n[plans.team]\nrequests_per_minute = 10_000\ntokens_per_minute = 10_000_000\nconcurrency = 100\n"
SHARED = "wardgate_limits_shared", "wardgate_health_shared"


async def at_once(gateway: RunningGateway, token: str, count: int = 6) -> float:
    """Seconds until the last of so many was answered, each with 200."""
    head = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=head, timeout=8) as client:
        began = time.monotonic()
        answers = await asyncio.gather(*(client.post(CHAT, json=BODY) for _ in range(count)))
    assert [each.status_code for each in answers] == [200] * count
    return time.monotonic() - began


def shared(gateway: RunningGateway, number: int) -> bool:
    return [gateway.metric(name) for name in SHARED] == [number] * 2


def seen_since(client: redis.Redis, seconds: int) -> bool:
    """Whether a process kept its health in step after this second."""
    return bool(client.zcount(REPLICAS, seconds, "+inf"))


async def until_shares_decided(gateway: RunningGateway, token: str, link: Link) -> None:
    """Reset and ask, until a request met it before a round beside the requests did."""
    async with asyncio.timeout(30):
        while True:
            await link.reset()
            assert await at_once(gateway, token) < 1
            metric = "wardgate_limits_unheard_total"
            if await asyncio.to_thread(gateway.metric, metric, admitted="true"):
                return


@pytest.mark.services
async def test_reset_connections_hang_nobody_and_end_no_task(
    tmp_path: Path, sandbox: SandboxServer, fresh_redis: str
) -> None:
    async with link_to(fresh_redis) as link:
        gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url, LIMITS), redis_url=link.url)
        token = await asyncio.to_thread(gateway.tenant, "acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
        await asyncio.to_thread(gateway.__enter__)
        try:
            await asyncio.to_thread(eventually, partial(shared, gateway, 1))
            await at_once(gateway, token)
            await until_shares_decided(gateway, token, link)
            with redis.Redis.from_url(fresh_redis) as client:
                await asyncio.to_thread(eventually, partial(seen_since, client, client.time()[0] + 1))
            await link.down()
            await at_once(gateway, token)
            await asyncio.to_thread(eventually, partial(shared, gateway, 0))
        finally:
            await asyncio.to_thread(gateway.__exit__, None, None, None)
