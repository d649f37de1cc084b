"""What reads along a stream: the one verb, and what it must tell."""

from typing import Protocol


class Reader(Protocol):
    """Reads along a stream of one wire; what it learns is in the exchange's `seen`."""

    started: bool  # a real event has come, not only a comment

    @property
    def over(self) -> bool:
        """Nothing more is to be sent: the end mark came, or what is no event of a good stream."""

    def feed(self, piece: bytes) -> bytes:
        """What goes out of this piece and of what was held back: whole events, as they came."""

    def rest(self) -> bytes:
        """What was held back when the stream ended."""
