"""The machine below a benchmark: its cores, what a process used of it, and the line that says what was measured on.

Reads /proc; where there is none, figures are None and the report says so.
"""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

SCHEDULED = 2  # the clock of a process that counts its threads' time on a core; see clock_getcpuclockid(3)


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the load generator with the upstream, and the side under test, are pinned to; None: not pinned."""

    load: frozenset[int] | None
    side: frozenset[int] | None

    @property
    def sentence(self) -> str:
        """What the report says about pinning."""
        if self.load is None or self.side is None:
            return "Nothing is pinned (one core, or no sched_setaffinity): sides and load disturb each other."
        return (
            f"Pinned: load generator and upstream to core {_listed(self.load)}, the side to core {_listed(self.side)}."
        )


def _listed(cores: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


def choose_cores() -> Cores:
    """One core for load and upstream, one for the side under test."""
    if sys.platform == "linux":
        mine = sorted(os.sched_getaffinity(0))
        if len(mine) > 1:
            return Cores(frozenset(mine[:1]), frozenset(mine[1:2]))
    return Cores(None, None)


@contextmanager
def pinned(cores: frozenset[int] | None) -> Iterator[None]:
    """Run this thread, and whatever process it starts meanwhile, on `cores`."""
    if sys.platform != "linux" or cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process in MB of 10^6 bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    return None if kib is None else int(kib) * 1024 / 1e6


def cpu_s(pid: int) -> float | None:
    """User and system time of all threads of a process, in seconds (Linux: its CPU clock counts in nanoseconds)."""
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime(~pid << 3 | SCHEDULED)
    except OSError:
        return None


def describe() -> dict[str, object]:
    """Versions, cores, load and date."""
    return {
        "python": platform.python_version(),
        "litellm": version("litellm"),
        "wardgate": version("wardgate"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "load_average_before": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).date().isoformat(),
    }
