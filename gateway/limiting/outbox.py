"""What Redis is still to be told: the truth about tokens, leases that ended, and what was admitted while it was away.

Owns adding up by key, so that what waits is bounded by the keys in use. Must not know Redis or limits' arithmetic.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from gateway.limiting.asks import CONCURRENCY, Ask

MOST_ENDED: Final = 50_000  # leases that wait to be given back


class Verb(StrEnum):
    """What a change does; the script's words."""

    FORCE = "force"  # count an amount (negative: give back)
    DROP = "drop"  # give a holder's lease back
    KEEP = "keep"  # hold a holder's lease for as long again


class Change(NamedTuple):
    """One change that cannot be refused. `what` is an amount for FORCE and a holder for the others."""

    verb: Verb
    ask: Ask
    what: int | str


class Changes(list[Change]):
    """What was taken from the outbox to travel with a request. `unsent`: it never left."""

    __slots__ = ("unsent",)

    def __init__(self) -> None:
        super().__init__()
        self.unsent = False


class Outbox:
    """Changes that wait for the next batch."""

    __slots__ = ("_amounts", "_ended", "_ends")

    def __init__(self) -> None:
        self._amounts: dict[str, tuple[Ask, int]] = {}  # by key
        self._ended: dict[str, tuple[Ask, set[str]]] = {}  # by key: the holders
        self._ends = 0

    def __len__(self) -> int:
        return len(self._amounts) + self._ends

    def owe(self, ask: Ask, amount: int) -> None:
        """`amount` more (negative: less) was used than Redis knows."""
        known = self._amounts.get(ask.key)
        self._amounts[ask.key] = (ask, amount + (known[1] if known else 0))

    def owe_all(self, asks: Sequence[Ask], sign: int = 1) -> None:
        """A request was admitted without Redis; with -1, in vain."""
        for ask in asks:
            if ask.kind is not CONCURRENCY:
                self.owe(ask, sign * ask.amount)

    def end(self, asks: Sequence[Ask], holder: str) -> None:
        """The leases of a holder are no longer held; where too many wait already, it ends by itself."""
        for ask in asks:
            if ask.kind is CONCURRENCY and self._ends < MOST_ENDED:
                self._ended.setdefault(ask.key, (ask, set()))[1].add(holder)
                self._ends += 1

    def take(self) -> Changes:
        """All that waits, which waits no longer."""
        waiting = [ask for ask, _ in self._amounts.values()] + [ask for ask, _ in self._ended.values()]
        return self.take_of(waiting)

    def take_of(self, asks: Sequence[Ask]) -> Changes:
        """What waits for these limits, which waits no longer."""
        changes = Changes()
        for ask in asks:
            if ask.kind is not CONCURRENCY:
                owed = self._amounts.pop(ask.key, None)
                if owed is not None and owed[1]:
                    changes.append(Change(Verb.FORCE, *owed))
            elif ask.key in self._ended:
                ended, holders = self._ended.pop(ask.key)
                self._ends -= len(holders)
                changes += [Change(Verb.DROP, ended, holder) for holder in holders]
        return changes

    def put_back(self, changes: Sequence[Change], *, sent: bool = True) -> None:
        """A batch failed. Where it was sent, nobody knows how far it came: debts wait again, credits are not given
        twice."""
        for change in changes:
            if isinstance(change.what, str):
                if change.verb is Verb.DROP:
                    self.end([change.ask], change.what)
            elif change.what > 0 or not sent:
                self.owe(change.ask, change.what)

    def owe_instead(self, amounts: Sequence[tuple[Ask, int]]) -> None:
        """Exactly these are owed."""
        self._amounts = {ask.key: (ask, amount) for ask, amount in amounts if amount}

    def bound(self, used: Callable[[Ask], int]) -> None:
        """What leaked away by now is no longer owed: at most what is `used`."""
        bounded = {key: (ask, min(amount, used(ask))) for key, (ask, amount) in self._amounts.items()}
        self._amounts = {key: owed for key, owed in bounded.items() if owed[1]}
