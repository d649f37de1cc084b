"""What is best among those that can answer."""

from enum import StrEnum


class Objective(StrEnum):
    """What a choice is made by."""

    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    BEST = "best"
    VALUE = "value"  # quality for its price
