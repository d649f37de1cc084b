"""Whether Redis is asked: a breaker that opens after failures in a row, and a way back that admits nothing twice.

Owns the three states and their times. Must not know Redis or limits: clock and chance are passed in.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

TRIALS: Final = 5  # failures in a row (RELIABILITY.md S13)
OPEN_S: Final = 5.0  # until it is tried again, and up to a fifth more, so that replicas do not come at once
JITTER: Final = 0.2
RETURNING_S: Final = 15.0  # by then every other process has tried again, too, and told what it admitted meanwhile


class State(StrEnum):
    """CLOSED: Redis decides. OPEN: it is away. RETURNING: it is back, and others may not know yet: both must agree."""

    CLOSED = "closed"
    OPEN = "open"
    RETURNING = "returning"


class Breaker:
    """The state of one process's way to Redis. `tell(state, why)` hears each change."""

    __slots__ = ("_chance", "_clock", "_failures", "_state", "_tell", "_until")

    def __init__(
        self, clock: Callable[[], float], chance: Callable[[], float], tell: Callable[[State, str], None]
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._tell = tell
        self._state = State.CLOSED
        self._failures = 0
        self._until = 0.0

    @property
    def state(self) -> State:
        """The state now; a return ends by itself."""
        if self._state is State.RETURNING and self._clock() >= self._until:
            self._become(State.CLOSED, "")
        return self._state

    @property
    def is_due(self) -> bool:
        """Whether it is open and to be tried again."""
        return self._state is State.OPEN and self._clock() >= self._until

    @property
    def next_trial_ms(self) -> int:
        """Until it is tried again, when it is open; at least 1."""
        return max(1, int((self._until - self._clock()) * 1000))

    def failed(self, why: str) -> None:
        """A round trip failed. On the way back, and for a trial, one is enough."""
        self._failures += 1
        if self._state is not State.CLOSED or self._failures >= TRIALS:
            self._until = self._clock() + OPEN_S * (1 + JITTER * self._chance())
            self._become(State.OPEN, why)

    def answered(self) -> None:
        """A round trip succeeded."""
        self._failures = 0

    def returned(self) -> None:
        """A trial succeeded, and Redis knows what was admitted without it."""
        self._failures = 0
        self._until = self._clock() + RETURNING_S
        self._become(State.RETURNING, "")

    def _become(self, state: State, why: str) -> None:
        if state is not self._state:
            self._state = state
            self._tell(state, why)
