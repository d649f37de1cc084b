"""The measurements over HTTP: every load on every side, in short rounds that take turns.

The rounds take turns so that what else the machine does meanwhile falls on all sides alike.
"""

import asyncio
import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop

from tests.benchmarks.load import Answer, Generator, Load, session
from tests.benchmarks.machine import cpu_s, resident_mb
from tests.benchmarks.sides import Side

LOADS = (
    Load("plain-1", "plain answers, 1 at a time", 1, stream=False),
    Load("plain-16", "plain answers, 16 at once", 16, stream=False),
    Load("stream-1", "streams, 1 at a time", 1, stream=True),
    Load("stream-8", "streams, 8 at once", 8, stream=True),
)
ROUNDS = 3
WARM_UP_S = 0.3
Say = Callable[[str], None]


@dataclass(slots=True)
class Measured:
    """What one side did under one load, over all rounds. Times in seconds."""

    side: str
    answers: list[Answer] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # answers a second, of each round
    elapsed_s: float = 0.0
    cpu_s: float | None = 0.0  # of the side's process; for `direct` that is the upstream itself

    def add(self, answers: Sequence[Answer], elapsed_s: float, cpu: float | None) -> None:
        """Take in one round."""
        self.answers += answers
        self.rates.append(len(answers) / elapsed_s)
        self.elapsed_s += elapsed_s
        self.cpu_s = None if cpu is None or self.cpu_s is None else self.cpu_s + cpu

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.answers) / self.elapsed_s

    @property
    def event_rate(self) -> float:
        """Events of streams a second."""
        return sum(answer.events for answer in self.answers) / self.elapsed_s

    @property
    def cpu_ms(self) -> float | None:
        """Processor time of the side's process for one answer, in milliseconds."""
        return None if self.cpu_s is None else self.cpu_s * 1000 / len(self.answers)

    @property
    def spread(self) -> float:
        """How far apart the rounds were, as a fraction of their mean."""
        return (max(self.rates) - min(self.rates)) / statistics.fmean(self.rates)

    def took_ms(self, percent: float) -> float:
        """A percentile of the time to the end of an answer."""
        return percentile([answer.took_s for answer in self.answers], percent) * 1000

    def first_token_ms(self, percent: float) -> float | None:
        """A percentile of the time to the first token; None for plain answers."""
        times = [answer.first_token_s for answer in self.answers if answer.first_token_s is not None]
        return percentile(times, percent) * 1000 if times else None


@dataclass(frozen=True, slots=True)
class Process:
    """A process's start and memory."""

    name: str
    ready_s: float
    idle_mb: float | None  # once ready, before any request
    loaded_mb: float | None  # after all loads


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of at least one value."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


def measure(
    sides: Sequence[Side], loads: Sequence[Load], seconds: float, say: Say
) -> tuple[dict[str, list[Measured]], list[Process]]:
    """Every load on every side for `seconds` each, and what the processes took. Raises BenchmarkError."""
    processes = {side.process.pid: side.process for side in sides}
    idle = {pid: resident_mb(pid) for pid in processes}
    gc.collect()
    gc.freeze()  # the load generator's own collections must not show in the sides' times
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_all(sides, loads, seconds, say))
    taken = [Process(process.name, process.ready_s, idle[pid], resident_mb(pid)) for pid, process in processes.items()]
    return found, taken


async def _all(sides: Sequence[Side], loads: Sequence[Load], seconds: float, say: Say) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    async with session() as http:
        for load in loads:
            pairs = [(Generator(http, side, load), side) for side in sides]
            for generator, _ in pairs:
                await generator.run(WARM_UP_S)
            measured = [Measured(side.name) for side in sides]
            for turn in range(ROUNDS):
                say(f"{load.title}: round {turn + 1} of {ROUNDS}, {len(sides)} sides of {seconds / ROUNDS:.1f} s")
                for place in range(len(sides)):
                    at = (place + turn) % len(sides)
                    await _round(*pairs[at], measured[at], seconds / ROUNDS)
            found[load.name] = measured
    return found


async def _round(generator: Generator, side: Side, measured: Measured, seconds: float) -> None:
    before = cpu_s(side.process.pid)
    answers, elapsed_s = await generator.run(seconds)
    after = cpu_s(side.process.pid)
    measured.add(answers, elapsed_s, None if before is None or after is None else after - before)
