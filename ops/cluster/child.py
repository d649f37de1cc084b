"""One child process of the cluster: started, watched, stopped by its own id.

Owns the process of a gateway or of the sandbox and its log, not how a process is made: a test has a quicker way than
Python's own start. Its folder stays when it ends: the journal in it belongs to
whoever is started there next. Must not know the proxy.
"""

import asyncio
import contextlib
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ops.cluster.waiting import ClusterError, until

START_S: Final = 60.0
TAIL: Final = 1500  # bytes of a log that are shown when a start fails


class Process(Protocol):
    """What is known of a process, as `asyncio.subprocess.Process` tells it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def send_signal(self, signal: int) -> None: ...

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What is to run, where, and into which files it says what it says."""

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    out: BinaryIO
    err: BinaryIO


Spawn = Callable[[Order], Awaitable[Process]]


async def spawned(order: Order) -> Process:
    """By the operating system."""
    return await asyncio.create_subprocess_exec(
        *order.command, cwd=order.folder, env=dict(order.environment), stdin=asyncio.subprocess.DEVNULL,
        stdout=order.out, stderr=order.err, start_new_session=True,
    )  # fmt: skip  # its own session: Ctrl-C is ours to hear, and to tell in order


@dataclass(slots=True, eq=False)
class Child:
    """`command` run in `folder`; `announces` finds its addresses in what it says first. `starts` counts its lives."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    announces: re.Pattern[str]
    on_stdout: bool = False  # where it announces itself; the other is its log
    addresses: tuple[str, ...] = ()
    starts: int = 0
    spawn: Spawn = spawned
    process: Process | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What it writes, of all its lives."""
        return self.folder / f"{self.name}.log"

    @property
    def said(self) -> Path:
        """What it says beside its log, of this life: where it listens, or why it could not."""
        return self.folder / f"{self.name}.said"

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    async def start(self) -> None:
        """Until it has said where it listens. Raises ClusterError."""
        with self.log.open("ab") as log, self.said.open("wb") as said:
            out, err = (said, log) if self.on_stdout else (log, said)
            self.process = await self.spawn(Order(self.command, self.folder, self.environment, out, err))
        self.starts += 1
        self.addresses = ()
        if not await until(self._announced_or_ended, START_S) or not self.addresses:
            await self.kill()
            raise ClusterError(f"{self.name} did not start: {self.said.read_text(errors='replace')[-TAIL:].strip()}")

    def _announced_or_ended(self) -> bool:
        found = self.announces.search(self.said.read_text(errors="replace"))
        if found:
            self.addresses = found.groups()
        return bool(found) or self.pid is None

    async def stop(self, within_s: float, sign: signal.Signals = signal.SIGTERM) -> int:
        """Asked to end, and made to when it has not `within_s`; its exit code, negative when it was made to."""
        if self.pid is not None and self.process is not None:
            self.process.send_signal(sign)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self.process.wait()
        return await self.kill()

    async def kill(self) -> int:
        """kill -9, and until it is gone; its exit code."""
        if self.process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            if self.pid is not None:
                self.process.kill()
        return await self.process.wait()
