"""Takes new connections from a listening socket, many in one turn of the event loop.

The loop's own server takes one connection a turn (libuv since 1.45), so that a process whose turns are full of requests
takes twenty a second: those who are connected are served again and again, and whoever comes anew, a health check too,
waits for seconds. Owns the socket's reader. Must not know HTTP.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 64  # some 3 ms of processor
SPENT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
AGAIN_S: Final = 0.1  # after no file could be opened: who waits to be taken waits in the kernel


class Accepting:
    """Serves a `protocol` to each connection that comes to a listener, until closed; what uvicorn calls a server.
    `full(why)` is told when the system lets none be taken: out of files or memory. Those that wait are tried again."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], full: Callable[[OSError], None]
    ) -> None:
        """Needs a running loop."""
        self._listener = listener
        self._protocol = protocol
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        self._begin()

    def _begin(self) -> None:
        self._again = None
        self._loop.add_reader(self._listener, self._take)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in SPENT:
                    self._pause(error)
                    return
                continue  # what befell that one connection
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _pause(self, error: OSError) -> None:
        """The socket stays readable, and would be tried in every turn."""
        self._full(error)
        self._loop.remove_reader(self._listener)
        self._again = self._loop.call_later(AGAIN_S, self._begin)

    async def _open(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it left before it was opened
            connection.close()
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Take nobody new. Connections that were taken go on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener)
            if self._again is not None:
                self._again.cancel()

    async def wait_closed(self) -> None:
        """Those that were still being opened when the server ended are closed."""
        for task in self._opening:
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
