"""What one process holds of one budget in one period: taken from for each call, filled up by leases. Pure arithmetic.

Money is whole nano-dollars; times are seconds of a monotonic clock that is passed in. Must not know locks, databases or
requests.
"""

from typing import Final

from keystore.budget_use import Ask, Slot

_PART: Final = 100  # a lease wants this part of a budget
_PACES: Final = 4  # or what so many of the last rounds used
_CALLS: Final = 2  # and what so many calls like this one need


class Slice:
    """`free` may be taken; `reserved` is taken by calls that run. What a call used belongs to its row of the ledger."""

    __slots__ = ("free", "limit", "low", "pace", "reserved", "slot", "touched", "used", "waiting")

    def __init__(self, slot: Slot, limit: int, now: float) -> None:
        self.slot = slot
        self.limit = limit  # the budget's amount when the slice was last filled
        self.free = 0
        self.reserved = 0
        self.waiting = 0  # what calls want that stand in a queue for a lease
        self.low = 0  # the least that was free since the last round: nobody needed it
        self.used = 0  # since the last round
        self.pace = 0  # used in a round, of late
        self.touched = now

    def take(self, nano: int, now: float) -> None:
        """Reserve so much of what is free."""
        self.free -= nano
        self.reserved += nano
        self.touched = now
        self.low = min(self.low, self.free)

    def put_back(self, nano: int) -> None:
        """Of what is reserved, so much is free again."""
        self.reserved -= nano
        self.free += nano

    def settle(self, reserved: int, actual: int) -> int:
        """A call that had reserved so much has cost `actual`: how much of the slice covers it, which is less than
        `actual` when neither the reservation nor what is free suffices."""
        covered = min(actual, reserved + self.free)
        self.reserved -= reserved
        self.free += reserved - covered
        self.low = min(self.low, self.free)
        self.used += covered
        return covered

    def got(self, granted: int, needed: int) -> None:
        """A lease came, of which the call that asked has reserved what it needed."""
        self.reserved += needed
        self.free += granted - needed

    def ask(self, limit: int, lack: int, most: int) -> Ask:
        """What to ask for when a call that may cost `most` lacks so much. Under a lower limit than before, what is free
        is given up first."""
        want = lack + max(self.waiting - most, 0) + max(limit // _PART, _PACES * self.pace, _CALLS * most)
        back = self.give_up(self.free) if limit < self.limit else 0
        self.limit = limit
        return Ask(self.slot, limit, lack, want, back)

    def give_up(self, nano: int) -> int:
        """Hold so much of what is free no longer."""
        self.free -= nano
        self.low = min(self.low, self.free)
        return nano

    def end_round(self) -> int:
        """The part that nobody needed in the round that ends."""
        idle = self.low
        self.pace = (self.pace + self.used) // 2
        self.used, self.low = 0, self.free
        return idle

    @property
    def empty(self) -> bool:
        """Nothing is in it and nobody waits for it."""
        return not (self.free or self.reserved or self.waiting)
