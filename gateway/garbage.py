"""When the process looks for garbage: never where what was made is kept, since each look stops all requests.

Imported by the command line before anything else: imports nothing of ours.
"""

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

COLLECT_AFTER: Final = 20_000  # new objects: a request makes some hundreds, and nearly all go by themselves


def put_off_garbage_collection() -> None:
    """No collection until `spare_garbage_collection`: what a start makes, it keeps, and each full collection would look
    through all of it again. What was imported up to now no collection looks through at all."""
    gc.disable()
    gc.freeze()


@contextlib.contextmanager
def kept_for_good() -> Iterator[None]:
    """What is made inside stays to the end: no collection looks through it, meanwhile or later. Each would stop all
    requests for half a second once LiteLLM is there."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def spare_garbage_collection() -> None:
    """What the process holds now it holds to its end: no later collection, nor the one at the exit, looks through it.

    LiteLLM's import leaves so much that each full collection would stop all requests, and the exit would take seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    gc.enable()
