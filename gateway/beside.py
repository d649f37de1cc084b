"""The tasks beside the server: each is begun again when it ends by an error, and all are ended together.

Must not know what they do.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from gateway.logs import EventLogger
from keystore.cancelled import is_cancelled

BACK_OFF_S: Final = (0.5, 2.0, 10.0, 30.0)  # before a task that ended is begun again
WELL_S: Final = 60.0  # a task that ran for so long is no repetition of its last end
ENDING_S: Final = 2.0  # for all to end
AGAIN_S: Final = 1.0  # for those that had to be told twice
LONGEST_S: Final = ENDING_S + AGAIN_S


class Beside:
    """The tasks of one process."""

    def __init__(self, log: EventLogger, *, back_off_s: Sequence[float] = BACK_OFF_S) -> None:
        self._log = log
        self._back_off_s = back_off_s
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have `run` run until `end`; that it ended before is logged at once, and it is begun again."""
        self._tasks.add(asyncio.create_task(self._keep(name, run), name=name))

    async def _keep(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        clock, times = asyncio.get_running_loop().time, 0
        while True:
            began, error = clock(), None
            try:
                await run()
            except Exception as failed:  # noqa: BLE001 - else nobody does its work from here on, and nobody is told
                error = failed
            if is_cancelled():  # also where a driver raised an error of its own instead
                return
            times = 1 if clock() - began > WELL_S else times + 1
            pause = self._back_off_s[min(times, len(self._back_off_s)) - 1]
            self._log.error("task.ended", task=name, again_in_s=pause, exc_info=error)
            await asyncio.sleep(pause)

    async def end(self) -> None:
        """Cancel all; those that do not end in time are told twice, then logged and left."""
        left = self._tasks
        for within_s in (ENDING_S, AGAIN_S):
            for task in left:
                task.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=within_s)
        for task in left:
            self._log.error("stop.not_done", what=task.get_name(), after_s=LONGEST_S)
