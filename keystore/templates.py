"""Texts with places to fill in, as in `https://{resource}.openai.azure.com`.

Owns the form of a place and of what may fill it. What fills a place stands in a host name or a path, so it is one plain
label: nothing in it can end the host or begin another part of a URL. Pure. Must not know providers or keys.
"""

import re
from collections.abc import Mapping
from typing import Final

_PLACE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_PART: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def places_of(text: str) -> frozenset[str]:
    """The names of the places in a text."""
    return frozenset(_PLACE.findall(text))


def host_pattern(text: str) -> re.Pattern[str]:
    """What a host with places may be once they are filled."""
    parts = _PLACE.split(text)[::2]
    return re.compile(_PART.pattern.join(re.escape(part) for part in parts))


def fits(value: str) -> bool:
    """Whether a value may fill a place: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit."""
    return _PART.fullmatch(value) is not None


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with every place filled. KeyError names a place without a value; ValueError when one does not fit."""

    def value_of(place: re.Match[str]) -> str:
        value = values[place.group(1)]
        if not fits(value):
            raise ValueError(f"{place.group(1)} does not fit")
        return value

    return _PLACE.sub(value_of, text)
