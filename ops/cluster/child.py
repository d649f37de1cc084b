"""One child process of the cluster: started, watched, stopped by its own id.

Owns the process of a gateway or of the sandbox and its log. Its folder stays when it ends: the journal in it belongs to
whoever is started there next. Must not know the proxy.
"""

import asyncio
import contextlib
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.cluster.waiting import ClusterError, until

START_S: Final = 60.0
TAIL: Final = 1500  # bytes of a log that are shown when a start fails


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
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

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
            self.process = await asyncio.create_subprocess_exec(
                *self.command, cwd=self.folder, env=dict(self.environment), stdin=asyncio.subprocess.DEVNULL,
                stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip  # its own session: Ctrl-C is ours to hear, and to tell in order
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
