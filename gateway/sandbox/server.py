"""The sandbox on a real port: in a thread for tests, or blocking for `wardgate sandbox`.

Owns the listening socket and the register of connections through which the application breaks them at the TCP level.
Prints nothing and configures no logging.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Collection
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from gateway.sandbox.app import HOLD_S, Sandbox
from gateway.sandbox.behaviours import Behaviour, from_json
from gateway.sandbox.exchange import Address
from gateway.sandbox.journal import Arrived
from gateway.sandbox.script import match_from_json

LOOPBACK = "127.0.0.1"
START_S = 30.0
STOP_S = 10.0
WAIT_S = 10.0
KEEP_ALIVE_S = 75
BACKLOG = 2048

Register = dict[Address, asyncio.Transport]


class SandboxError(Exception):
    """The sandbox could not be started."""


class SandboxServer:
    """A sandbox that serves in a thread of its own, from `start` to `stop`; also a context manager.

    `keys` None accepts whatever begins with `sk-sandbox-`; `gap_s` is the time between streamed tokens; `hold_s`
    bounds an ordered silence; port 0 takes a free one.
    """

    def __init__(
        self,
        *,
        keys: Collection[str] | None = None,
        gap_s: float = 0.0,
        hold_s: float = HOLD_S,
        host: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        register: Register = {}
        self.app = Sandbox(keys=keys, gap_s=gap_s, hold_s=hold_s, connections=register)
        self._address = (host, port)
        self._server = _Server(self.app, register)
        self._url = ""
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, without a path; SandboxError before `start`."""
        if not self._url:
            raise SandboxError("the sandbox has no address before it is started")
        return self._url

    def start(self) -> Self:
        """Listen and serve; SandboxError when the address cannot be had."""
        listener = _listen(*self._address)
        self._url = _url(listener)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="wardgate-sandbox", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(START_S):
            raise SandboxError(f"the sandbox did not start within {START_S:.0f} s")
        return self

    def stop(self) -> None:
        """Break all connections and end the thread."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def requests(self) -> tuple[Arrived, ...]:
        """What arrived since the last `clear`, finished or not."""
        return self.app.journal.requests()

    def wait_for(self, done: Callable[[tuple[Arrived, ...]], bool], timeout_s: float = WAIT_S) -> tuple[Arrived, ...]:
        """The requests as soon as `done` holds of them; TimeoutError when it never does."""
        return self.app.journal.wait_for(done, timeout_s)

    def finished(self, count: int = 1, timeout_s: float = WAIT_S) -> tuple[Arrived, ...]:
        """The requests once at least `count` arrived and all of them are over."""
        return self.wait_for(lambda seen: len(seen) >= count and all(one.finished for one in seen), timeout_s)

    def script(
        self,
        *behaviours: Behaviour | str | dict[str, object],
        match: dict[str, str] | None = None,
        repeat: bool = False,
    ) -> None:
        """One behaviour for each coming request that `match` (`wire`, `model`, `key`) covers, in order."""
        orders = [order if isinstance(order, Behaviour) else from_json(order) for order in behaviours]
        self.app.script.add(orders, match_from_json(match or {}), repeat=repeat)

    def clear(self) -> None:
        """Forget what arrived and what was scripted."""
        self.app.journal.clear()
        self.app.script.clear()


def run_sandbox(
    host: str,
    port: int,
    *,
    keys: Collection[str] | None = None,
    gap_s: float = 0.0,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal ends the process; `on_ready` hears the URL. SandboxError when the address cannot be had."""
    register: Register = {}
    server = _Server(Sandbox(keys=keys, gap_s=gap_s, connections=register), register)
    listener = _listen(host, port)
    if on_ready is not None:
        on_ready(_url(listener))
    with contextlib.suppress(KeyboardInterrupt):
        server.run([listener])


class _Server(uvicorn.Server):
    """uvicorn without logs, signals of its own readiness, and with an end that waits for no one."""

    def __init__(self, app: Sandbox, register: Register) -> None:
        config = uvicorn.Config(
            app,
            http=_registering(register),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
        )
        super().__init__(config)
        self.ready = threading.Event()
        self._register = register

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for transport in list(self._register.values()):
            transport.abort()
        await super().shutdown(sockets)


def _registering(register: Register) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, which also keeps the register of open connections by the client's address."""

    class RegisteringProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            self._address: Any = tuple((transport.get_extra_info("peername") or ("", 0))[:2])
            register[self._address] = transport
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            register.pop(self._address, None)
            super().connection_lost(exc)

    return RegisteringProtocol


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SandboxError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
