"""The limits counted in this process: the whole of them where it is alone, its share where there are several.

Owns the counts and forgetting those that are full again. A share is filled by what this process admitted and by what
it assumes that others did; what it admitted is kept apart where that differs, since only that is told to others. One
request costs a step for each of its limits, however many keys are held. Must not know Redis, clocks or HTTP: the time
in ms is passed in, and never goes back.
"""

from collections.abc import Sequence
from typing import Final

from gateway.limiting.asks import CONCURRENCY, Ask, Standing
from gateway.limiting.gcra import (
    AT_ONCE_AGAIN_MS,
    LEASE_MS,
    PERIOD_MS,
    burst,
    carried,
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

    __slots__ = ("_beyond", "_leases", "_own", "_rates", "_to_look_at")

    def __init__(self) -> None:
        self._rates: dict[str, tuple[int, int, Ask]] = {}  # key -> at, level, as last asked
        self._own: dict[str, tuple[int, int]] = {}  # key -> at, level of what was admitted here, where it differs
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
        counts: list[int] = []
        rates = self._rates
        for kind, _, key, limit, amount in asks:
            if kind is CONCURRENCY:
                count = leases_of(limit, parts) - len(self._live(key, now)) - 1
                if count < 0:
                    return None
            else:
                kept = rates.get(key)
                count = PERIOD_MS * amount * parts
                if kept is not None:
                    if kept[2].limit > limit:
                        kept = self._lowered(asks[len(counts)], now, parts)
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
        if self._own:
            self._own_more(ask, ask.amount, now, parts)
        return Standing(ask, remaining(count, limit, parts), reset_ms(count, limit), 0)

    def _standing(self, ask: Ask, now: int, parts: int) -> Standing:
        """How a limit stands, of which nothing was taken."""
        if ask.kind is not CONCURRENCY:
            level = self._lowered(ask, now, parts)[1]
            retry = wait_ms(level, ask.limit, ask.amount, parts)
            return Standing(ask, remaining(level, ask.limit, parts), reset_ms(level, ask.limit), retry)
        limit, held = leases_of(ask.limit, parts), self._live(ask.key, now)
        if len(held) < limit:
            return Standing(ask, limit - len(held), 0, 0)
        first = next(iter(held.values()), now) - now
        return Standing(ask, 0, 0, min(AT_ONCE_AGAIN_MS, first) if limit else None)

    def _lowered(self, ask: Ask, now: int, parts: int) -> tuple[int, int, Ask]:
        """What is used now, written down where the limit was higher before: it leaks by this one from now on."""
        at, level, was = self._rates.get(ask.key, (now, 0, ask))
        if was.limit <= ask.limit:
            return now, leaked(at, level, ask.limit, now), ask
        kept = self._rates[ask.key] = (max(at, now), carried(at, level, was.limit, ask.limit, now, parts), ask)
        return kept

    def _level(self, ask: Ask, now: int) -> int:
        kept = self._rates.get(ask.key)
        return 0 if kept is None else leaked(kept[0], kept[1], ask.limit, now)

    def note(self, standings: Sequence[Standing], holder: str, now: int, parts: int) -> None:
        """Count what was admitted for all processes together, so that this one's share knows of it. `standings` are of
        all: the share has not used more than they did, whatever it lacked before."""
        for ask, _, full_in, _ in standings:
            if ask.kind is CONCURRENCY:
                self.keep(ask.key, holder, now)
                continue
            most = full_in * ask.limit * parts
            own = level = min(self.force(ask, ask.amount, now, parts), most)
            self._rates[ask.key] = (now, level, ask)
            if ask.key in self._own:
                own = min(self._own[ask.key][1], most)
                self._own[ask.key] = (now, own)
            if own > burst(ask.limit, parts):
                self._beyond.add(ask.key)

    def learn(self, standings: Sequence[Standing], now: int) -> None:
        """A limit of all processes together refused: the part of it that they used is used of this one's share too."""
        for ask, _, full_in, _ in standings:
            if ask.kind is not CONCURRENCY:
                self._assume(ask, full_in * ask.limit, now)

    def take_over(self, ask: Ask, others: int, heard: int, now: int, parts: int) -> None:
        """Before the share decides alone: `others` used so much beyond their shares, and they know of so much (`heard`)
        that this process used beyond its own. What others leave alone is owed here no longer, so that together the
        shares have what the limit has left, and are refilled as it is."""
        own, level, full = self._own_level(ask, now), self._level(ask, now), burst(ask.limit, parts)
        owing = max(min(own, full), forced(own, ask.limit, -heard, parts))
        left_alone = min(full, forced(own, ask.limit, others, parts))
        self._own[ask.key] = (now, own)
        self._rates[ask.key] = (now, max(owing, left_alone, level if level > own else 0), ask)

    def fill(self, asks: Sequence[Ask], now: int, parts: int) -> None:
        """Nobody knows what others used of these: the whole, for all that this process may assume, but for what is
        refilled in NEAR_MS: who has thousands a minute is not refused for one of them."""
        for ask in asks:
            if ask.kind is not CONCURRENCY:
                self._assume(ask, burst(ask.limit, parts) - ask.limit * NEAR_MS, now)

    def _assume(self, ask: Ask, level: int, now: int) -> None:
        """The share is as full as this at least, and its own part stays what it is."""
        before = self._level(ask, now)
        if level > before:
            self._own.setdefault(ask.key, (now, before))
            self._rates[ask.key] = (now, level, ask)

    def _own_level(self, ask: Ask, now: int) -> int:
        """What this process admitted itself."""
        own = self._own.get(ask.key)
        return self._level(ask, now) if own is None else leaked(*own, ask.limit, now)

    def _own_more(self, ask: Ask, amount: int, now: int, parts: int) -> None:
        """Count it of the own part, where that is kept apart."""
        own = self._own.get(ask.key)
        if own is not None:
            self._own[ask.key] = (now, forced(leaked(*own, ask.limit, now), ask.limit, amount, parts))

    def force(self, ask: Ask, amount: int, now: int, parts: int = 1) -> int:
        """Count `amount` (negative: give back) without being asked; the level then."""
        level = forced(self._level(ask, now), ask.limit, amount, parts)
        self._rates[ask.key] = (now, level, ask)
        self._own_more(ask, amount, now, parts)
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

    def admitted(self, ask: Ask, now: int, parts: int) -> int:
        """What this process admitted of it, or what is used as far as it knows, whichever is more."""
        return used(max(self._level(ask, now), self._own_level(ask, now)), parts)

    def beyond(self, now: int, parts: int) -> dict[str, int]:
        """By how much more than the share this process used, by key, in requests or tokens; where it did."""
        found = {}
        for key in self._beyond:
            kept = self._rates.get(key)
            over = 0 if kept is None else self._own_level(kept[2], now) - burst(kept[2].limit, parts)
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
                self._own.pop(key, None)
