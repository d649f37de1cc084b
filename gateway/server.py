"""`wardgate serve`: opens the services, listens, imports LiteLLM behind the open listener, and only then is ready."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

import uvicorn
from structlog.typing import FilteringBoundLogger

from gateway.app import build_app
from gateway.environment import scrub_environment
from gateway.logs import configure_logs
from gateway.metrics_server import MetricsServer
from gateway.opening import close_services, open_services
from gateway.services import Services
from gateway.settings import Settings

DRAIN_S = 60  # how long running answers may go on after SIGTERM; fly.toml's kill_timeout is longer


class _Server(uvicorn.Server):
    """Says that it is not ready as soon as a signal tells it to end, while running answers are let finish."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._services.readiness.ready = False
        self._services.readiness.why_not = "stopping"
        self._services.metrics.set_ready(False)
        super().handle_exit(sig, frame)


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
        for name in scrub_environment(os.environ):
            log.warning("environment.scrubbed", variable=name, why="provider keys come from the keystore alone")

    def report(request_id: str, error: BaseException) -> None:
        log.error("request.failed", request_id=request_id, exc_info=error)

    services = await open_services(settings, report, log)
    try:
        await _listen(settings, services, on_ready, log)
    finally:
        await close_services(services)


async def _listen(
    settings: Settings, services: Services, on_ready: Callable[[Listening], None] | None, log: FilteringBoundLogger
) -> None:
    listener = bind(settings.host, settings.port)
    metrics_server = MetricsServer(
        services.metrics.render, host=settings.metrics_host or settings.host, port=settings.metrics_port
    )
    try:
        config = uvicorn.Config(
            build_app(services),
            loop="none",  # the loop that runs us
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
        server = _Server(config, services)

        def stop() -> None:
            server.should_exit = True

        host, port = listener.getsockname()[:2]
        listening = Listening(_url(host, port), _url(host, metrics_server.port), services, stop)
        opening = asyncio.create_task(_become_ready(server, listening, on_ready))
        try:
            await server.serve(sockets=[listener])
        finally:
            opening.cancel()
        if opening.done() and not opening.cancelled():
            opening.result()  # what stopped the start is the caller's to see
    finally:
        metrics_server.stop()
        listener.close()


async def _become_ready(
    server: uvicorn.Server, listening: Listening, on_ready: Callable[[Listening], None] | None
) -> None:
    services = listening.services
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.01)
    services.readiness.why_not = "LiteLLM is being imported"
    try:
        await services.lane.open()
    except BaseException:
        listening.stop()
        raise
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
    except OSError as error:
        listener.close()
        hint = "stop what listens there, or set WARDGATE_PORT"
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; {hint}") from error
    listener.set_inheritable(True)
    return listener


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
