"""What the limits mean, in the fewest words and in exact fractions: GCRA by its theoretical arrival time, and leases.

Written from the definition and sharing nothing with the product but the records, so that it can disagree.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

from gateway.limiting.asks import Ask, Kind, Standing

MINUTE = 60_000
LEASE = 60_000
DEEPEST = 10 * MINUTE


class Model:
    """The limits of one world; the caller passes the time in ms."""

    def __init__(self) -> None:
        self.arrival: dict[str, Fraction] = {}
        self.leases: dict[str, dict[str, int]] = {}

    def admit(self, asks: Sequence[Ask], holder: str, now: int) -> tuple[bool, tuple[Standing, ...]]:
        if any(self.wait(ask, now) != 0 for ask in asks):
            return False, tuple(self.standing(ask, now) for ask in asks)
        for ask in asks:
            if ask.kind is Kind.CONCURRENCY:
                self.leases.setdefault(ask.key, {})[holder] = now + LEASE
            else:
                self.arrival[ask.key] = self.ahead(ask, now) + now + cost(ask, ask.amount)
        return True, tuple(self.standing(ask, now)._replace(retry_ms=0) for ask in asks)

    def force(self, ask: Ask, amount: int, now: int) -> None:
        ahead = self.ahead(ask, now) + cost(ask, amount)
        self.arrival[ask.key] = now + min(max(Fraction(0), ahead), Fraction(DEEPEST))

    def drop(self, ask: Ask, holder: str) -> None:
        self.leases.get(ask.key, {}).pop(holder, None)

    def keep(self, ask: Ask, holder: str, now: int) -> None:
        self.leases.setdefault(ask.key, {})[holder] = now + LEASE

    def ahead(self, ask: Ask, now: int) -> Fraction:
        """By how many ms the next arrival is due later than now."""
        return max(Fraction(0), self.arrival.get(ask.key, Fraction(now)) - now)

    def live(self, ask: Ask, now: int) -> list[int]:
        return sorted(until for until in self.leases.get(ask.key, {}).values() if until > now)

    def wait(self, ask: Ask, now: int) -> int | None:
        if ask.kind is Kind.CONCURRENCY:
            live = self.live(ask, now)
            return 0 if len(live) < ask.limit else min(1_000, live[0] - now) if ask.limit else None
        if ask.limit == 0 or ask.amount > ask.limit:
            return None
        return max(0, ceil(self.ahead(ask, now) + cost(ask, ask.amount) - MINUTE))

    def standing(self, ask: Ask, now: int) -> Standing:
        if ask.kind is Kind.CONCURRENCY:
            return Standing(ask, max(0, ask.limit - len(self.live(ask, now))), 0, self.wait(ask, now))
        left = max(0, floor((MINUTE - self.ahead(ask, now)) * ask.limit / MINUTE))
        return Standing(ask, left, ceil(self.ahead(ask, now)), self.wait(ask, now))


def cost(ask: Ask, amount: int) -> Fraction:
    """How many ms of the minute an amount takes."""
    return Fraction(MINUTE * amount, ask.limit)
