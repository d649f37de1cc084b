"""Programs in processes of their own, without the seconds that each spends on its imports.

One process imports what they import, starts nothing, and forks a child for each order: it runs the program as Python
would, with the arguments, the environment, the folder and the files that it was given, to its own end. What a program
is before its imports are done (what it imports at all, how it begins, what its interpreter reads of its environment) is
for tests that start Python itself.

Owns the forking process and what a test knows of a child. That process ends with ours: it reads a socket of ours.
"""

import array
import asyncio
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final, TextIO, cast

from gateway.cli.late import COMMANDS
from ops.cluster.child import Order

PROJECT: Final = Path(__file__).parents[1]
WARDGATE: Final = ("-m", "gateway.entry")
# What `wardgate` and the programs of the tests import. Not LiteLLM: it is imported when it is needed, in each process.
MODULES: Final = (
    "gateway.cli.serving", "gateway.cli.root", "gateway.workers.supervisor", "keystore.importing.importer",
    "keystore.migrate", "keystore.migrations", "sqlalchemy.dialects.sqlite.aiosqlite", "aiosqlite", "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg", "pydantic.main", "typer._adapters", "zoneinfo",
    *(f"gateway.cli.{row.module}" for row in COMMANDS.values()),
)  # fmt: skip
MOST: Final = 1 << 20  # bytes of an order
LOOK_S: Final = 0.01
STDERR: Final = 2

Files = tuple[int, int, int]


# --- on our side -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Forked:
    """A child, as `subprocess.Popen` has one: `returncode` is None until it was asked for and there is one."""

    args: Sequence[str]
    pid: int
    returncode: int | None = None
    _end: socket.socket | None = field(default=None, repr=False)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self._end is not None and select.select([self._end], [], [], timeout)[0]:
            self.returncode = int(self._end.recv(16))
            self._end.close()
            self._end = None
        return self.returncode

    def send_signal(self, sign: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sign)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks. `command` is what would follow `python`: `-m MODULE` or `-c PROGRAM`, and arguments."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", str(theirs.fileno())], cwd=PROJECT, pass_fds=[theirs.fileno()],
                env={"PATH": os.environ.get("PATH", ""), "COLUMNS": "200"}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip  # its own session: Ctrl-C is ours to hear, not theirs
        self._ours = ours
        self._close = weakref.finalize(self, _end, ours, self._process)

    def start(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, files: Files) -> Forked:
        """`files` are its standard input, output and error, which stay ours to close."""
        order = json.dumps({"command": command, "env": dict(env), "cwd": str(cwd)}).encode()
        end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            handed = array.array("i", [*files, theirs.fileno()])
            self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST)
            self._ours.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)])
        return Forked(command, int(end.recv(16)), None, end)

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: str = "", timeout: float = 90
    ) -> "subprocess.CompletedProcess[str]":
        """To its end, and what it said. Raises subprocess.TimeoutExpired."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            child = self.start(command, env=env, cwd=cwd, files=(given.fileno(), out.fileno(), err.fileno()))
            try:
                code = child.wait(timeout)
            except BaseException:
                child.kill()
                child.wait(10)
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(command), code, out.read().decode(), err.read().decode())


def _end(ours: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    ours.close()
    process.wait(10)


@functools.cache
def forks() -> Forks:
    """The one of this test process, started when it is first needed."""
    return Forks()


@dataclass(eq=False)
class Program:
    """A child as `asyncio.create_subprocess_exec` gives one; its standard output, where it was asked for."""

    child: Forked
    stdout: asyncio.StreamReader | None = None
    _transport: asyncio.ReadTransport | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def returncode(self) -> int | None:
        return self.child.poll()

    def send_signal(self, signal: int) -> None:
        self.child.send_signal(signal)

    def kill(self) -> None:
        self.child.kill()

    async def wait(self) -> int:
        while (code := self.child.poll()) is None:
            await asyncio.sleep(LOOK_S)
        if self._transport is not None:
            self._transport.close()
        return code

    async def communicate(self) -> tuple[bytes, None]:
        """The rest of its output, once it has ended."""
        said = b"" if self.stdout is None else await self.stdout.read()
        await self.wait()
        return said, None


async def program(*command: str) -> Program:
    """`python COMMAND`, in the project's folder with our environment and our standard error."""
    loop = asyncio.get_running_loop()
    out, theirs = os.pipe()
    with Path(os.devnull).open("rb") as nothing, os.fdopen(theirs, "wb") as said:
        files = nothing.fileno(), said.fileno(), STDERR
        child = await asyncio.to_thread(forks().start, command, env=os.environ, cwd=PROJECT, files=files)
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(out, "rb"))
    return Program(child, reader, transport)


async def spawn(order: Order) -> Program:
    """A gateway of a cluster."""
    with Path(os.devnull).open("rb") as nothing:
        files = nothing.fileno(), order.out.fileno(), order.err.fileno()
        command = order.command[1:]  # Python is there already
        return Program(
            await asyncio.to_thread(forks().start, command, env=order.environment, cwd=order.folder, files=files)
        )


# --- the forking process ---------------------------------------------------------------------------------------------


def _serve(orders: socket.socket) -> list[str]:
    """Children, until nobody can order any more. Returns in each child, with its command line."""
    while True:
        order, handed, _, _ = orders.recvmsg(MOST, socket.CMSG_SPACE(16))
        if not order:
            os._exit(0)
        files = array.array("i")
        for _, _, data in handed:
            files.frombytes(data)
        if os.fork() == 0:
            orders.close()
            wanted = json.loads(order)
            _mind(socket.socket(fileno=files[3]))
            _become(wanted["env"], wanted["cwd"], files[:3])
            return list(wanted["command"])
        for each in files:
            os.close(each)


def _mind(told: socket.socket) -> None:
    """Returns in a child of this process, which says the child's id and how it ended, and ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        told.close()
        return
    told.send(b"%d" % child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        told.send(b"%d" % code)
    finally:
        os._exit(0)


def _become(env: Mapping[str, str], cwd: str, files: Sequence[int]) -> None:
    """A process as it is before its program runs."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = _text(0, "r", "strict"), _text(1, "w", "strict")
    sys.stderr = _text(2, "w", "backslashreplace")


def _text(file: int, mode: str, errors: str) -> TextIO:
    """A standard file; what goes to the second leaves line by line."""
    buffering = 1 if file == 2 else -1
    return cast("TextIO", open(file, mode, buffering, "utf-8", errors, closefd=False))


def _main() -> None:
    orders = socket.socket(fileno=int(sys.argv[1]))
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    how, what, *arguments = _serve(orders)
    if how == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    _main()
