"""`wardgate serve`: opens the services, listens, and is ready; LiteLLM is imported when it is first needed, or before
readiness behind the open listener where the settings say so."""

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO, cast

import uvicorn

from gateway.app import build_app
from gateway.beside import Beside
from gateway.budgeting.tending import tend_budgets
from gateway.closing import close_services
from gateway.ending import FAREWELL_S, EndingServer, outermost
from gateway.environment import family_names, scrub_environment
from gateway.errors import ApiError
from gateway.inbound.door import Door
from gateway.inbound.protocol import InboundProtocol
from gateway.listeners import bind, more_files, url_of
from gateway.logs import EventLogger, configure_logs
from gateway.loop_lag import watch_lag
from gateway.metrics_server import MetricsServer
from gateway.opening import open_services
from gateway.rules import load_rules
from gateway.scrub import scrub
from gateway.services import Services
from gateway.settings import Settings
from gateway.tending import keep_beating, tend_keystore
from gateway.workers.seat import Seat
from keystore.errors import DatabaseUnavailable


class _Report:
    """Logs what went wrong with a request on our side: an unexpected exception with its traceback, and why a request
    was refused, or an answer not kept, for a fault of the gateway, at most once a second, since a database that is away
    refuses them all."""

    def __init__(self, log: EventLogger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._next = -math.inf
        self._unsaid = 0

    def __call__(self, request_id: str, error: BaseException) -> None:
        if not isinstance(error, ApiError | DatabaseUnavailable):
            self._log.error("request.failed", request_id=request_id, exc_info=error)
        elif self._clock() < self._next:
            self._unsaid += 1
        else:
            self._next = self._clock() + 1.0
            cause = error.__cause__ or error
            self._log.error(
                "request.not_served",
                request_id=request_id,
                code=error.problem.code if isinstance(error, ApiError) else None,
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


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a started gateway can be reached."""

    url: str
    metrics_url: str
    services: Services
    stop: Callable[[], None]


async def serve(
    settings: Settings,
    on_ready: Callable[[Listening], None] | None = None,
    *,
    log_stream: TextIO | None = None,
    seat: Seat | None = None,
) -> None:
    """Serve until a signal or `Listening.stop`; raises a sentence-bearing error when the start fails.

    Log lines go to `log_stream`, standard output when it is None. With a `seat` this is one of several workers: the
    supervisor has the metrics port, and says when all are ready.
    """
    log = configure_logs(settings.log_level, log_stream)
    if seat is not None:
        log = cast("EventLogger", log.bind(worker=seat.number))
    if not settings.keep_provider_env:
        for name in scrub_environment(os.environ, family_names(load_rules(settings).registry)):
            log.warning("environment.scrubbed", variable=name, why="provider keys come from the keystore alone")
    services = await open_services(settings, _Report(log), log)
    beside = Beside(log)
    for name, run in _tasks(services, log).items():
        beside.start(name, run)
    try:
        if seat is None:
            await _listen(settings, services, on_ready, log)
        else:
            await _sit(settings, services, seat, log)
    finally:
        await beside.end()
        await close_services(services, log)


def _tasks(services: Services, log: EventLogger) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    """What runs beside the server, by name."""
    tasks: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "replica": partial(keep_beating, services.keystore, log),
        "keystore": partial(tend_keystore, services.keystore, log),
        "decisions": services.keeper.run,
        "ledger": services.shipper.run,
        "prices": services.prices.keep,
        "limits": services.admission.limiter.run,
        "budgets": partial(tend_budgets, services.budgets, services.keystore, log),
        "alerts": services.alerting.run,
        "lag": partial(watch_lag, partial(_late, services)),
    }
    return tasks if services.sharing is None else tasks | {"health": services.sharing.run}


def _late(services: Services, lag_s: float) -> None:
    """A timer of the event loop came so much too late."""
    services.metrics.note_loop_lag(lag_s)
    services.places.note_lag(lag_s)


async def _listen(
    settings: Settings, services: Services, on_ready: Callable[[Listening], None] | None, log: EventLogger
) -> None:
    """Alone: the sockets are ours."""
    listener = bind(settings.host, settings.port)
    metrics_server = MetricsServer(
        services.metrics.render, host=settings.metrics_host or settings.host, port=settings.metrics_port
    )
    server = _server(services, log)
    listening = Listening(url_of(listener), url_of(listener, metrics_server.port), services, server.stop)

    def ready() -> None:
        services.readiness.ready = True
        services.metrics.set_ready(True)
        if on_ready is not None:
            on_ready(listening)

    try:
        await _run(server, services, listener, ready, preload=settings.preload_litellm)
    finally:
        metrics_server.stop()
        listener.close()


async def _sit(settings: Settings, services: Services, seat: Seat, log: EventLogger) -> None:
    """As one of several on one port: the seat is told what this process counts."""
    listener = bind(settings.host, seat.port, shared=True)
    server = _server(services, log)

    def whole(ready: bool) -> None:
        if not server.stopping:
            services.readiness.ready = ready
            services.readiness.why_not = "" if ready else "a worker is not ready"
            services.metrics.set_ready(ready)

    log.info("worker.began", pid=os.getpid())
    seat.begin(services.metrics.families, whole=whole, stop=server.stop)
    try:
        await _run(server, services, listener, seat.tell_ready, preload=settings.preload_litellm)
    finally:
        seat.end()
        listener.close()


def _server(services: Services, log: EventLogger) -> EndingServer:
    services.metrics.set_serving()
    files, wanted = more_files(), 2 * services.limits.max_connections
    if 0 <= files < wanted:
        log.warning("files.few", may_be_open=files, wanted=wanted, why="who opens as many connections shuts others out")
    door = Door(services.limits, log, services.metrics.refused, services.metrics.not_taken)
    config = uvicorn.Config(
        outermost(build_app(services)),
        loop="none",  # the loop that runs us
        http=partial(InboundProtocol, door=door),  # type: ignore[arg-type]
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # else what reaches us from this machine says in a header where it comes from
        # Never reached: the server ends before. From Python 3.12 on it also bounds the wait for the listener.
        timeout_graceful_shutdown=math.ceil(services.limits.drain_s + FAREWELL_S) + 2,
    )
    return EndingServer(config, services, door)


async def _run(
    server: EndingServer, services: Services, listener: socket.socket, ready: Callable[[], None], *, preload: bool
) -> None:
    """Serve on `listener` until the server is told to stop; `ready` is called once requests can be served."""
    watch = asyncio.create_task(server.door.keep(lambda: server.server_state.connections))  # type: ignore[arg-type,return-value]
    opening = asyncio.create_task(_become_ready(server, services, ready, preload=preload))
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()
        opening.cancel()
        server.forget()
    if opening.done() and not opening.cancelled():
        opening.result()  # what stopped the start is the caller's to see


async def _become_ready(server: EndingServer, services: Services, ready: Callable[[], None], *, preload: bool) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.01)
    if preload:
        services.readiness.why_not = "LiteLLM is being imported"
        try:
            await services.lane.open()
        except BaseException:
            server.stop()
            raise
    if not server.stopping:
        ready()
