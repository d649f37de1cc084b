"""How many extra attempts a gateway may make: a share of its requests, so that an outage is not made worse.

Owns the count of the last seconds. Times are handed in. Must not know why an attempt is extra.
"""

from collections import deque
from typing import Final

SHARE: Final = 0.10  # extra attempts for each request (RELIABILITY S9: at most 1.10 attempts a request)
FLOOR: Final = 10.0  # in a window: a quiet gateway may fail over, too
WINDOW_S: Final = 10


class RetryBudget:
    """Extra attempts of the last ten seconds, held to a tenth of its requests or to the floor, whichever is more.

    Each process holds to its own share, so the fleet holds to the sum; the floor is divided among the processes that
    are known (`replicas`), one attempt at least for each. Times in seconds on any clock that does not go back.
    """

    def __init__(self, share: float = SHARE, floor: float = FLOOR) -> None:
        self._share = share
        self._floor = floor
        self._seconds: deque[list[int]] = deque()  # of the window: second, requests, extra attempts
        self.replicas = 1

    def request(self, now: float) -> None:
        """A request came that may need an attempt."""
        self._second(now)[1] += 1

    def left(self, now: float) -> bool:
        """Whether one more extra attempt may be made."""
        self._second(now)
        requests = sum(second[1] for second in self._seconds)
        extra = sum(second[2] for second in self._seconds)
        floor = max(1.0, self._floor / max(1, self.replicas))
        return extra + 1 <= max(floor, self._share * requests)

    def take(self, now: float) -> None:
        """An extra attempt is made."""
        self._second(now)[2] += 1

    def _second(self, now: float) -> list[int]:
        number = int(now)
        if not self._seconds or self._seconds[-1][0] < number:
            self._seconds.append([number, 0, 0])
            while self._seconds[0][0] <= number - WINDOW_S:
                self._seconds.popleft()
        return self._seconds[-1]
