"""The limits counted in this process: the whole of them where it is alone, its share where there are several.

Owns the counts and forgetting those that are full again. One request costs a step for each of its limits, whatever is
held. Must not know Redis, clocks or HTTP: the time in ms is passed in, and never goes back.
"""

from collections import deque
from collections.abc import Sequence

from gateway.limiting.asks import Ask, Kind, Standing
from gateway.limiting.gcra import (
    AT_ONCE_AGAIN_MS,
    LEASE_MS,
    State,
    forced,
    leaked,
    leases_of,
    remaining,
    reset_ms,
    used,
    wait_ms,
)

LOOKED_AT = 2  # keys for each request, whether they can be forgotten


class LocalLimits:
    """Counts by key. `parts`: into how many shares each limit is divided, this process's being one."""

    __slots__ = ("_last", "_leases", "_rates", "_turn")

    def __init__(self) -> None:
        self._rates: dict[str, State] = {}
        self._last: dict[str, Ask] = {}  # as last asked, for keys of _rates
        self._leases: dict[str, dict[str, int]] = {}  # key -> holder -> until, the first to end first
        self._turn: deque[str] = deque()  # every key of _rates once

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._rates) + len(self._leases)

    def admit(self, asks: Sequence[Ask], holder: str, now: int, parts: int = 1) -> tuple[bool, tuple[Standing, ...]]:
        """Take all that is asked, or nothing; how each limit stands then."""
        standings = tuple([self._asked(ask, now, parts) for ask in asks])
        admitted = True
        for standing in standings:
            if standing.retry_ms != 0:
                admitted = False
        self._forget(now)
        if not admitted:
            return False, standings
        return True, tuple([self._taken(standing, holder, now, parts) for standing in standings])

    def _asked(self, ask: Ask, now: int, parts: int) -> Standing:
        if ask.kind is Kind.CONCURRENCY:
            return self._lease_asked(ask, now, parts)
        level = leaked(self._rates.get(ask.key), ask.limit, now)
        retry = wait_ms(level, ask.limit, ask.amount, parts)
        return Standing(ask, remaining(level, ask.limit, parts), reset_ms(level, ask.limit), retry)

    def _lease_asked(self, ask: Ask, now: int, parts: int) -> Standing:
        limit = leases_of(ask.limit, parts)
        held = self._live(ask.key, now)
        free = limit - len(held)
        if free > 0:
            return Standing(ask, free, 0, 0)
        first = next(iter(held.values()), now) - now
        return Standing(ask, 0, 0, min(AT_ONCE_AGAIN_MS, first) if limit else None)

    def _taken(self, standing: Standing, holder: str, now: int, parts: int) -> Standing:
        ask = standing.ask
        if ask.kind is Kind.CONCURRENCY:
            self.keep(ask.key, holder, now)
            return Standing(ask, standing.remaining - 1, 0, 0)
        level = self.force(ask, ask.amount, now, parts)
        return Standing(ask, remaining(level, ask.limit, parts), reset_ms(level, ask.limit), 0)

    def note(self, standings: Sequence[Standing], holder: str, now: int, parts: int) -> None:
        """Count what was admitted for all processes together, so that this one's share knows of it. `standings` are of
        all: the share has not used more than they did, whatever it lacked before."""
        for ask, _, full_in, _ in standings:
            if ask.kind is Kind.CONCURRENCY:
                self.keep(ask.key, holder, now)
            else:
                level = self.force(ask, ask.amount, now, parts)
                self._rates[ask.key] = (now, min(level, full_in * ask.limit * parts))
        self._forget(now)

    def force(self, ask: Ask, amount: int, now: int, parts: int = 1) -> int:
        """Count `amount` (negative: give back) without being asked; the level then."""
        state = self._rates.get(ask.key)
        if state is None:
            self._turn.append(ask.key)
        level = forced(leaked(state, ask.limit, now), ask.limit, amount, parts)
        self._rates[ask.key] = (now, level)
        self._last[ask.key] = ask
        return level

    def drop(self, key: str, holder: str) -> None:
        """Give a lease back."""
        held = self._leases.get(key)
        if held is not None:
            held.pop(holder, None)
            if not held:
                del self._leases[key]

    def keep(self, key: str, holder: str, now: int) -> None:
        """Hold a lease for as long again."""
        held = self._leases.setdefault(key, {})
        held.pop(holder, None)
        held[holder] = now + LEASE_MS

    def used(self, ask: Ask, now: int, parts: int = 1) -> int:
        """What is used of a minute's limit, in requests or tokens, rounded up."""
        return used(leaked(self._rates.get(ask.key), ask.limit, now), parts)

    def rates(self) -> list[Ask]:
        """Every limit that is counted by the minute, as last asked."""
        return list(self._last.values())

    def _live(self, key: str, now: int) -> dict[str, int]:
        held = self._leases.get(key)
        if held is None:
            return {}
        while held:
            holder = next(iter(held))
            if held[holder] > now:
                return held
            del held[holder]
        del self._leases[key]
        return held

    def _forget(self, now: int) -> None:
        """Look at the next few keys in turn; what is full again is forgotten."""
        for _ in range(min(LOOKED_AT, len(self._turn))):
            key = self._turn.popleft()
            if leaked(self._rates[key], self._last[key].limit, now):
                self._turn.append(key)
            else:
                del self._rates[key], self._last[key]
