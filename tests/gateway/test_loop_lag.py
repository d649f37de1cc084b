"""A loop that is kept busy is late, and the metric says by how much."""

import asyncio
import time
from pathlib import Path

import httpx
import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.loop_lag import watch_lag
from gateway.metrics import Metrics
from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, sandbox_config

BUSY_S = 0.15


async def test_loop_that_is_kept_busy_is_late() -> None:
    seen: list[float] = []
    watching = asyncio.create_task(watch_lag(seen.append, 0.01))
    while not seen:
        await asyncio.sleep(0)
    until = time.perf_counter() + BUSY_S
    while time.perf_counter() < until:
        pass
    before = len(seen)
    while len(seen) == before:
        await asyncio.sleep(0)
    watching.cancel()
    assert seen[-1] > BUSY_S / 2


def test_lag_is_on_the_page() -> None:
    metrics = Metrics(CollectorRegistry(), providers=["openai"], models=[])
    metrics.note_loop_lag(0.03)
    page = metrics.render().decode()
    assert 'wardgate_event_loop_lag_seconds_bucket{le="0.025"} 0.0' in page
    assert 'wardgate_event_loop_lag_seconds_bucket{le="0.05"} 1.0' in page


def test_large_prompts_hold_nobody_up(tmp_path: Path, sandbox: SandboxServer) -> None:
    """Prompts of a megabyte, one behind the other: of a thousand timers not one comes half a second late."""
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
        text = 'many words and "signs" ' * 45_000
        body = orjson.dumps({"model": "minimax-m2", "messages": [{"role": "user", "content": text}], "max_tokens": 1})
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        with httpx.Client(headers=headers, timeout=60) as client:
            statuses = {client.post(f"{gateway.url}/v1/chat/completions", content=body).status_code for _ in range(20)}
            page = client.get(f"{gateway.metrics_url}/metrics").text
    assert statuses <= {200, 400}, statuses
    (family,) = [
        each for each in text_string_to_metric_families(page) if each.name == "wardgate_event_loop_lag_seconds"
    ]
    counts = {each.labels.get("le"): each.value for each in family.samples if each.name.endswith("_bucket")}
    assert counts["+Inf"] > 0
    assert counts["0.5"] / counts["+Inf"] >= 0.999
