"""Four real processes over a Valkey that is then killed (RELIABILITY.md G9)."""

import subprocess
import sys
import time
from contextlib import ExitStack

from tests import services

LIMIT = 120
SKEWS = (-300, -1, 300, 0)


class Replica:
    """A process that asks when it is told to."""

    def __init__(self, url: str, skew_s: float) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.gateway.limiting.replica",
            url,
            str(LIMIT),
            str(len(SKEWS)),
            str(skew_s),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, times: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def burst(replicas: list[Replica], each: int) -> tuple[int, set[str]]:
    """How many were admitted when every process asks `each` times, and what they think of Redis then."""
    for replica in replicas:
        replica.ask(each)
    told = [replica.line().split() for replica in replicas]
    return sum(int(admitted) for admitted, _ in told), {state for _, state in told}


def test_processes_admit_the_limit_with_redis_and_never_more_once_it_is_killed() -> None:
    with ExitStack() as stack:
        valkey = ExitStack()
        stack.enter_context(valkey)
        url = valkey.enter_context(services.valkey())
        replicas = [Replica(url, skew) for skew in SKEWS]
        for replica in replicas:
            stack.callback(replica.end)
        assert {replica.line() for replica in replicas} == {"ready"}
        began = time.monotonic()
        half, states = burst(replicas, LIMIT // 8)
        assert (half, states) == (LIMIT // 2, {"closed"})
        admitted, states = burst(replicas, 10 * LIMIT // 4)
        refilled = LIMIT * (time.monotonic() - began) / 60
        assert LIMIT <= half + admitted <= LIMIT + refilled + 1
        assert states == {"closed"}
        valkey.close()
        after, _ = burst(replicas, LIMIT)
        refilled = LIMIT * (time.monotonic() - began) / 60
        # What one process used beyond its share in the last second the others have not heard of yet.
        assert after <= refilled + LIMIT // 4
