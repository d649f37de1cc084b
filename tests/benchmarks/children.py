"""Processes that a benchmark starts: each is pinned, writes to a log file, says its URL when ready, and is ended."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.machine import pinned

START_S = 60.0
STOP_S = 10.0
POLL_S = 0.005
LOG_TAIL = 1_500  # characters


class BenchmarkError(Exception):
    """The benchmark cannot go on; its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process that serves `url`."""

    name: str
    pid: int
    url: str
    ready_s: float  # from its start to the line that told the URL


@contextmanager
def child(
    name: str,
    command: Sequence[str],
    *,
    says: str,
    cores: frozenset[int] | None,
    folder: Path,
    environment: Mapping[str, str],
) -> Iterator[Child]:
    """Start `command` in `folder`, wait until its log `says` the URL (the pattern's group), and end it afterwards."""
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as out, pinned(cores):
        started = time.perf_counter()
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=dict(environment)
        )
    try:
        url = _url(name, process, log, re.compile(says), started + START_S)
        yield Child(name, process.pid, url, time.perf_counter() - started)
    finally:
        _end(process)


def _url(name: str, process: "subprocess.Popen[bytes]", log: Path, says: "re.Pattern[str]", deadline: float) -> str:
    while time.perf_counter() < deadline:
        ended = process.poll() is not None
        found = says.search(log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found.group(1)
        if ended:
            break
        time.sleep(POLL_S)
    what = f"did not become ready within {START_S:.0f} s" if process.poll() is None else "ended at once"
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    raise BenchmarkError(f"{name} {what}; its log ends: {tail or '(empty)'}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
