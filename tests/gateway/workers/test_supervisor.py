"""A worker that cannot be started: the others go on, and it is tried again."""

import asyncio
import io
import json
import os
import signal
import socket
import sys
from typing import cast

import pytest

from gateway.logs import configure_logs
from gateway.workers.supervisor import Place, Supervisor, WorkerFailed
from gateway.workers.worker import Worker

CHILD = """
import signal, socket, sys
from gateway.workers.link import packed
wire = socket.socket(fileno=int(sys.argv[1]))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit(0))
wire.sendall(packed({"opened": True}) + packed({"ready": True}))
while wire.recv(100):
    pass
"""


class Crowded:
    """Lets so many processes begin, and none while `full`."""

    def __init__(self) -> None:
        self.full = False
        self.began: list[int] = []
        self.tried = 0

    async def start(self, number: int) -> Worker:
        self.tried += 1
        if self.full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CHILD, str(theirs.fileno())), pass_fds=[theirs.fileno()], start_new_session=True
            )
        self.began.append(process.pid)
        return await Worker.of(number, process, ours)


async def until(tried: "Crowded", times: int) -> None:
    async with asyncio.timeout(30):
        while tried.tried < times:
            await asyncio.sleep(0.01)


async def test_worker_that_cannot_be_forked_is_tried_again_and_the_others_serve_on() -> None:
    said, place, ready = io.StringIO(), Crowded(), asyncio.Event()
    supervisor = Supervisor(cast(Place, place), 2, 1.0, configure_logs("info", said))
    running = asyncio.create_task(supervisor.run(ready.set))
    async with asyncio.timeout(30):
        await ready.wait()
    dead, other = place.began
    place.full = True
    os.kill(dead, signal.SIGKILL)
    await until(place, 4)
    assert not running.done()
    os.kill(other, 0)
    place.full = False
    await until(place, 5)
    async with asyncio.timeout(30):
        while not supervisor._whole:
            await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 30)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [line["event"] for line in lines if "worker" in line and line["level"] == "error"] == [
        "worker.ended",
        "worker.not_started",
        "worker.not_started",
    ]
    assert lines[-2]["why"] == "[Errno 11] Resource temporarily unavailable"


async def test_first_worker_that_cannot_be_forked_ends_the_start() -> None:
    said, place = io.StringIO(), Crowded()
    place.full = True
    supervisor = Supervisor(cast(Place, place), 2, 1.0, configure_logs("info", said))
    async with asyncio.timeout(30):
        with pytest.raises(WorkerFailed, match="stands above"):
            await supervisor.run(lambda: None)
    assert json.loads(said.getvalue().splitlines()[0])["event"] == "worker.not_started"
