"""`wardgate serve --workers N`: starts N workers, replaces one that dies, stops them together, adds up what they count.

Serves no request itself. Must not know what a worker does with one.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from structlog.typing import FilteringBoundLogger

from gateway.closing import CLOSING_S
from gateway.ending import FAREWELL_S
from gateway.environment import family_names, scrub_environment
from gateway.listeners import bind, url_of
from gateway.logs import configure_logs
from gateway.metric_specs import WORKER_RESTARTS
from gateway.metrics_page import KeptElsewhere
from gateway.metrics_server import MetricsServer
from gateway.rules import load_rules
from gateway.settings import SEALING_KEYS, Settings
from gateway.workers.pages import Page, Whole, added_up, left_behind, page_of
from gateway.workers.worker import Worker

BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # before a worker that died is started again
WELL_S: Final = 60.0  # a worker that served for so long is no repetition of its last death
SCRAPE_S: Final = 2.0  # for every worker to send its page; then the last one that it sent stands in
KILL_S: Final = CLOSING_S + 2.0  # more than a stop may take: then a worker hangs, and is killed


class WorkerFailed(Exception):
    """A worker ended before the whole was ready: what stopped it stands above, in its own words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the workers serve: the address, and how a worker is started."""

    settings: Settings
    port: int
    environ: Mapping[str, str] = field(repr=False)

    async def start(self, number: int) -> Worker:
        """A new worker process, in a session of its own: a terminal's Ctrl-C reaches it through us alone. OSError
        while the system lets none begin."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "gateway.entry", "worker", str(number), str(self.port), str(theirs.fileno())]
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command, pass_fds=[theirs.fileno()], env=dict(self.environ), start_new_session=True
                )
        except OSError:
            ours.close()
            raise
        return await Worker.of(number, process, ours)


class Supervisor:
    """Of `count` workers. `drain_s` is how long a stop may take."""

    def __init__(self, place: Place, count: int, drain_s: float, log: FilteringBoundLogger) -> None:
        self._place = place
        self._count = count
        self._drain_s = drain_s
        self._log = log
        self._workers: dict[int, Worker] = {}
        self._left: Page = []  # what ended workers counted
        self._stopping = asyncio.Event()
        self._opened = asyncio.Event()  # the first worker has opened the database: it is migrated and has its ring
        self._whole = False
        self._was_whole = False
        self._failed = False
        self._restarts = 0
        self._own = CollectorRegistry()
        KeptElsewhere(WORKER_RESTARTS.name, WORKER_RESTARTS.help, self._own).count = lambda: self._restarts

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Until every worker has ended; raises WorkerFailed when the start fails."""
        self._on_ready = on_ready
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        slots = [asyncio.create_task(self._keep(0))]
        waits = {asyncio.create_task(self._opened.wait()), slots[0]}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        slots += [asyncio.create_task(self._keep(number)) for number in range(1, self._count)]
        self._opened.set()
        await asyncio.gather(*slots)
        if self._failed:
            raise WorkerFailed("a worker could not start; what it says stands above")

    def _signalled(self, number: int) -> None:
        """Passed on: each worker ends as a single process would, at once after the second."""
        for worker in self._workers.values():
            worker.tell(number)
        if not self._stopping.is_set():
            self._stopping.set()
            asyncio.get_running_loop().call_later(self._drain_s + KILL_S, self._kill)

    def _kill(self) -> None:
        for worker in self._workers.values():
            self._log.error("worker.killed", worker=worker.number, why="it did not end in its time")
            worker.tell(signal.SIGKILL)

    # --- one worker

    async def _keep(self, number: int) -> None:
        """One worker after another, until the whole stops."""
        deaths = 0
        while not self._stopping.is_set():
            lived_s = await self._one(number)
            if self._stopping.is_set():
                return
            if not self._was_whole:
                self._failed = True
                self._signalled(signal.SIGINT)
                return
            deaths = 1 if lived_s > WELL_S else deaths + 1
            pause = BACK_OFF_S[min(deaths, len(BACK_OFF_S)) - 1]
            self._log.info("worker.again", worker=number, in_s=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _one(self, number: int) -> float:
        """A worker, from its start to its end; for how long it lived."""
        try:
            worker = self._workers[number] = await self._place.start(number)
        except OSError as error:  # too many processes, or too little memory: the others serve, and it may pass
            self._log.error("worker.not_started", worker=number, why=str(error))
            return 0.0
        if self._stopping.is_set():
            worker.tell(signal.SIGTERM)
        await worker.listen(self._hear)
        code = await worker.ended()
        self._bury(worker)
        if self._was_whole and not self._stopping.is_set():
            self._log.error("worker.ended", worker=number, code=code)
            self._restarts += 1
        return worker.lived_s()

    def _bury(self, worker: Worker) -> None:
        """What the worker counted stays."""
        del self._workers[worker.number]
        self._left = added_up([self._left, left_behind(worker.page)])
        self._say_whole()

    def _hear(self, worker: Worker) -> None:
        """`worker` has opened its services, or is ready."""
        self._opened.set()
        self._say_whole()
        if worker.ready:
            worker.send({"whole": self._whole})

    def _say_whole(self) -> None:
        """Tell every worker when the whole became ready, or is so no longer."""
        ready = [worker for worker in self._workers.values() if worker.ready]
        whole = len(ready) == self._count
        if whole == self._whole:
            return
        self._whole = whole
        for worker in ready:
            worker.send({"whole": whole})
        if whole and not self._was_whole:
            self._was_whole = True
            self._on_ready()

    # --- what they count

    async def page(self) -> bytes:
        """The metrics page of the whole."""
        workers = list(self._workers.values())
        if workers:
            await asyncio.wait([asyncio.create_task(worker.scraped()) for worker in workers], timeout=SCRAPE_S)
        live = [worker.page for worker in self._workers.values()]
        return generate_latest(Whole(added_up([*live, self._left, page_of(self._own.collect())])))


async def supervise(settings: Settings, count: int, on_ready: Callable[[str, str], None]) -> None:
    """Serve with `count` workers until a signal; `on_ready` gets the URLs of API and metrics once all are ready."""
    log = configure_logs(settings.log_level)
    rules = load_rules(settings)
    if not settings.keep_provider_env:
        for name in scrub_environment(os.environ, family_names(rules.registry)):
            log.warning("environment.scrubbed", variable=name, why="provider keys come from the keystore alone")
    bind(settings.host, settings.port).close()  # refuses a port that another program shares as well
    with bind(settings.host, settings.port, shared=True, listens=False) as reserved:
        place = Place(settings, reserved.getsockname()[1], worker_environ(os.environ, settings))
        limits = rules.limits
        supervisor = Supervisor(place, count, limits.drain_notice_s + limits.drain_s + FAREWELL_S, log)
        loop = asyncio.get_running_loop()

        def render() -> bytes:
            return asyncio.run_coroutine_threadsafe(supervisor.page(), loop).result(2 * SCRAPE_S)

        metrics = MetricsServer(render, host=settings.metrics_host or settings.host, port=settings.metrics_port)
        try:
            await supervisor.run(lambda: on_ready(url_of(reserved), url_of(reserved, metrics.port)))
        finally:
            metrics.stop()


def worker_environ(ours: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The environment of a worker: ours, with the ring that was taken out of it."""
    ring = settings.sealing_keys
    return dict(ours) if ring is None else {**ours, SEALING_KEYS: ring.reveal()}
