"""Processes that a benchmark starts: each is pinned, writes to a log file, serves a port that it is told, and ended.

How long it took to listen and to be ready, and its memory then, is measured from the outside, on every side alike.
"""

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.machine import pinned, resident_mb

START_S = 90.0
STOP_S = 10.0
POLL_S = 0.003
LOG_TAIL = 1_500  # characters
HOST = "127.0.0.1"


class BenchmarkError(Exception):
    """The benchmark cannot go on; its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process that serves `port` of loopback. Times in seconds from its start, memory in MB of 10^6 bytes."""

    name: str
    pid: int
    port: int
    listens_s: float
    ready_s: float
    ready_mb: float | None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: `command` with its environment in `folder`; ready when `ready` answers 200, or when it listens."""

    name: str
    command: Sequence[str]
    port: int
    folder: Path
    environment: Mapping[str, str]
    ready: str | None = None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def child(program: Program, cores: frozenset[int] | None) -> Iterator[Child]:
    """Start `program` on `cores`, wait until it is ready, and end it afterwards. Raises BenchmarkError."""
    log = program.folder / f"{program.name.replace(' ', '-')}.log"
    with log.open("wb") as out, pinned(cores):
        started = time.perf_counter()
        process = subprocess.Popen(
            list(program.command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=program.folder,
            env=dict(program.environment),
        )
    try:
        listens_s = _until(lambda: _listens(program.port), program, process, log, started)
        ready_s = listens_s
        if program.ready is not None:
            ready_s = _until(lambda: _ready(program), program, process, log, started)
        yield Child(program.name, process.pid, program.port, listens_s, ready_s, resident_mb(process.pid))
    finally:
        _end(process)


def _until(
    true: Callable[[], bool], program: Program, process: "subprocess.Popen[bytes]", log: Path, started: float
) -> float:
    while time.perf_counter() < started + START_S:
        if true():
            return time.perf_counter() - started
        if process.poll() is not None:
            break
        time.sleep(POLL_S)
    what = f"did not become ready within {START_S:.0f} s" if process.poll() is None else "ended at once"
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    raise BenchmarkError(f"{program.name} {what}; its log ends: {tail or '(empty)'}")


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((HOST, port)) == 0


def _ready(program: Program) -> bool:
    connection = http.client.HTTPConnection(HOST, program.port, timeout=START_S)
    try:
        connection.request("GET", program.ready or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
