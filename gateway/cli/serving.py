"""`wardgate serve`, and the workers that it starts: imports what serves, and nothing of the other commands."""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Annotated

import typer
import uvloop

from gateway.cli.console import settings
from gateway.environment import allow_files, forbid_dumps, put_off_garbage_collection, spare_garbage_collection
from gateway.server import Listening
from gateway.server import serve as serve_forever
from gateway.settings import Settings
from gateway.workers.seat import Seat

MOST_WORKERS = 64


def run(chosen: Settings, on_ready: Callable[[Listening], None]) -> None:
    """Serve until the end, in this process."""

    def ready(listening: Listening) -> None:
        spare_garbage_collection()
        on_ready(listening)

    forbid_dumps()
    put_off_garbage_collection()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_forever(chosen, ready))


def serve(
    workers: Annotated[
        int,
        typer.Option(min=1, max=MOST_WORKERS, help="Processes on the one port, each with its own memory."),
    ] = 1,
) -> None:
    """Serve on WARDGATE_HOST:WARDGATE_PORT until SIGTERM; an empty database is migrated first."""

    def announce(url: str, metrics_url: str) -> None:
        sys.stderr.write(f"wardgate serves {url}, metrics at {metrics_url}/metrics\n")
        sys.stderr.flush()

    chosen = settings()
    allow_files()
    if workers == 1:
        run(chosen, lambda listening: announce(listening.url, listening.metrics_url))
    else:
        from gateway.workers.supervisor import supervise

        forbid_dumps()
        asyncio.run(supervise(chosen, workers, announce))


def worker(number: int, port: int, wire: int) -> None:
    """One of several processes that serve: started by `serve --workers`, never by hand."""
    seat = Seat(number, port, socket.socket(fileno=wire), spare_garbage_collection)
    chosen = settings()
    forbid_dumps()
    put_off_garbage_collection()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_forever(chosen, seat=seat))
