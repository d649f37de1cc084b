"""What a connection tells whoever serves a request of it: that the body is there, and that the client leaves; without a
task, an event or a race. Must not know who listens.
"""

from collections.abc import Callable
from typing import Final

GONE: Final = "wardgate.gone"  # where the protocol leaves it in the ASGI scope


class Gone:
    """Of one request: whether its connection was lost before the answer was complete."""

    __slots__ = ("_callback", "lost", "sent")

    def __init__(self) -> None:
        self.lost = False
        self.sent = False  # the whole request has come: its body can be read without a wait
        self._callback: Callable[[], None] | None = None

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, on the loop, when the client leaves; at once if it has left. One callback at a time."""
        if self.lost:
            callback()
        else:
            self._callback = callback

    def forget(self) -> None:
        """Nobody wants to know any more."""
        self._callback = None

    def lose(self) -> None:
        """The client has left; only the first time counts."""
        self.lost = True
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
