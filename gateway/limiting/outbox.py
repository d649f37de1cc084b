"""What Redis is still to be told: the truth about tokens, leases that ended, and what was admitted while it was away.

Owns adding up by key, so that what waits is bounded by the keys in use. Must not know Redis or limits' arithmetic.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from gateway.limiting.asks import CONCURRENCY, Ask

MOST_ENDED: Final = 50_000  # leases that wait to be given back; beyond it the oldest end by themselves


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


class Outbox:
    """Changes that wait for the next batch."""

    __slots__ = ("_amounts", "_ended")

    def __init__(self) -> None:
        self._amounts: dict[str, tuple[Ask, int]] = {}  # by key
        self._ended: dict[tuple[str, str], Ask] = {}  # by key and holder

    def __len__(self) -> int:
        return len(self._amounts) + len(self._ended)

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
        """The leases of a holder are no longer held."""
        for ask in asks:
            if ask.kind is CONCURRENCY:
                self._ended[ask.key, holder] = ask
                if len(self._ended) > MOST_ENDED:
                    del self._ended[next(iter(self._ended))]

    def take(self) -> list[Change]:
        """All that waits, which waits no longer."""
        changes = [Change(Verb.FORCE, ask, amount) for ask, amount in self._amounts.values() if amount]
        changes += [Change(Verb.DROP, ask, holder) for (_, holder), ask in self._ended.items()]
        self._amounts, self._ended = {}, {}
        return changes

    def put_back(self, changes: Sequence[Change]) -> None:
        """A batch failed, and nobody knows how far it came: debts wait again, credits are not given twice."""
        for change in changes:
            if isinstance(change.what, str):
                if change.verb is Verb.DROP:
                    self._ended[change.ask.key, change.what] = change.ask
            elif change.what > 0:
                self.owe(change.ask, change.what)

    def owe_instead(self, amounts: Sequence[tuple[Ask, int]]) -> None:
        """Exactly these are owed."""
        self._amounts = {ask.key: (ask, amount) for ask, amount in amounts if amount}

    def bound(self, used: Callable[[Ask], int]) -> None:
        """What leaked away by now is no longer owed: at most what is `used`."""
        bounded = {key: (ask, min(amount, used(ask))) for key, (ask, amount) in self._amounts.items()}
        self._amounts = {key: owed for key, owed in bounded.items() if owed[1]}
