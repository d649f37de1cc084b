"""The measurements over HTTP: every load on every side that takes part, in short rounds that take turns.

The rounds take turns so that what else the machine does meanwhile falls on all sides alike.
"""

import gc
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tests.benchmarks import sides as named
from tests.benchmarks.asking import target
from tests.benchmarks.client import Seen
from tests.benchmarks.load import Load, Say, Target, round_of
from tests.benchmarks.machine import cpu_s, resident_mb
from tests.benchmarks.sides import Opened, Side

QUICK = (named.DIRECT, named.NGINX, named.WARDGATE)
LANES = (named.LITELLM, named.BARE_LOOP, named.LANE, named.ANTHROPIC)
ALL = (*QUICK, *LANES, named.BARE_ANTHROPIC)
RELAYS = (*QUICK, named.BARE_RELAY)
LOADS = (
    Load("plain-64", "plain answers, 64 at once", (*ALL, named.BARE_RELAY), at_once=64),
    Load("rate-500", "plain answers, 500 a second", QUICK, at_once=64, rate=500),
    Load("rate-50", "plain answers, 50 a second", (*QUICK, *LANES), at_once=64, rate=50),
    Load("stream-16", "streams of 50 tokens without a pause, 16 at once", ALL, at_once=16, chunks=50),
    Load(
        "paced-100",
        "streams of 50 tokens, one each 20 ms, 100 at once",
        (*QUICK, *LANES),
        at_once=100,
        chunks=50,
        gap_ms=20,
        rounds=2,
    ),
    Load("paced-600", "streams of 50 tokens, one each 20 ms, 600 at once", QUICK, at_once=600, chunks=50, gap_ms=20),
    Load(
        "paced-600-50ms", "streams of 50 tokens, one each 50 ms, 600 at once", QUICK, at_once=600, chunks=50, gap_ms=50
    ),
    Load("body-10mb", "plain answers to a picture of 10 MB, 1 at a time", RELAYS, body_mb=10),
)
WARM_UP_S = 0.3
WARM_UP_AT_ONCE = 16


@dataclass(slots=True)
class Measured:
    """What one side did under one load, over all rounds. Times in seconds."""

    side: str
    seen: Seen = field(default_factory=Seen)
    rates: list[float] = field(default_factory=list)  # answers a second, of each round
    elapsed_s: float = 0.0
    cpu_s: float | None = 0.0  # of the side's process; for `direct` that is the stand-in itself
    load_cpu_s: float | None = 0.0  # of the load generator and the stand-in together

    def add(self, seen: Seen, elapsed_s: float, cpu: float | None, load_cpu: float | None) -> None:
        """Take in one round."""
        self.seen.add(seen)
        self.rates.append(len(seen.took) / elapsed_s)
        self.elapsed_s += elapsed_s
        self.cpu_s = None if cpu is None or self.cpu_s is None else self.cpu_s + cpu
        self.load_cpu_s = None if load_cpu is None or self.load_cpu_s is None else self.load_cpu_s + load_cpu

    def figures(self) -> dict[str, object]:
        """The numbers; times in ms, processor time in µs."""
        seen, answers = self.seen, len(self.seen.took)
        return {
            "side": self.side,
            "answers": answers,
            "per_second": answers / self.elapsed_s,
            "per_second_by_round": self.rates,
            "rounds_differ": (max(self.rates) - min(self.rates)) / statistics.fmean(self.rates) / 2 if answers else 0.0,
            "unfinished": seen.unfinished,
            "events_per_second": seen.events / self.elapsed_s,
            "p50_ms": _ms(seen.took, 50),
            "p99_ms": _ms(seen.took, 99),
            "first_p50_ms": _ms(seen.first, 50),
            "first_p99_ms": _ms(seen.first, 99),
            "gap_p50_ms": _ms(seen.gaps, 50),
            "gap_p99_ms": _ms(seen.gaps, 99),
            "cpu_us_each": _share(self.cpu_s, answers),
            "cpu_us_per_event": _share(self.cpu_s, seen.events),
            "core_busy": None if self.cpu_s is None else self.cpu_s / self.elapsed_s,
            "load_core_busy": None if self.load_cpu_s is None else self.load_cpu_s / self.elapsed_s,
        }


def _ms(values: Sequence[float], percent: float) -> float | None:
    return percentile(values, percent) * 1000 if values else None


def _share(cpu: float | None, number: int) -> float | None:
    return cpu * 1e6 / number if cpu is not None and number else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of at least one value."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


async def measure(opened: Opened, loads: Iterable[Load], seconds: float, say: Say) -> dict[str, list[Measured]]:
    """Every load on every side of its that runs, for `seconds` each. Raises BenchmarkError."""
    gc.collect()
    gc.freeze()  # the load generator's own collections must not show in the sides' times
    found: dict[str, list[Measured]] = {}
    for load in loads:
        sides = [opened.sides[name] for name in load.sides if name in opened.sides]
        pairs = [(side, target(side, load)) for side in sides]
        measured = [Measured(side.name) for side in sides]
        for side in sides:
            gently = replace(load, at_once=min(load.at_once, WARM_UP_AT_ONCE), rate=0, gap_ms=0)
            await _run(gently, target(side, gently), WARM_UP_S)
        for turn in range(load.rounds):
            say(f"{load.title}: round {turn + 1} of {load.rounds}, {len(sides)} sides of {seconds / load.rounds:.1f} s")
            for place in range(len(sides)):
                at = (place + turn) % len(sides)
                await _measured(load, *pairs[at], measured[at], opened.upstream.pid, seconds / load.rounds)
        found[load.name] = measured
    return found


async def _run(load: Load, asked: Target, seconds: float) -> None:
    once = round_of(load, asked)
    await once.open()
    try:
        await once.run(seconds)
    finally:
        once.close()


async def _measured(load: Load, side: Side, asked: Target, measured: Measured, upstream: int, seconds: float) -> None:
    once = round_of(load, asked)
    await once.open()
    pids = (side.process.pid, upstream, os.getpid())
    before = [cpu_s(pid) for pid in pids]
    try:
        elapsed_s = await once.run(seconds)
    finally:
        once.close()
    used = [
        None if was is None or (now := cpu_s(pid)) is None else now - was for pid, was in zip(pids, before, strict=True)
    ]
    both = None if used[1] is None or used[2] is None else used[1] + used[2]
    measured.add(once.seen, elapsed_s, used[0], both)


def resident(opened: Opened) -> dict[str, float | None]:
    """The memory of each process, by its name, in MB."""
    return {side.process.name: resident_mb(side.process.pid) for side in opened.sides.values()}
