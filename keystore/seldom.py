"""When work that is done now and then is due: not more than once in so long, unless more of it was left. Must not know
the work."""

from datetime import datetime, timedelta


class Seldom:
    """Due at first, and again `every` so often."""

    __slots__ = ("_done_at", "_every")

    def __init__(self, every: timedelta) -> None:
        self._every = every
        self._done_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        return self._done_at is None or now - self._done_at >= self._every

    def done(self, now: datetime, *, more: bool) -> None:
        """It was done at `now`; with `more` left it is due at once."""
        self._done_at = None if more else now
