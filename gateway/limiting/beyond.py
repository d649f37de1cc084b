"""What processes used beyond their shares, told among them: the one thing that a share which takes over could not know.

While Redis decides, one process may admit more than its share. Each tells the others once a second for which limits it
did and by how much; when shares take over, those that have something left leave so much of it alone. Owns the text that
travels and the sums. Ids and numbers alone are told, never a key. Must not know Redis or clocks.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.limiting.asks import Ask
from gateway.limiting.gcra import PERIOD_MS

MOST_TOLD: Final = 500  # limits, those with the most beyond first


def written(beyond: Mapping[str, int]) -> str:
    """What is told: by key of the limit, in requests or tokens."""
    most = sorted(beyond.items(), key=lambda each: each[1], reverse=True)[:MOST_TOLD]
    return json.dumps(dict(most))


class Beyond:
    """What the others told last."""

    __slots__ = ("_heard_at", "_others")

    def __init__(self) -> None:
        self._others: dict[str, list[int]] = {}  # key of the limit -> by how much, for each process that told it
        self._heard_at = 0

    def hear(self, texts: Sequence[str], now: int) -> None:
        """All that the others tell now; what they told before is void."""
        self._others = {}
        self._heard_at = now
        for text in texts:
            for key, amount in _read(text):
                self._others.setdefault(key, []).append(amount)

    def take(self, ask: Ask, now: int, parts: int) -> int:
        """What of a limit this process must leave alone, once: all that others used beyond theirs. Who else has
        something left is not known, so each leaves the whole: together they admit what is left at most."""
        told = self._others.pop(ask.key, None)
        if told is None:
            return 0
        return max(0, sum(told) - ask.limit * (now - self._heard_at) // (PERIOD_MS * parts))


def _read(text: str) -> Iterable[tuple[str, int]]:
    """What is no such text tells nothing: another version may write, too."""
    try:
        told = json.loads(text)
    except ValueError:
        return []
    if not isinstance(told, dict):
        return []
    return [(key, amount) for key, amount in told.items() if isinstance(amount, int) and amount > 0]
