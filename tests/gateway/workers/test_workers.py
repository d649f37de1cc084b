"""`wardgate serve --workers 2`, the real one: one port, one metrics page, one stop; and what a death of one costs."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gateway.sandbox.server import SandboxServer
from gateway.settings import Settings
from gateway.workers.supervisor import Place, worker_environ
from keystore.secret import Secret
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.served import Served, served

QUICK = "drain_notice_s = 0.5\ndrain_s = 20"


def ready(gateway: Served) -> bool:
    return httpx.get(gateway.url + "/readyz").status_code == 200


def pids_of(gateway: Served) -> dict[int, int]:
    """The process that last began to serve as each worker."""
    return {int(str(line["worker"])): int(str(line["pid"])) for line in gateway.records("worker.began")}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def counted(gateway: Served) -> float:
    return gateway.metric("wardgate_requests_total", endpoint="chat_completions", outcome="ok")


class Callers:
    """Ask all the time, each time on a new connection; `answers` counts by status, 0 for none."""

    def __init__(self, gateway: Served, count: int) -> None:
        self.answers: Counter[int] = Counter()
        self._gateway = gateway
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers[self._gateway.ask("tokens=1").status_code] += 1
            except httpx.TransportError:
                self.answers[0] += 1

    def __enter__(self) -> "Callers":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_workers_count_as_one_outlive_a_death_and_stop_together(tmp_path: Path, sandbox: SandboxServer) -> None:
    with (
        served(tmp_path, sandbox, QUICK, "--workers", "2") as gateway,
        ThreadPoolExecutor(8) as pool,
        ExitStack() as left,
    ):
        assert ready(gateway)
        answers = list(pool.map(lambda _: gateway.ask("tokens=1").status_code, range(60)))
        assert answers == [200] * 60
        eventually(lambda: gateway.metric("wardgate_inflight_requests") == 0)
        assert counted(gateway) == 60
        assert gateway.metric("wardgate_workers") == 2 and gateway.metric("wardgate_ready") == 1
        by = Counter(line["worker"] for line in gateway.completed())
        assert set(by) == {0, 1} and min(by.values()) >= 5, by

        first = pids_of(gateway)
        os.kill(first[1], signal.SIGSTOP)
        assert counted(gateway) == 60, "a worker that hangs is counted as it last said"
        os.kill(first[1], signal.SIGCONT)
        callers = left.enter_context(Callers(gateway, 3))
        before = counted(gateway)
        os.kill(first[0], signal.SIGKILL)
        eventually(lambda: gateway.metric("wardgate_worker_restarts_total") == 1)
        assert counted(gateway) >= before, "what the dead one counted is not lost"
        answered = callers.answers[200]
        eventually(lambda: callers.answers[200] > answered + 3)  # the other goes on
        eventually(lambda: ready(gateway), 60)
        callers.stop()
        assert gateway.metric("wardgate_workers") == 2
        assert set(callers.answers) <= {0, 200} and callers.answers[0] <= 5, callers.answers
        (ended,) = gateway.records("worker.ended")
        assert (ended["worker"], ended["code"]) == (0, -signal.SIGKILL)

        total = counted(gateway)
        streams = [pool.submit(gateway.ask, "tokens=40; gap=0.05", stream=True) for _ in range(6)]
        eventually(lambda: gateway.metric("wardgate_inflight_requests") == 6)
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: not ready(gateway))
        assert [stream.result().text.rstrip().endswith("[DONE]") for stream in streams] == [True] * 6
        assert gateway.process.wait(30) == 0
        assert len(gateway.completed()) >= total + 6
        assert not any(alive(pid) for pid in {*first.values(), *pids_of(gateway).values()})
        with socket.socket() as again:  # nobody listens any more
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", int(gateway.url.rpartition(":")[2])))


def started(folder: Path, sandbox: SandboxServer, **environment: str) -> "subprocess.CompletedProcess[str]":
    gateway = RunningGateway(folder, sandbox_config(sandbox.url))
    env = gateway.environment() | {"WARDGATE_PORT": "0", "WARDGATE_METRICS_PORT": "0", "PATH": os.environ["PATH"]}
    command = [str(Path(sys.executable).with_name("wardgate")), "serve", "--workers", "2"]
    return subprocess.run(
        command, env=env | environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_port_that_is_taken_is_told_once(tmp_path: Path, sandbox: SandboxServer) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another gateway with workers has it
        other.bind(("127.0.0.1", 0))
        other.listen()
        ended = started(tmp_path, sandbox, WARDGATE_PORT=str(other.getsockname()[1]))
    assert ended.returncode == 1
    assert re.fullmatch(r"wardgate: cannot listen on \S+ Address already in use; .*\n", ended.stderr)


def test_start_that_fails_ends_the_whole(tmp_path: Path, sandbox: SandboxServer) -> None:
    began = time.monotonic()
    ended = started(tmp_path, sandbox, WARDGATE_DATABASE_URL="sqlite+aiosqlite:////nowhere/at/all.db")
    assert ended.returncode == 1 and time.monotonic() - began < 50
    first, last = ended.stderr.splitlines()
    assert "/nowhere/at" in first and last == "wardgate: a worker could not start; what it says stands above"


def test_worker_is_given_the_ring_that_was_taken_out_of_the_environment() -> None:
    settings = Settings(sealing_keys=Secret("k1:secret-canary"))
    environ = worker_environ({"PATH": "/bin"}, settings)
    assert environ == {"PATH": "/bin", "WARDGATE_SEALING_KEYS": "k1:secret-canary"}
    assert "canary" not in repr(Place(settings, 8080, environ))


@pytest.mark.parametrize("count", ["0", "-1", "1000", "two"])
def test_count_of_workers_is_checked(tmp_path: Path, sandbox: SandboxServer, count: str) -> None:
    gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url))
    assert gateway.cli("serve", "--workers", count).returncode == 2
