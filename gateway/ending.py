"""How a serving process ends: in order after one signal, at once after a second.

Owns the times of a stop (RELIABILITY.md S16). Must not know what is served.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

import uvicorn

from gateway.asgi import App, Receive, Scope, Send
from gateway.closing import CLOSING_S
from gateway.config import Limits
from gateway.inbound.accepting import Accepting
from gateway.inbound.door import Door
from gateway.services import Services

FAREWELL_S: Final = 3.0  # for requests that outlived the drain to be told, and for their last bytes to leave
# How long a stop may take with the shipped limits; fly.toml's kill_timeout is longer.
STOP_S: Final = Limits().drain_notice_s + Limits().drain_s + FAREWELL_S + CLOSING_S


class EndingServer(uvicorn.Server):
    """Ends in order: `/readyz` says 503 while requests are still taken; nobody new is let in and running answers may
    end; what is left is told. A second signal ends all of it at once.

    uvicorn alone would close the listener on the signal, break answers off without a word and raise the signal again,
    which kills the process before the database is closed.
    """

    def __init__(self, config: uvicorn.Config, services: Services, door: Door) -> None:
        super().__init__(config)
        self._services = services
        self.door = door
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes connections itself: the loop's own server is starved by requests (gateway/inbound/accepting.py)."""
        made: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(made, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        self.servers = [Accepting(each, protocol, self.door.full) for each in sockets or ()]  # type: ignore[misc]
        self.started = True

    @property
    def stopping(self) -> bool:
        return self._ending is not None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._signalled, sig)

    def stop(self) -> None:
        """What a signal does, without the notice; from any thread, and any number of times."""
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._begin, 0.0)

    def _signalled(self, sig: int) -> None:
        if self.stopping:
            self._break_off()
            self.should_exit = self.force_exit = True
        else:
            # A load balancer has to learn of it only when it was told that we are ready, and a person at a terminal
            # (Ctrl-C) has none in front.
            told = self._services.readiness.ready and sig != signal.SIGINT
            self._begin(self._services.limits.drain_notice_s if told else 0.0)

    def _begin(self, notice_s: float) -> None:
        if self.stopping:
            return
        self.door.closing = True  # whoever keeps a connection is to come back on another, elsewhere
        self._services.readiness.ready = False
        self._services.readiness.why_not = "stopping"
        self._services.metrics.set_ready(False)
        self._services.places.room.close()  # bulk that waits is told to come again, elsewhere
        self._ending = self._loop.create_task(self._end(notice_s))

    async def _end(self, notice_s: float) -> None:
        await asyncio.sleep(notice_s)
        self.should_exit = True  # uvicorn closes the listener and idle connections, and is done when the others end
        await asyncio.sleep(self._services.limits.drain_s)
        self._break_off()
        await asyncio.sleep(FAREWELL_S)
        self.force_exit = True

    def _break_off(self) -> None:
        for request in list(self.server_state.tasks):
            request.cancel()  # its guard tells the client

    def forget(self) -> None:
        """The server has ended; nothing is left to do."""
        if self._ending is not None:
            self._ending.cancel()


def outermost(app: App) -> App:
    """uvicorn logs a cancelled request as a crash; ours were told and counted by then."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call
