"""`wardgate serve`: opens the services, listens, and is ready; LiteLLM is imported when it is first needed, or before
readiness behind the open listener where the settings say so."""

import asyncio
import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

import uvicorn
from structlog.typing import FilteringBoundLogger

from gateway.app import build_app
from gateway.asgi import App, Receive, Scope, Send
from gateway.config import Limits
from gateway.environment import family_names, scrub_environment
from gateway.errors import ApiError
from gateway.logs import configure_logs
from gateway.metrics_server import MetricsServer
from gateway.opening import close_services, open_services
from gateway.rules import load_rules
from gateway.scrub import scrub
from gateway.services import Services
from gateway.settings import Settings
from keystore.errors import KeystoreError
from keystore.keystore import Keystore

TEND_S = 2.0  # how often the ring is read again and this process says that it lives
FAREWELL_S = 3.0  # for requests that outlived the drain to be told, and for their last bytes to leave
# How long a stop may take with the shipped limits; fly.toml's kill_timeout is longer.
DRAIN_S = Limits().drain_notice_s + Limits().drain_s + FAREWELL_S


class _Server(uvicorn.Server):
    """Ends in order: `/readyz` says 503 while requests are still taken; nobody new is let in and running answers may
    end; what is left is told. A second signal ends all of it at once.

    uvicorn alone would close the listener on the signal, break answers off without a word and raise the signal again,
    which kills the process before the database is closed.
    """

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None

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
        self._services.readiness.ready = False
        self._services.readiness.why_not = "stopping"
        self._services.metrics.set_ready(False)
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


def _outermost(app: App) -> App:
    """uvicorn logs a cancelled request as a crash; ours were told and counted by then."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call


class _Report:
    """Logs what went wrong with a request on our side: an unexpected exception with its traceback, and why a request
    was refused for a fault of the gateway, at most once a second, since a database that is away refuses them all."""

    def __init__(self, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._next = -math.inf
        self._unsaid = 0

    def __call__(self, request_id: str, error: BaseException) -> None:
        if not isinstance(error, ApiError):
            self._log.error("request.failed", request_id=request_id, exc_info=error)
        elif self._clock() < self._next:
            self._unsaid += 1
        else:
            self._next = self._clock() + 1.0
            cause = error.__cause__ or error
            self._log.error(
                "request.not_served",
                request_id=request_id,
                code=error.problem.code,
                cause=_kinds(cause),
                why=scrub(str(cause)),
                like_it_before=self._unsaid,
            )
            self._unsaid = 0


def _kinds(error: BaseException | None) -> str:
    """The types of an exception and its causes. Not the texts: a driver's may hold statements and their values."""
    names: list[str] = []
    while error is not None and len(names) < 5:
        names.append(type(error).__name__)
        error = error.__cause__
    return " <- ".join(names)


class PortTaken(Exception):
    """The port cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a started gateway can be reached."""

    url: str
    metrics_url: str
    services: Services
    stop: Callable[[], None]


async def serve(
    settings: Settings, on_ready: Callable[[Listening], None] | None = None, *, log_stream: TextIO | None = None
) -> None:
    """Serve until a signal or `Listening.stop`; raises a sentence-bearing error when the start fails.

    Log lines go to `log_stream`, standard output when it is None.
    """
    log = configure_logs(settings.log_level, log_stream)
    if not settings.keep_provider_env:
        for name in scrub_environment(os.environ, family_names(load_rules(settings).registry)):
            log.warning("environment.scrubbed", variable=name, why="provider keys come from the keystore alone")
    services = await open_services(settings, _Report(log), log)
    beside = {asyncio.create_task(_tend(services.keystore, log)), asyncio.create_task(services.keeper.run())}
    beside.add(asyncio.create_task(services.prices.keep()))
    if services.sharing is not None:
        beside.add(asyncio.create_task(services.sharing.run()))
    try:
        await _listen(settings, services, on_ready, log)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        await close_services(services)


async def _tend(keystore: Keystore, log: FilteringBoundLogger) -> None:
    """Keep the keystore's ring and this process's row of replicas fresh. What fails is logged once and tried again."""
    failed = ""
    while True:
        try:
            await keystore.tend()
            failed = ""
        except KeystoreError as error:
            if str(error) != failed:
                failed = str(error)
                log.warning("keystore.not_tended", why=scrub(failed))
        await asyncio.sleep(TEND_S)


async def _listen(
    settings: Settings, services: Services, on_ready: Callable[[Listening], None] | None, log: FilteringBoundLogger
) -> None:
    listener = bind(settings.host, settings.port)
    metrics_server = MetricsServer(
        services.metrics.render, host=settings.metrics_host or settings.host, port=settings.metrics_port
    )
    try:
        config = uvicorn.Config(
            _outermost(build_app(services)),
            loop="none",  # the loop that runs us
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # else what reaches us from this machine says in a header where it comes from
            # Never reached: `_Server` ends before. From Python 3.12 on it also bounds the wait for the listener.
            timeout_graceful_shutdown=math.ceil(services.limits.drain_s + FAREWELL_S) + 2,
        )
        server = _Server(config, services)

        host, port = listener.getsockname()[:2]
        listening = Listening(_url(host, port), _url(host, metrics_server.port), services, server.stop)
        opening = asyncio.create_task(_become_ready(server, listening, on_ready, preload=settings.preload_litellm))
        try:
            await server.serve(sockets=[listener])
        finally:
            opening.cancel()
            server.forget()
        if opening.done() and not opening.cancelled():
            opening.result()  # what stopped the start is the caller's to see
    finally:
        metrics_server.stop()
        listener.close()


async def _become_ready(
    server: _Server, listening: Listening, on_ready: Callable[[Listening], None] | None, *, preload: bool
) -> None:
    services = listening.services
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.01)
    if preload:
        services.readiness.why_not = "LiteLLM is being imported"
        try:
            await services.lane.open()
        except BaseException:
            listening.stop()
            raise
    if server.stopping:
        return
    services.readiness.ready = True
    services.metrics.set_ready(True)
    if on_ready is not None:
        on_ready(listening)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises PortTaken with what to do about it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        hint = "stop what listens there, or set WARDGATE_PORT"
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; {hint}") from error
    listener.set_inheritable(True)
    return listener


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
