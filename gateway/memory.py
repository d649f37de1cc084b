"""How the process treats its memory once it serves."""

import gc
from typing import Final

COLLECT_AFTER: Final = 20_000  # new objects; a request makes some hundreds, and nearly all of them go by themselves


def settle() -> None:
    """What was built at the start stays: the collector need not go through it again and again, which stops requests for
    tens of milliseconds each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
