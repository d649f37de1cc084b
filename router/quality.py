"""How good a model is, as far as somebody measured it."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Quality:
    """A score from 0 to 100, where it is from, and of which day."""

    score: int
    source: str
    dated: date
