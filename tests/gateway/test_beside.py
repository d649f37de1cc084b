"""The tasks beside the server: one that ends is told and begun again, and the end of all comes in time."""

import asyncio
import io
import json
import time

from gateway.beside import AGAIN_S, ENDING_S, Beside
from gateway.logs import configure_logs


class Scene:
    """Tasks, and what is logged of them."""

    def __init__(self) -> None:
        self._said = io.StringIO()
        self.beside = Beside(configure_logs("info", self._said), back_off_s=(0.01, 0.02))
        self.runs = 0
        self.goes_on = asyncio.Event()

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._said.getvalue().splitlines()]

    async def run(self) -> None:
        """Ends by an error, then without one, then goes on."""
        self.runs += 1
        if self.runs == 1:
            raise RuntimeError("unable to perform operation; the handler is closed")
        if self.runs > 2:
            self.goes_on.set()
            await asyncio.Event().wait()


async def test_task_that_ends_is_told_at_once_and_begun_again() -> None:
    scene = Scene()
    scene.beside.start("limits", scene.run)
    async with asyncio.timeout(20):
        await scene.goes_on.wait()
    await scene.beside.end()
    first, second = scene.lines()
    assert (first["event"], first["task"], first["level"], first["again_in_s"]) == (
        "task.ended",
        "limits",
        "error",
        0.01,
    )
    assert "the handler is closed" in str(first["exception"])
    assert (second["event"], second["again_in_s"], second.get("exception")) == ("task.ended", 0.02, None)
    assert scene.runs == 3


async def test_task_that_takes_its_end_for_a_failure_is_told_twice_and_ends() -> None:
    scene = Scene()
    cancelled = 0

    async def stubborn() -> None:
        nonlocal cancelled
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 2:
                    raise

    scene.beside.start("stubborn", stubborn)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    began = time.monotonic()
    await scene.beside.end()
    assert ENDING_S <= time.monotonic() - began < ENDING_S + AGAIN_S
    assert scene.lines() == []


async def test_task_whose_driver_fails_when_it_is_told_to_end_is_not_begun_again() -> None:
    scene, began = Scene(), asyncio.Event()

    async def driven() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError from None

    scene.beside.start("driven", driven)
    await began.wait()
    await scene.beside.end()
    assert scene.lines() == []


async def test_task_that_does_not_end_is_told_and_left() -> None:
    scene, free = Scene(), asyncio.Event()

    async def deaf() -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    scene.beside.start("deaf", deaf)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await scene.beside.end()
    (line,) = scene.lines()
    assert (line["event"], line["what"], line["after_s"]) == ("stop.not_done", "deaf", ENDING_S + AGAIN_S)
    free.set()


async def test_end_without_tasks_is_at_once() -> None:
    await Scene().beside.end()
