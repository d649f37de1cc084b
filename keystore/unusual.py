"""When spending is unusual: a rule over what was spent in one hour and in the busy hours before it.

The usual hour is the mean of those hours of the last days in which anything was spent: nights and week-ends do not make
a working hour look like an attack, and a batch that runs once a day is compared with itself. An hour (UTC) is unusual
when it has cost `factor` times the usual one, and `least_nano` at least; with nothing to compare with, that is enough.
Pure. Money is whole nano-dollars. Must not know where hours are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """What is unusual. `factor` 0: nothing is."""

    factor: int = 10
    least_nano: int = 10_000_000_000
    days: int = 7  # whose hours say what is usual

    @property
    def on(self) -> bool:
        return self.factor > 0

    def since(self, hour: datetime) -> datetime:
        """The first hour that this one is compared with."""
        return hour - timedelta(days=self.days)


A_RULE: Final = Rule()


@dataclass(frozen=True, slots=True)
class Busy:
    """Hours in which something was spent: how many, and how much in all."""

    hours: int = 0
    nano: int = 0

    @classmethod
    def of(cls, spent: Sequence[int]) -> "Busy":
        """The same of what was spent in each hour."""
        return cls(sum(1 for each in spent if each > 0), sum(each for each in spent if each > 0))

    @property
    def usual_nano(self) -> int:
        """The mean, rounded down; 0 where nothing was spent."""
        return self.nano // self.hours if self.hours else 0


def hour_of(at: datetime) -> datetime:
    """The hour (UTC) that a time is in."""
    return at.replace(minute=0, second=0, microsecond=0)


def is_unusual(spent_nano: int, before: Busy, rule: Rule) -> bool:
    """Whether so much in one hour is unusual after those `before`. No division: exact."""
    if not rule.on or spent_nano <= 0 or spent_nano < rule.least_nano:
        return False
    return spent_nano * before.hours >= rule.factor * before.nano
