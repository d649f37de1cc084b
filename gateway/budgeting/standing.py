"""Whether this process is known to the database as one that holds something, under which name, and until when.

Owns the name. When it is not certain any more what the database knows of it (a lease that never answered, or the
process was taken for dead), it begins anew under another name: what calls have reserved is held under that, and the old
name's holds are returned by whoever buries it. Must not know who reserves what.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Final, Protocol

from keystore.budget_use import BudgetUse, Slot
from keystore.errors import DatabaseUnavailable

RENEWED_S: Final = 10.0
VALID_S: Final = 35.0  # what is held may be used for so long; others bury after gateway.budgeting.burying.DEAD_S
_AWAY_S: Final = 1.0  # after a failure nothing is asked for so long
_SINCE_START: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux's monotonic clock sleeps as well


def awake_or_not() -> float:
    """Seconds since the machine was started, those included in which it slept: others take this process for dead
    meanwhile, and what it held is theirs."""
    return time.clock_gettime(_SINCE_START)


class Pledges(Protocol):
    """What calls have reserved, and what is free."""

    def withhold(self) -> dict[Slot, int]:
        """Nothing is free any more; what was."""

    def restore(self, free: dict[Slot, int]) -> None:
        """So much is free again."""

    def reserved(self) -> dict[Slot, int]:
        """What calls that run have reserved."""


class Standing:
    """`clock` is monotonic seconds. What asks raises DatabaseUnavailable, for a moment after a failure at once."""

    def __init__(self, use: BudgetUse, pledges: Pledges, clock: Callable[[], float]) -> None:
        self._use = use
        self._pledges = pledges
        self._clock = clock
        self._one = asyncio.Lock()
        self._joined = False  # the database knows the name, and that it holds what the slices say
        self._away_until = float("-inf")
        self._renewed_at = float("-inf")
        self.valid_until = float("-inf")
        self.name = str(uuid.uuid4())
        self.begun = 0  # how often it began anew

    @property
    def away(self) -> bool:
        """The database did not answer just now."""
        return self._clock() < self._away_until

    async def assure(self) -> None:
        """Be known, and free to use what is held. Raises DatabaseUnavailable."""
        if self._joined and self._clock() < self.valid_until:
            return
        await self._renewed(VALID_S)

    async def renew(self) -> None:
        """Say that this process lives, unless it was said just now. Raises DatabaseUnavailable."""
        await self._renewed(RENEWED_S)

    def doubt(self) -> None:
        """It is not certain what the database knows: begin anew, but not now."""
        self._joined = False
        if not self.away:  # those who ask meanwhile do not put it off
            self._away_until = self._clock() + _AWAY_S

    def gone(self) -> None:
        """This process was taken for dead: what is held is not held any more."""
        self._joined = False
        self.valid_until = float("-inf")

    async def leave(self) -> None:
        """This process stops."""
        if self._joined:
            await self._use.leave(self.name)

    async def _renewed(self, age_s: float) -> None:
        async with self._one:
            began = self._clock()
            if self._joined and began - self._renewed_at < age_s:
                return
            if self.away:
                raise DatabaseUnavailable
            try:
                if self._joined and not await self._use.renew(self.name):
                    self.gone()
                if not self._joined:
                    await self._begin()
            except BaseException:
                self.doubt()
                raise
            self._renewed_at, self.valid_until = began, began + VALID_S

    async def _begin(self) -> None:
        """A new name. From here on rows name it, also when the database does not come to know it."""
        await self._use.ping()  # while the database is away, what is held can be used
        free = self._pledges.withhold()
        self.name = str(uuid.uuid4())
        try:
            await self._use.join(self.name, self._pledges.reserved())
        except BaseException:
            self._pledges.restore(free)
            raise
        self._joined = True
        self.begun += 1
