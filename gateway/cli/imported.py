"""How a part of the command line is imported when it is needed."""

import gc
import importlib
from typing import Any


def imported(name: str) -> Any:
    """The module, imported without a collection: what an import makes stays, and looking through it again and again
    takes a fifth of the time."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.enable()
