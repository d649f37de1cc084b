"""A chart of bars in plain characters, for any terminal and for what is piped on.

Owns how wide a bar is. Pure. Must not know what the numbers mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size

_MARK: Final = "#"
_NARROWEST: Final = 10  # columns that a bar has at least


@dataclass(frozen=True, slots=True)
class Bar:
    """One line: what it is called, how long it is among the others (0 or more), and what is written behind it."""

    name: str
    size: int
    told: str


def bar_lines(bars: Sequence[Bar], width: int) -> list[str]:
    """The lines, `width` columns at most where that leaves room for a bar at all. The longest bar fills what names and
    figures leave; whatever is more than nothing has one mark."""
    told = max((len(each.told) for each in bars), default=0)
    room = max(width - told - 4 - _NARROWEST, _NARROWEST)
    names = min(max((cell_len(each.name) for each in bars), default=0), room)
    longest = max(width - names - told - 4, _NARROWEST)
    most = max((each.size for each in bars), default=0)
    return [
        f"{_name(each.name, names)} |{_marks(each.size, most, longest):<{longest}}  {each.told:>{told}}".rstrip()
        for each in bars
    ]


def _marks(size: int, most: int, longest: int) -> str:
    return _MARK * max(size * longest // most, 1) if size else ""


def _name(text: str, columns: int) -> str:
    """Of exactly so many columns of a terminal; what is cut off is told by dots."""
    short = text if cell_len(text) <= columns else set_cell_size(text, columns - 3) + "..."
    return set_cell_size(short, columns)
