"""Whose turn it is among requests that can wait: places shared with those that cannot, and tenants served in rotation.

Owns the queues, one for each tenant, their bounds, and who is left out for now. Must not know clocks (the time in ms is
passed in), tasks or limits.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)


class Turns(Generic[Who]):
    """`places`: requests at the same time that leave room for one more that can wait. Those that cannot wait take a
    place always, whether one is free or not. `abreast`: so many of those that can wait run at a time, beside how many
    others. Both may change. A tenant may have lanes: who is left out in one holds up no other."""

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
        self._queues: dict[str, dict[str, deque[Who]]] = {}  # tenant -> lane; whose turn is next comes first
        self._later: dict[tuple[str, str], int] = {}  # tenant and lane -> not before, in ms
        self._paused: frozenset[str] = frozenset()
        self._waiting = 0
        self.running = 0  # of those that can wait
        self.urgent = 0  # of those that cannot

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    def join(self, tenant: str, who: Who, lane: str = "") -> bool:
        """Wait behind the others of the tenant's lane; False where too many wait."""
        if self._waiting >= self._most or self.crowded(tenant):
            return False
        self._queues.setdefault(tenant, {}).setdefault(lane, deque()).append(who)
        self._waiting += 1
        return True

    def crowded(self, tenant: str) -> bool:
        """Whether as many of the tenant wait as may."""
        return _length(self._queues.get(tenant, {})) >= self._most_each

    def yields(self, tenant: str) -> Who | None:
        """Where too many wait in all, and some tenant has more waiting than this one would have: the last of the one
        that has most, who waits no longer. So nobody is shut out by the many of others."""
        if self._waiting < self._most:
            return None
        mine = _length(self._queues.get(tenant, {}))
        longest = max(self._queues, key=lambda each: _length(self._queues[each]))
        lanes = self._queues[longest]
        if _length(lanes) <= mine + 1:
            return None
        lane = max(lanes, key=lambda each: len(lanes[each]))
        who = lanes[lane].pop()
        self._left(longest, lane)
        return who

    def _left(self, tenant: str, lane: str) -> None:
        """One waits no longer."""
        self._waiting -= 1
        lanes = self._queues[tenant]
        if not lanes[lane]:
            del lanes[lane]
            self._later.pop((tenant, lane), None)
        if not lanes:
            del self._queues[tenant]

    def clear(self) -> list[Who]:
        """Everyone who waits; nobody does any more."""
        found = [who for lanes in self._queues.values() for queue in lanes.values() for who in queue]
        self._queues.clear()
        self._later.clear()
        self._waiting = 0
        return found

    def leave(self, tenant: str, who: Who, lane: str = "") -> bool:
        """Wait no longer; False for who did not wait."""
        queue = self._queues.get(tenant, {}).get(lane)
        if queue is None or who not in queue:
            return False
        queue.remove(who)
        self._left(tenant, lane)
        return True

    def take(self, now: int) -> Who | None:
        """The next one, who has a place from now on; None where no place is free or nobody may go."""
        if not self._waiting or self.running >= self.abreast or self.running + self.urgent >= self.places:
            return None
        found = next(((tenant, lane) for tenant, lane in self._in_turn() if self._may_go(tenant, lane, now)), None)
        if found is None:
            return None
        tenant, lane = found
        lanes = self._queues.pop(tenant)
        self._queues[tenant] = lanes  # behind all the others
        lanes[lane] = lanes.pop(lane)
        who = lanes[lane].popleft()
        self._left(tenant, lane)
        self.running += 1
        return who

    def _in_turn(self) -> Iterator[tuple[str, str]]:
        for tenant, lanes in self._queues.items():
            if tenant not in self._paused:
                for lane in lanes:
                    yield tenant, lane

    def _may_go(self, tenant: str, lane: str, now: int) -> bool:
        later = self._later.get((tenant, lane))
        if later is None:
            return True
        if later > now:
            return False
        del self._later[tenant, lane]
        return True

    def defer(self, tenant: str, who: Who, until: int, lane: str = "") -> None:
        """The limits refused: give the place back and be the lane's first again, which is left out until then."""
        self.running -= 1
        self._queues.setdefault(tenant, {}).setdefault(lane, deque()).appendleft(who)
        self._waiting += 1
        self._later[tenant, lane] = max(until, self._later.get((tenant, lane), until))

    def done(self) -> None:
        """Who had a place has ended."""
        self.running -= 1

    def pause(self, tenants: frozenset[str]) -> None:
        """From now on exactly these tenants' turns are left out."""
        self._paused = tenants

    def is_paused(self, tenant: str) -> bool:
        """Whether the tenant's turns are left out."""
        return tenant in self._paused


def _length(lanes: Mapping[str, deque[Who]]) -> int:
    return sum(map(len, lanes.values()))
