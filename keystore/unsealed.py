"""Keys that were unsealed a moment ago, so that a busy tenant's requests do not each pay for it.

Owns the one place where secrets stay in memory in plain text: at most MOST of them, each at most KEPT_S. A key that
changes is another record, and is never found here. Must not know how a key is sealed.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from keystore.holdings import Holding
from keystore.secret import Secret

MOST: Final = 1_000
KEPT_S: Final = 60.0


class Unsealed:
    """By the very record of the key that was read: `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[int, tuple[Holding, Secret, float]] = OrderedDict()

    def of(self, holding: Holding, unseal: Callable[[Holding], Secret]) -> Secret:
        """The secret of this record; what `unseal` raises is not remembered."""
        now, known = self._clock(), self._known.get(id(holding))
        if known is not None and known[0] is holding and now - known[2] < KEPT_S:
            return known[1]
        secret = unseal(holding)
        self._known.pop(id(holding), None)
        self._known[id(holding)] = (holding, secret, now)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return secret

    def forget_old(self) -> None:
        """Let go of what has been kept for long enough: the oldest come first."""
        oldest = self._clock() - KEPT_S
        while self._known and next(iter(self._known.values()))[2] <= oldest:
            self._known.popitem(last=False)
