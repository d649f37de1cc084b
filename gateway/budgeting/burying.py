"""Processes that died: what they held of budgets is returned, by whichever process notices first.

Owns when a holder is taken for dead: it has not said anything new for a while, by this process's own clock and while
this process looked all along. Clocks of different machines are never compared, and after an outage of the database
everybody has time to speak first. Must not know what a holder holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from keystore.budget_use import BudgetUse

DEAD_S: Final = 45.0
LOOKED_S: Final = 5.0  # between two looks
_GAP_S: Final = 15.0  # after a longer pause between looks, nothing is known of the time between


@dataclass(frozen=True, slots=True)
class _Seen:
    seen_at: datetime  # as the holder wrote it
    since: float  # when this process first saw that


class Burying:
    """`clock` is monotonic seconds; `buried` counts."""

    def __init__(self, use: BudgetUse, clock: Callable[[], float]) -> None:
        self._use = use
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._looked_at = float("-inf")
        self.buried = 0

    async def tend(self) -> None:
        """Every second or so. Raises DatabaseUnavailable."""
        now = self._clock()
        gap = now - self._looked_at
        if gap < LOOKED_S:
            return
        holders = await self._use.holders()
        self._looked_at = now
        self._seen = {holder: self._noted(holder, at, now, gap) for holder, at in holders.items()}
        for holder, seen in self._seen.items():
            if now - seen.since >= DEAD_S and await self._use.bury(holder, seen.seen_at):
                self.buried += 1

    def _noted(self, holder: str, seen_at: datetime, now: float, gap: float) -> _Seen:
        known = self._seen.get(holder)
        if known is None or known.seen_at != seen_at or gap > _GAP_S:
            return _Seen(seen_at, now)
        return known
