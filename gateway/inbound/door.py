"""What all connections of a process share: the limits, who hears of a refusal, and the clock that finds the overdue.

Must not know HTTP.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from gateway.config import Limits
from gateway.inbound.refusals import Refusal
from gateway.inbound.targets import Targets

SECONDS_BETWEEN_LINES: Final = 1.0  # of the log, for one reason
AT_ONCE: Final = 50  # connections that are looked at before others have their turn: a thousand may be overdue at once


class Watched(Protocol):
    """A connection as the clock sees it."""

    def look(self, now: float) -> None:
        """End what is overdue at `now`, in seconds of the loop's clock; nothing when the connection is gone."""


class Door:
    """The limits of connections. `count` takes every refusal, `not_taken` each time that the system let nobody in; the
    log has one line a second and reason."""

    def __init__(
        self,
        limits: Limits,
        log: FilteringBoundLogger,
        count: Callable[[Refusal], None],
        not_taken: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.header_timeout_s = limits.header_timeout_s
        self.keep_alive_s = limits.keep_alive_s
        self.body_timeout_s = limits.body_timeout_s
        self.write_idle_s = limits.write_idle_s
        self.max_headers = limits.max_headers
        self.max_header_bytes = limits.max_header_bytes
        self.max_body_bytes = limits.max_body_bytes
        self.closing = False  # answers end their connections from now on: the process is about to stop
        self.targets = Targets()
        self.read_look_s = self.write_idle_s / 12  # how often one connection's reader is looked at
        shortest = min(self.header_timeout_s, self.keep_alive_s, self.body_timeout_s, self.write_idle_s)
        self._every_s = min(1.0, shortest / 4)
        self._log = log
        self._count = count
        self._not_taken = not_taken
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}  # reason -> when the next line may be, how many were unsaid

    def refused(self, refusal: Refusal, *, request_id: str, peer: str, detail: str = "") -> None:
        """One connection was refused or closed. `peer` is its address, `detail` a fixed text of the parser."""
        self._count(refusal)
        unsaid = self._unsaid(refusal)
        if unsaid is None:
            return
        facts = {"detail": detail} if detail else {}
        self._log.info(
            "connection.refused",
            reason=refusal.value,
            request_id=request_id,
            peer=peer,
            like_it_before=unsaid,
            **facts,
        )

    def full(self, error: OSError) -> None:
        """The system lets no connection be taken: those that come wait."""
        self._not_taken()
        unsaid = self._unsaid("full")
        if unsaid is not None:
            self._log.error("connections.not_taken", why=error.strerror, like_it_before=unsaid)

    def _unsaid(self, reason: str) -> int | None:
        """How many lines for this reason were left out before this one; None when this one is, too."""
        now = self._clock()
        after, unsaid = self._said.get(reason, (-math.inf, 0))
        if now < after:
            self._said[reason] = (after, unsaid + 1)
            return None
        self._said[reason] = (now + SECONDS_BETWEEN_LINES, 0)
        return unsaid

    async def keep(self, connections: Callable[[], Iterable[Watched]]) -> None:
        """Look at every connection, about once a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._every_s)
            for number, connection in enumerate(list(connections())):
                connection.look(loop.time())
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
