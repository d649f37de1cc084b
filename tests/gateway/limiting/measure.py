"""What the limits cost: `python -m tests.gateway.limiting.measure`, with a Valkey of its own on loopback.

CPU time in process, since the machine may be shared; wall time for round trips, and for a Redis that never answers.
"""

import asyncio
import time
from collections.abc import Sequence

import uvloop

from gateway.limiting.asks import Ask, at_once, requests_a_minute, tokens_a_minute
from gateway.limiting.limiter import Limiter
from gateway.limiting.shared import SharedLimits
from tests import services
from tests.gateway.limiting.link import link_to

LIMIT = 10**9


def asks(tenant: str) -> tuple[Ask, ...]:
    """Four limits, as a request has them."""
    return (
        requests_a_minute("tenant", tenant, tenant, LIMIT),
        requests_a_minute("token", tenant, tenant, LIMIT),
        tokens_a_minute("tenant", tenant, tenant, LIMIT, 500),
        at_once("tenant", tenant, tenant, LIMIT),
    )


TOGETHER = 200  # requests in flight
ASKS = [asks(f"t{number}") for number in range(1_000)]


async def in_process() -> None:
    """The best of many rounds, in us of CPU for each request."""
    limiter = Limiter()
    admit_us, settle_us = [], []
    for number in range(1_000):
        some = ASKS[number % 5 * TOGETHER : (number % 5 + 1) * TOGETHER]
        began = time.process_time()
        verdicts = [await limiter.admit(each) for each in some]
        admitted = time.process_time()
        for verdict in verdicts:
            if verdict.ticket is not None:
                limiter.settle(verdict.ticket, 400)
        admit_us.append((admitted - began) * 1e6 / TOGETHER)
        settle_us.append((time.process_time() - admitted) * 1e6 / TOGETHER)
    admit_us.sort()
    settle_us.sort()
    print(f"in process, 4 limits, CPU: admit best {admit_us[0]:.1f} median {admit_us[500]:.1f} us, "
          f"settle best {settle_us[0]:.1f} median {settle_us[500]:.1f} us")  # fmt: skip


async def over_redis(url: str) -> None:
    """One after the other, then a hundred at once."""
    limiter = Limiter(lambda unheard: SharedLimits(url, unheard))
    running = asyncio.create_task(limiter.run())
    took: list[float] = []

    async def ask(times: int) -> None:
        for number in range(times):
            began = time.perf_counter()
            verdict = await limiter.admit(ASKS[number % len(ASKS)])
            took.append((time.perf_counter() - began) * 1000)
            if verdict.ticket is not None:
                limiter.settle(verdict.ticket, 400)

    for at_a_time, times in ((1, 5_000), (20, 500), (100, 200)):
        took.clear()
        cpu = time.process_time()
        await asyncio.gather(*(ask(times) for _ in range(at_a_time)))
        cpu_us = (time.process_time() - cpu) * 1e6 / len(took)
        print(f"over Redis, {at_a_time} at a time: {told(took)}, CPU {cpu_us:.0f} us each, breaker {limiter.state}")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await limiter.close()


async def over_nothing(url: str) -> None:
    """A Redis that accepts and never answers."""
    async with link_to(url) as link:
        link.silent = True
        limiter = Limiter(lambda unheard: SharedLimits(link.url, unheard))
        took: list[float] = []
        for number in range(1_000):
            began = time.perf_counter()
            await limiter.admit(ASKS[number])
            took.append((time.perf_counter() - began) * 1000)
        print(f"Redis silent: the first five {[round(each, 1) for each in took[:5]]} ms, the others {told(took[5:])}")
        await limiter.close()


def told(took: Sequence[float]) -> str:
    """Percentiles of times in ms."""
    ordered = sorted(took)
    p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
    return f"p50 {p50:.3f} p99 {p99:.3f} max {ordered[-1]:.3f} ms"


if __name__ == "__main__":
    with services.valkey() as valkey, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(in_process())
        runner.run(over_redis(valkey))
        runner.run(over_nothing(valkey))
