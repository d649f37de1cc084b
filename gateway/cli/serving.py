"""What `wardgate serve` and its workers do: imports what serves, and nothing of other commands or their parser."""

import asyncio
import socket
import sys
from collections.abc import Callable

import uvloop

from gateway.cli.begins import settings
from gateway.environment import forbid_dumps, share_fairly
from gateway.garbage import put_off_garbage_collection, spare_garbage_collection
from gateway.server import Listening
from gateway.server import serve as serve_forever
from gateway.settings import Settings
from gateway.workers.seat import Seat


def run(chosen: Settings, on_ready: Callable[[Listening], None]) -> None:
    """Serve until the end, in this process."""

    def ready(listening: Listening) -> None:
        spare_garbage_collection()
        on_ready(listening)

    forbid_dumps()
    put_off_garbage_collection()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_forever(chosen, ready))


def serve(workers: int = 1) -> None:
    """Serve until a signal, in this process or in several workers."""

    def announce(url: str, metrics_url: str) -> None:
        sys.stderr.write(f"wardgate serves {url}, metrics at {metrics_url}/metrics\n")
        sys.stderr.flush()

    chosen = settings()
    share_fairly()
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
    share_fairly()
    put_off_garbage_collection()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_forever(chosen, seat=seat))
