"""Memory over many requests, and cold starts: how a process stands before anybody asked it, and whether it grows."""

import asyncio
import statistics
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.asking import target
from tests.benchmarks.children import Child, child
from tests.benchmarks.load import ClosedRound, Load, Say
from tests.benchmarks.machine import Cores, resident_mb
from tests.benchmarks.sides import WARDGATE, Opened, prepared, wardgate

LOAD = Load("memory", "plain answers, 64 at once", (WARDGATE,), at_once=64)
SAMPLES = 50  # at least, by time
TOLD_EACH = 50_000  # requests, while they run
SETTLED = 0.1  # of all requests, until which a process may fill its caches and pools
STARTS = 3


@dataclass(frozen=True, slots=True)
class Grown:
    """A process's memory in MB after so many requests, and how much it grew after the first tenth, as a fraction."""

    side: str
    requests: int
    samples: list[tuple[int, float]]
    grown: float


@dataclass(frozen=True, slots=True)
class Start:
    """How a process starts: seconds until it listens and is ready, its memory then; the median of `times` starts."""

    name: str
    times: int
    listens_s: float
    ready_s: float
    ready_mb: float | None


async def over_requests(opened: Opened, requests: int, seconds: float, say: Say) -> list[Grown]:
    """Ask `requests` times, for `seconds` at most, and look at the memory meanwhile."""
    side = opened.sides[WARDGATE]
    say(f"memory: {requests:,} requests, {seconds:,.0f} s at most")
    once = ClosedRound(LOAD, target(side, LOAD))
    await once.open()
    samples: list[tuple[int, float]] = []

    async def look() -> None:
        due = 0
        pause = min(0.2, seconds / SAMPLES)
        while True:
            done, megabytes = len(once.seen.took), resident_mb(side.process.pid)
            if megabytes is not None and (not samples or done > samples[-1][0]):
                samples.append((done, megabytes))
            if done >= due:
                due += TOLD_EACH
                say(f"memory: {done:,} requests, {megabytes or 0:.1f} MB")
            await asyncio.sleep(pause)

    looking = asyncio.create_task(look())
    try:
        await once.run(seconds, requests)
    finally:
        looking.cancel()
        once.close()
    return [Grown(side.name, len(once.seen.took), samples, _growth(samples))] if samples else []


def _growth(samples: list[tuple[int, float]]) -> float:
    """From the second tenth of the requests to the last tenth, each the mean of its samples."""
    most = samples[-1][0]
    early = [mb for done, mb in samples if SETTLED * most <= done <= 2 * SETTLED * most]
    late = [mb for done, mb in samples if done >= (1 - SETTLED) * most]
    return statistics.fmean(late) / statistics.fmean(early) - 1 if early and late else 0.0


def starts(cores: Cores, folder: Path, others: list[Child], say: Say) -> list[Start]:
    """What the others took to start, and Wardgate's median of several starts, one after the other."""
    found = [Start(one.name, 1, one.listens_s, one.ready_s, one.ready_mb) for one in others if one.name != WARDGATE]
    gateway, _ = prepared(folder, "http://127.0.0.1:9")  # nobody is asked
    ours: list[Child] = []
    for number in range(STARTS):
        say(f"cold start {number + 1} of {STARTS}")
        with child(wardgate(gateway), cores.side) as one:
            ours.append(one)
    megabytes = [one.ready_mb for one in ours if one.ready_mb is not None]
    middle = Start(
        WARDGATE,
        STARTS,
        statistics.median(one.listens_s for one in ours),
        statistics.median(one.ready_s for one in ours),
        statistics.median(megabytes) if megabytes else None,
    )
    return [*found, middle]
