"""`[browsers]` of wardgate.toml: the origins of pages that may call from a browser."""

import re
from collections.abc import Mapping
from typing import Final

ANY: Final = "*"
ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def read_origins(table: Mapping[str, object]) -> frozenset[str]:
    """The origins of a `[browsers]` table; ValueError says what is wrong."""
    for name in table:
        if name != "origins":
            raise ValueError(f"does not know {name!r}; known: origins")
    origins = table.get("origins", [])
    if not isinstance(origins, list):
        raise ValueError("origins must be a list of texts")
    for origin in origins:
        if not isinstance(origin, str) or (origin != ANY and not ORIGIN.fullmatch(origin)):
            raise ValueError(f'origins must hold "*" or origins such as "https://app.example", not {origin!r}')
    return frozenset(origins)
