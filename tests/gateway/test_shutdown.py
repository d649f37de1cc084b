"""SIGTERM to the real `wardgate serve` while answers run: what load balancers, callers and logs learn of it."""

import json
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import eventually
from tests.served import served


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_sigterm_gives_notice_drains_and_tells_the_survivors(
    tmp_path: Path, sandbox: SandboxServer, pool: ThreadPoolExecutor
) -> None:
    with served(tmp_path, sandbox, "drain_notice_s = 1.5\ndrain_s = 1.5") as gateway:
        stream: Future[httpx.Response] = pool.submit(gateway.ask, "silent-after=2", stream=True)
        plain: Future[httpx.Response] = pool.submit(gateway.ask, "silence")
        eventually(lambda: len(sandbox.requests()) == 2)
        assert httpx.get(gateway.url + "/readyz").status_code == 200

        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(gateway.url + "/readyz").status_code == 503)
        assert "stopping" in httpx.get(gateway.url + "/readyz").text
        taken = gateway.ask("tokens=2")
        assert taken.status_code == 200, "requests are still taken"
        assert taken.headers["connection"] == "close", "and their connections are to be made elsewhere"
        slow = pool.submit(gateway.ask, "delay=2")  # taken in the notice, ends in the drain

        def refused() -> bool:
            try:
                httpx.get(gateway.url + "/readyz")
            except httpx.ConnectError:
                return True
            except httpx.TransportError:  # cut off while it was let in
                return False
            return False

        eventually(refused)
        assert gateway.process.poll() is None and not plain.done() and not stream.done()

        assert slow.result().status_code == 200, slow.result().text
        answer = plain.result()
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["fault"]) == (503, "shutting_down", "gateway")
        assert answer.headers["x-should-retry"] == "true"
        *_, last = [line for line in stream.result().text.splitlines() if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert "[DONE]" not in stream.result().text
        assert gateway.process.wait(10) == 0

        ended = sorted((str(line["outcome"]), str(line.get("code"))) for line in gateway.completed())
        assert ended == [("error", "shutting_down")] * 2 + [("ok", "None")] * 2


def test_idle_gateway_ends_as_soon_as_the_notice_is_over(tmp_path: Path, sandbox: SandboxServer) -> None:
    with served(tmp_path, sandbox, "drain_notice_s = 0.2\ndrain_s = 60") as gateway, httpx.Client() as client:
        assert client.get(gateway.url + "/readyz").status_code == 200  # a connection that is kept alive
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(10) == 0


def test_second_signal_ends_it_at_once(tmp_path: Path, sandbox: SandboxServer, pool: ThreadPoolExecutor) -> None:
    with served(tmp_path, sandbox, "drain_notice_s = 60\ndrain_s = 60") as gateway:
        plain = pool.submit(gateway.ask, "silence")
        eventually(lambda: len(sandbox.requests()) == 1)
        started = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(gateway.url + "/readyz").status_code == 503)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(20) == 0 and time.monotonic() - started < 6
        assert plain.result().json()["error"]["code"] == "shutting_down"
        assert [line["outcome"] for line in gateway.completed()] == ["error"]


def test_core_files_of_the_server_are_forbidden(tmp_path: Path, sandbox: SandboxServer) -> None:
    with served(tmp_path, sandbox, "drain_notice_s = 0") as gateway:
        limits = Path(f"/proc/{gateway.process.pid}/limits")
        if not limits.exists():
            pytest.skip("no /proc here")
        assert re.search(r"Max core file size +0 +0 ", limits.read_text())
