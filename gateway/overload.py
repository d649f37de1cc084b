"""How many requests a process carries at a time, and who is turned away beyond that: bulk first.

Two signs: the number of requests in flight, and how late the event loop is. A loop that stays late for some ticks has
more to do than it can, and then fewer requests are let in, a tenth less each tick; when it is in time again the number
grows back. Between the two lies what changes nothing, so that it does not swing. Bulk, which only takes what others
leave, gives way at a lateness that nobody else feels. The decisions are pure. Must not know HTTP, tasks or clocks: they
are told of each tick, ten a second (loop_lag).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

LATE_S: Final = 0.2  # a loop that is so late, at SUSTAINED ticks one after another, has too much to do
IN_TIME_S: Final = 0.15  # below it there is room for more
SUSTAINED: Final = 3  # ticks: one late tick is a large body or the garbage collector
LEAST: Final = 100  # so few requests in flight are not what keeps the loop
GROWTH: Final = 8  # one part in so many more each tick: from LEAST to 4,000 in 3.5 s
BULK_LATE_S: Final = 0.01  # bulk keeps the loop no longer than this, if it can help it
BULK_FIRST: Final = 16  # bulk begins so many abreast, which keeps the loop for some milliseconds
BULK_LEAST: Final = 4
FOR_BULK: Final = (3, 4)  # this part of what is allowed; the rest is left to requests that are not bulk


class Load(NamedTuple):
    """`allowed`: requests in flight beyond which a new one is turned away. `late`: ticks in a row at which the loop was
    late."""

    allowed: int
    late: int = 0

    @property
    def for_bulk(self) -> int:
        """The same for bulk."""
        return max(1, self.allowed * FOR_BULK[0] // FOR_BULK[1])


def after(load: Load, most: int, busy: int, lag_s: float) -> Load:
    """What is allowed after one more tick, at which `busy` requests were in flight and the loop was `lag_s` late. It is
    never more than `most`, nor less than LEAST where `most` is not."""
    if lag_s >= LATE_S:
        late = load.late + 1
        if late < SUSTAINED:
            return Load(load.allowed, late)
        return Load(max(min(LEAST, most), min(load.allowed, busy) * 9 // 10), late)
    if lag_s > IN_TIME_S:
        return Load(load.allowed)
    return Load(min(most, load.allowed + max(1, load.allowed // GROWTH)))


def abreast_after(abreast: int, most: int, running: int, lag_s: float) -> int:
    """How much bulk runs at a time after one more tick, of which so much runs now: a quarter less where the loop was
    late, an eighth more where all of it is used, else as much as is used, so that a flood after a pause begins slowly.
    From BULK_LEAST to `most`."""
    if lag_s >= BULK_LATE_S:
        return min(most, abreast, max(BULK_LEAST, min(abreast, running) * 3 // 4))
    if running >= abreast:
        return min(most, abreast + max(1, abreast // GROWTH))
    return min(most, max(BULK_FIRST, running))


class Overload:
    """The load of one process. `tell` hears when it begins to let in fewer than `most`, and when it is whole again."""

    __slots__ = ("_for_bulk", "_most", "_tell", "allowed", "load")

    def __init__(self, most: int, tell: Callable[["Overload"], None] = lambda _: None) -> None:
        self._most = most
        self._tell = tell
        self._take(Load(most))

    @property
    def shedding(self) -> bool:
        """Whether fewer are let in than could be."""
        return self.allowed < self._most

    def tick(self, lag_s: float, busy: int) -> None:
        """The loop was so late, with so many requests in flight."""
        was = self.shedding
        self._take(after(self.load, self._most, busy, lag_s))
        if was is not self.shedding:
            self._tell(self)

    def _take(self, load: Load) -> None:
        self.load, self.allowed, self._for_bulk = load, load.allowed, load.for_bulk

    def refuses(self, busy: int, *, bulk: bool) -> bool:
        """Whether a request that comes now, with `busy` others in flight, is turned away."""
        return busy >= (self._for_bulk if bulk else self.allowed)
