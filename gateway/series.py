"""Series of metrics by what was asked for: looking one up by its labels costs more than counting. Bounded."""

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

MOST: Final = 10_000  # names that callers invent count as one series, but are asked for under each

Found = TypeVar("Found")


class Series(Generic[Found]):
    """`find` finds a series by a metric and the values of its labels."""

    def __init__(self, find: Callable[..., Found]) -> None:
        self._find = find
        self._found: dict[tuple[Hashable, tuple[str, ...]], Found] = {}

    def of(self, metric: Hashable, values: tuple[str, ...]) -> Found:
        """The series of these values."""
        found = self._found.get((metric, values))
        if found is None:
            if len(self._found) >= MOST:
                self._found.clear()
            found = self._found[metric, values] = self._find(metric, values)
        return found

    def clear(self) -> None:
        """Ask anew: other values are let through from now on."""
        self._found.clear()
