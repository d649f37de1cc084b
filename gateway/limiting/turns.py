"""Whose turn it is among requests that can wait: places shared with those that cannot, and tenants served in rotation.

Owns the queues, one for each tenant, their bounds, and who is left out for now. Must not know clocks (the time in ms is
passed in), tasks or limits.
"""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)


class Turns(Generic[Who]):
    """`places`: requests at the same time that leave room for one more that can wait. Those that cannot wait take a
    place always, whether one is free or not. `abreast`: so many of those that can wait run at a time, beside how many
    others. Both may change."""

    __slots__ = (
        "_later",
        "_most",
        "_most_each",
        "_paused",
        "_queues",
        "_waiting",
        "abreast",
        "places",
        "running",
        "urgent",
    )

    def __init__(self, places: int, most: int, most_each: int) -> None:
        self.places = places
        self.abreast = places
        self._most = most
        self._most_each = most_each
        self._queues: dict[str, deque[Who]] = {}  # the tenant whose turn is next comes first
        self._later: dict[str, int] = {}  # tenant -> not before, in ms
        self._paused: frozenset[str] = frozenset()
        self._waiting = 0
        self.running = 0  # of those that can wait
        self.urgent = 0  # of those that cannot

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    def join(self, tenant: str, who: Who) -> bool:
        """Wait behind the others of the tenant; False where too many wait."""
        if self._waiting >= self._most or self.crowded(tenant):
            return False
        self._queues.setdefault(tenant, deque()).append(who)
        self._waiting += 1
        return True

    def crowded(self, tenant: str) -> bool:
        """Whether as many of the tenant wait as may."""
        return len(self._queues.get(tenant, ())) >= self._most_each

    def yields(self, tenant: str) -> Who | None:
        """Where too many wait in all, and some tenant has more waiting than this one would have: the last of the one
        that has most, who waits no longer. So nobody is shut out by the many of others."""
        if self._waiting < self._most:
            return None
        mine = len(self._queues.get(tenant, ()))
        longest = max(self._queues.values(), key=len)
        if len(longest) <= mine + 1:
            return None
        self._waiting -= 1
        return longest.pop()

    def clear(self) -> list[Who]:
        """Everyone who waits; nobody does any more."""
        found = [who for queue in self._queues.values() for who in queue]
        self._queues.clear()
        self._later.clear()
        self._waiting = 0
        return found

    def leave(self, tenant: str, who: Who) -> bool:
        """Wait no longer; False for who did not wait."""
        queue = self._queues.get(tenant)
        if queue is None or who not in queue:
            return False
        queue.remove(who)
        self._waiting -= 1
        if not queue:
            del self._queues[tenant]
            self._later.pop(tenant, None)
        return True

    def take(self, now: int) -> Who | None:
        """The next one, who has a place from now on; None where no place is free or nobody may go."""
        if not self._waiting or self.running >= self.abreast or self.running + self.urgent >= self.places:
            return None
        tenant = next((each for each in self._queues if self._may_go(each, now)), None)
        if tenant is None:
            return None
        queue = self._queues.pop(tenant)
        who = queue.popleft()
        if queue:
            self._queues[tenant] = queue  # behind all the others
        self._waiting -= 1
        self.running += 1
        return who

    def _may_go(self, tenant: str, now: int) -> bool:
        if tenant in self._paused:
            return False
        later = self._later.get(tenant)
        if later is None:
            return True
        if later > now:
            return False
        del self._later[tenant]
        return True

    def defer(self, tenant: str, who: Who, until: int) -> None:
        """The limits refused: give the place back and be the tenant's first again, which is left out until then."""
        self.running -= 1
        queue = self._queues.setdefault(tenant, deque())
        queue.appendleft(who)
        self._waiting += 1
        self._later[tenant] = max(until, self._later.get(tenant, until))

    def done(self) -> None:
        """Who had a place has ended."""
        self.running -= 1

    def pause(self, tenants: frozenset[str]) -> None:
        """From now on exactly these tenants' turns are left out."""
        self._paused = tenants

    def is_paused(self, tenant: str) -> bool:
        """Whether the tenant's turns are left out."""
        return tenant in self._paused
