"""One replica as a process of its own: asks as often as each line of its input says, prints how often it was let in.

`python -m tests.gateway.limiting.replica <redis url> <limit> <replicas> <seconds by which its clock is off>`
"""

import asyncio
import sys
import time

from gateway.limiting.limiter import Limiter
from gateway.limiting.shared import SharedLimits
from tests.gateway.limiting.test_limiter import rpm


async def serve(url: str, limit: int, replicas: int, skew_s: float) -> None:
    """Answer lines until there are no more."""
    limiter = Limiter(
        lambda unheard: SharedLimits(url, unheard, timeout_s=5.0),
        replicas=lambda: replicas,
        clock=lambda: time.monotonic() + skew_s,
    )
    await limiter.tend()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        verdicts = [await limiter.admit([rpm(limit)]) for _ in range(int(line))]
        print(sum(each.admitted for each in verdicts), limiter.state, flush=True)
    await limiter.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
