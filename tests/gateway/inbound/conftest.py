"""A server of the inbound protocol with an application that tells what it got."""

import asyncio
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import uvicorn
import uvloop

from gateway.asgi import App, Receive, Scope, Send
from gateway.config import Limits
from gateway.inbound.door import Door
from gateway.inbound.protocol import InboundProtocol
from gateway.inbound.refusals import Refusal
from gateway.logs import configure_logs
from tests.harness import LogLines


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with method, path and body."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    names = {name for name, _ in scope["headers"]}
    assert b"authorization" not in names, "a trailer became a header"
    text = f"{scope['method']} {scope['path']} ".encode() + body
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@dataclass
class Running:
    """A started server: what it refused, and what it logged."""

    port: int
    logs: LogLines
    refused: Counter[Refusal] = field(default_factory=Counter)
    connections: set[object] = field(default_factory=set)
    run: Callable[[Callable[[], Awaitable[object]]], object] = field(default=lambda work: None)

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """A raw connection, with a small buffer for what comes when asked for."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return connection


@contextmanager
def running(app: App, limits: Limits | None = None) -> Iterator[Running]:
    """Serve `app` from a thread of its own."""
    logs = LogLines()
    log = configure_logs("info", logs)
    refused: Counter[Refusal] = Counter()

    def count(refusal: Refusal) -> None:
        refused[refusal] += 1

    door = Door(limits or Limits(), log, count)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    http = partial(InboundProtocol, door=door)
    config = uvicorn.Config(app, loop="none", http=http, lifespan="off", access_log=False, log_config=None)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    started = threading.Event()

    async def serve() -> None:
        watch = asyncio.create_task(door.keep(lambda: server.server_state.connections))  # type: ignore[arg-type,return-value]
        asyncio.get_running_loop().call_later(0.01, started.set)
        try:
            await server.serve(sockets=[listener])
        finally:
            watch.cancel()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield Running(listener.getsockname()[1], logs, refused, server.server_state.connections)  # type: ignore[arg-type]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Answer:
    """One answer on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> str:
        """As a row of the vectors writes it."""
        if self.status == 200:
            return f"200 {self.body.decode('latin-1')}"
        return f"{self.status} {json.loads(self.body)['error']['code']}"


def answers(data: bytes) -> list[Answer]:
    """Every complete answer in what came over a connection."""
    found = []
    stream = io.BytesIO(data)
    while line := stream.readline():
        status = int(line.split()[1])
        headers = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name] = value.strip()
        found.append(Answer(status, headers, stream.read(int(headers["content-length"]))))
    return found


def drained(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    data = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return data
        if not part:
            return data
        data += part
