"""The limits counted in this process: the whole of them where it is alone, its share where there are several.

Owns the counts and forgetting those that are full again. One request costs a step for each of its limits, however many
keys are held. Must not know Redis, clocks or HTTP: the time in ms is passed in, and never goes back.
"""

from collections.abc import Sequence
from typing import Final

from gateway.limiting.asks import CONCURRENCY, Ask, Standing
from gateway.limiting.gcra import (
    AT_ONCE_AGAIN_MS,
    LEASE_MS,
    PERIOD_MS,
    burst,
    forced,
    leaked,
    leases_of,
    remaining,
    reset_ms,
    used,
    wait_ms,
)

ROUNDS: Final = 30  # of `forget`, until every key was looked at
FEWEST: Final = 1_000  # keys in a round
NEAR_MS: Final = 20


class LocalLimits:
    """Counts by key. `parts`: into how many shares each limit is divided, this process's being one."""

    __slots__ = ("_beyond", "_leases", "_rates", "_to_look_at")

    def __init__(self) -> None:
        self._rates: dict[str, tuple[int, int, Ask]] = {}  # key -> at, level, as last asked
        self._leases: dict[str, dict[str, int]] = {}  # key -> holder -> until, the first to end first
        self._beyond: set[str] = set()  # keys of which more than the share was used, when last noted
        self._to_look_at: list[str] = []

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._rates) + len(self._leases)

    def admit(self, asks: Sequence[Ask], holder: str, now: int, parts: int = 1) -> tuple[bool, tuple[Standing, ...]]:
        """Take all that is asked, or nothing; how each limit stands then."""
        counts = self._counts(asks, now, parts)
        if counts is None:
            return False, tuple([self._standing(ask, now, parts) for ask in asks])
        return True, tuple([self._taken(ask, counts[i], holder, now, parts) for i, ask in enumerate(asks)])

    def _counts(self, asks: Sequence[Ask], now: int, parts: int) -> list[int] | None:
        """For each the level, or the leases left, if it was taken; None where one refuses."""
        counts, rates = [], self._rates
        for kind, _, key, limit, amount in asks:
            if kind is CONCURRENCY:
                count = leases_of(limit, parts) - len(self._live(key, now)) - 1
                if count < 0:
                    return None
            else:
                kept = rates.get(key)
                count = PERIOD_MS * amount * parts
                if kept is not None:
                    count += leaked(kept[0], kept[1], limit, now)
                if count > burst(limit, parts) or not limit:
                    return None
            counts.append(count)
        return counts

    def _taken(self, ask: Ask, count: int, holder: str, now: int, parts: int) -> Standing:
        kind, _, key, limit, _ = ask
        if kind is CONCURRENCY:
            self.keep(key, holder, now)
            return Standing(ask, count, 0, 0)
        self._rates[key] = (now, count, ask)
        return Standing(ask, remaining(count, limit, parts), reset_ms(count, limit), 0)

    def _standing(self, ask: Ask, now: int, parts: int) -> Standing:
        """How a limit stands, of which nothing was taken."""
        if ask.kind is not CONCURRENCY:
            level = self._level(ask, now)
            retry = wait_ms(level, ask.limit, ask.amount, parts)
            return Standing(ask, remaining(level, ask.limit, parts), reset_ms(level, ask.limit), retry)
        limit, held = leases_of(ask.limit, parts), self._live(ask.key, now)
        if len(held) < limit:
            return Standing(ask, limit - len(held), 0, 0)
        first = next(iter(held.values()), now) - now
        return Standing(ask, 0, 0, min(AT_ONCE_AGAIN_MS, first) if limit else None)

    def _level(self, ask: Ask, now: int) -> int:
        kept = self._rates.get(ask.key)
        return 0 if kept is None else leaked(kept[0], kept[1], ask.limit, now)

    def note(self, standings: Sequence[Standing], holder: str, now: int, parts: int) -> None:
        """Count what was admitted for all processes together, so that this one's share knows of it. `standings` are of
        all: the share has not used more than they did, whatever it lacked before."""
        for ask, _, full_in, _ in standings:
            if ask.kind is CONCURRENCY:
                self.keep(ask.key, holder, now)
            else:
                level = min(self.force(ask, ask.amount, now, parts), full_in * ask.limit * parts)
                self._rates[ask.key] = (now, level, ask)
                if level > burst(ask.limit, parts):
                    self._beyond.add(ask.key)

    def learn(self, standings: Sequence[Standing], now: int) -> None:
        """A limit of all processes together refused: the part of it that they used is used of this one's share too."""
        for ask, _, full_in, _ in standings:
            if ask.kind is not CONCURRENCY:
                self._rates[ask.key] = (now, max(self._level(ask, now), full_in * ask.limit), ask)

    def fill(self, asks: Sequence[Ask], now: int, parts: int) -> None:
        """Nobody knows what others used of these: the whole, for all that this process may assume, but for what is
        refilled in NEAR_MS: who has thousands a minute is not refused for one of them."""
        for ask in asks:
            if ask.kind is not CONCURRENCY:
                full = burst(ask.limit, parts) - ask.limit * NEAR_MS
                self._rates[ask.key] = (now, max(self._level(ask, now), full), ask)

    def force(self, ask: Ask, amount: int, now: int, parts: int = 1) -> int:
        """Count `amount` (negative: give back) without being asked; the level then."""
        level = forced(self._level(ask, now), ask.limit, amount, parts)
        self._rates[ask.key] = (now, level, ask)
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
        return used(self._level(ask, now), parts)

    def beyond(self, now: int, parts: int) -> dict[str, int]:
        """By how much more than the share was used, by key, in requests or tokens; where it was."""
        found = {}
        for key in self._beyond:
            kept = self._rates.get(key)
            over = 0 if kept is None else leaked(kept[0], kept[1], kept[2].limit, now) - burst(kept[2].limit, parts)
            if over > 0:
                found[key] = used(over, parts)
        self._beyond = set(found)
        return found

    def rates(self) -> list[Ask]:
        """Every limit that is counted by the minute, as last asked."""
        return [ask for _, _, ask in self._rates.values()]

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

    def forget(self, now: int) -> None:
        """Forget what is full again among the next keys: all were looked at after ROUNDS."""
        if not self._to_look_at:
            self._to_look_at = [*self._rates, *self._leases]
        for _ in range(min(len(self._to_look_at), max(FEWEST, len(self) // ROUNDS))):
            key = self._to_look_at.pop()
            kept = self._rates.get(key)
            if kept is None:
                self._live(key, now)
            elif not leaked(kept[0], kept[1], kept[2].limit, now):
                del self._rates[key]
