"""Time and randomness, which are passed in.

Owns their types and the real ones. Must not know anything else.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""The time now, aware, in UTC."""

Random = Callable[[int], bytes]
"""So many random bytes, as `os.urandom` gives them."""


def utc_now() -> datetime:
    """The real clock."""
    return datetime.now(UTC)
