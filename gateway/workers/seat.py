"""A worker's place under its supervisor: its port, whether all are ready, and what this process counts.

Must not know what is served or how pages are added up.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.metrics_core import Metric

from gateway.workers.link import Link
from gateway.workers.pages import page_of

PUSH_S: Final = 1.0  # how often the page is sent unasked: what a worker that is killed can lose of its counts


class Seat:
    """One worker's: it serves on `port` beside the others; `wire` leads to the supervisor."""

    def __init__(
        self, number: int, port: int, wire: socket.socket, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        self.number = number
        self.port = port
        self._link = Link(wire)
        self._on_ready = on_ready
        self._ended = threading.Event()
        self._families: Callable[[], Iterable[Metric]] = list

    def begin(
        self, families: Callable[[], Iterable[Metric]], *, whole: Callable[[bool], None], stop: Callable[[], None]
    ) -> None:
        """The services are open. `whole` hears on the running loop whether all workers are ready; `stop` is called when
        the supervisor is gone."""
        self._families = families
        loop = asyncio.get_running_loop()
        self._link.send({"opened": True})

        def hear() -> None:
            while (message := self._link.receive()) is not None:
                if "scrape" in message:
                    self._push(message["scrape"])
                elif "whole" in message:
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        loop.call_soon_threadsafe(whole, message["whole"])
            self._link.close()
            if not self._ended.is_set():
                stop()

        threading.Thread(target=hear, name="wardgate-seat", daemon=True).start()
        threading.Thread(target=self._push_often, name="wardgate-page", daemon=True).start()

    def tell_ready(self) -> None:
        """This worker can serve; whether the whole can is the supervisor's to say."""
        self._on_ready()
        self._link.send({"ready": True})

    def end(self) -> None:
        """Nothing more is counted here: the last page is sent, and nothing after it."""
        self._ended.set()
        self._push(0)
        self._link.hang_up()

    def _push_often(self) -> None:
        while not self._ended.wait(PUSH_S):
            self._push(0)

    def _push(self, asked: int) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone; `hear` sees to it
            self._link.send({"page": page_of(self._families()), "asked": asked})
