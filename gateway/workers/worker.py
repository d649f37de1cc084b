"""A worker process as its supervisor sees it: the process, the wire to it, and the last page that came from there.

Must not know when a worker is started or ended.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import orjson

from gateway.workers.link import LENGTH, packed
from gateway.workers.pages import Page


class Worker:
    """One process; `page` is what it counted when it last said so."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.number = number
        self.ready = False
        self.page: Page = []
        self._process = process
        self._reader = reader
        self._writer = writer
        self._began = time.monotonic()
        self._asked = 0
        self._answers: dict[int, asyncio.Future[None]] = {}

    @classmethod
    async def of(cls, number: int, process: asyncio.subprocess.Process, wire: socket.socket) -> "Worker":
        """The worker at the other end of `wire`."""
        reader, writer = await asyncio.open_connection(sock=wire, limit=2**20)
        return cls(number, process, reader, writer)

    def tell(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.Signals(number))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, if it still listens."""
        if not self._writer.is_closing():
            self._writer.write(packed(message))

    async def listen(self, changed: Callable[["Worker"], None]) -> None:
        """Hear the worker until it closes the wire, which its end does; `changed` when it opened or became ready."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                length = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))[0]
                message = orjson.loads(await self._reader.readexactly(length))
                if "page" in message:
                    self._paged(message["page"], message["asked"])
                else:
                    self.ready = self.ready or "ready" in message
                    changed(self)
        for answer in self._answers.values():
            answer.cancel()

    def _paged(self, page: Page, asked: int) -> None:
        self.page = page
        answer = self._answers.pop(asked, None)
        if answer is not None and not answer.done():
            answer.set_result(None)

    async def scraped(self) -> None:
        """Ask for the page as it is now, and wait until it came or the worker ended."""
        self._asked += 1
        answer = self._answers[self._asked] = asyncio.get_running_loop().create_future()
        self.send({"scrape": self._asked})
        with contextlib.suppress(asyncio.CancelledError):
            await answer

    async def ended(self) -> int:
        """How it ended: an exit code, or a signal's number below zero."""
        code = await self._process.wait()
        self._writer.close()
        return code

    def lived_s(self) -> float:
        return time.monotonic() - self._began
