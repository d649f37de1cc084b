"""How a part of the command line is imported when it is needed."""

import importlib
from typing import Any

from gateway.garbage import kept_for_good


def imported(name: str) -> Any:
    """The module, imported without a collection: looking again and again at what stays takes a fifth of the time."""
    with kept_for_good():
        return importlib.import_module(name)
