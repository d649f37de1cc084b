"""What processes used beyond their shares, told among them: the one thing that a share which takes over could not know.

While Redis decides, one process may admit more than its share. Each tells the others once a second for which limits it
did and by how much; when shares take over, those that have something left leave so much of it alone, and those that
told it owe it no longer. Owns the text that travels and the sums. Ids and numbers alone are told, never a key. Must not
know Redis or clocks.
"""

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.limiting.asks import Ask
from gateway.limiting.gcra import PERIOD_MS

MOST_TOLD: Final = 500  # limits, those with the most beyond first
# Rounds, of a second each. A text is there for five seconds: who has one now has asked after the first of six was told.
HEARD: Final = 6


def most_of(beyond: Mapping[str, int]) -> dict[str, int]:
    """What is told of it: by key of the limit, in requests or tokens."""
    return dict(sorted(beyond.items(), key=lambda each: each[1], reverse=True)[:MOST_TOLD])


class Beyond:
    """What the others told last, and what they have heard from here."""

    __slots__ = ("_at", "_heard", "_others", "_rounds")

    def __init__(self) -> None:
        self._others: dict[str, list[int]] = {}  # key of the limit -> by how much, for each process that told it
        self._heard: dict[str, int] = {}  # what was told here, and heard by all
        self._rounds: deque[Mapping[str, int]] = deque(maxlen=HEARD)  # what was told here while all were there
        self._at = 0

    def exchanged(self, told: Mapping[str, int], texts: Sequence[str], now: int, *, everybody: bool) -> None:
        """What was told, and all that the others tell now; what they told before is void. `everybody`: there is a text
        of each process."""
        self._heard = {}
        if everybody:
            self._rounds.append(dict(told))
        else:
            self._rounds.clear()
        if len(self._rounds) == HEARD:
            always = set.intersection(*(set(each) for each in self._rounds))
            self._heard = {key: min(each[key] for each in self._rounds) for key in always}
        self._others = {}
        self._at = now
        for text in texts:
            for key, amount in _read(text):
                self._others.setdefault(key, []).append(amount)

    def take(self, ask: Ask, now: int, parts: int) -> tuple[int, int]:
        """What of a limit the others used beyond their shares, and what they know that this one used beyond its own;
        once. Who else has something left is not known, so each leaves the whole of the first alone: together they
        admit what is left at most."""
        others, heard = self._others.pop(ask.key, None), self._heard.pop(ask.key, 0)
        if others is None and not heard:
            return 0, 0
        gone = ask.limit * (now - self._at) // (PERIOD_MS * parts)
        return max(0, sum(others or ()) - gone), max(0, heard - gone)


def _read(text: str) -> Iterable[tuple[str, int]]:
    """What is no such text tells nothing: another version may write, too."""
    try:
        told = json.loads(text)
    except ValueError:
        return []
    if not isinstance(told, dict):
        return []
    return [(key, amount) for key, amount in told.items() if isinstance(amount, int) and amount > 0]
