"""How many bytes of large request bodies are held at a time, by all callers together.

Each is held three times over until its answer is there: as it came, as what was read of it, and on its way out. Without
a bound a hundred callers with pictures take all the memory there is, and everybody's answers with it. Must not know
what a body holds.
"""

from typing import Final

from gateway.errors import ApiError, Problem
from router.reasons import Fault

BUSY: Final = Problem(
    503,
    "gateway_busy",
    "The gateway holds as many large requests as it may. Send this one again shortly.",
    Fault.GATEWAY,
    retry_after_s=1,
    caller_may_retry=True,
    headers={"connection": "close"},  # the rest of the body is still on its way
)


class Bodies:
    """The room of one process, in bytes."""

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def share(self) -> "Share":
        """The part of one request, which is nothing yet."""
        return Share(self)


class Share:
    """What one request holds."""

    __slots__ = ("_bodies", "_size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes more; ApiError 503 when there is no room for them."""
        if self._bodies.held + size > self._bodies.most:
            raise ApiError(BUSY)
        self._bodies.held += size
        self._size += size

    def give_back(self) -> None:
        """The request has ended; may be called again."""
        self._bodies.held -= self._size
        self._size = 0
