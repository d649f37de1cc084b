"""Request targets as the application wants them: remembered, since callers use few. Must not know what they mean."""

from typing import Final
from urllib.parse import unquote

import httptools

MOST: Final = 256  # that are remembered
LONGEST: Final = 200  # bytes

Target = tuple[str, bytes, bytes]  # path, path as it was sent, query


class Targets:
    """Those of one process."""

    def __init__(self) -> None:
        self._known: dict[bytes, Target] = {}

    def find(self, url: bytes) -> Target | None:
        """The target, or None when it is none."""
        found = self._known.get(url)
        if found is None:
            found = _parsed(url)
            if found is not None and len(self._known) < MOST and len(url) < LONGEST:
                self._known[url] = found
        return found


def _parsed(url: bytes) -> Target | None:
    try:
        parsed = httptools.parse_url(url)
        raw = parsed.path or b"/"
        path = raw.decode("ascii")
    except (httptools.HttpParserError, UnicodeDecodeError):
        return None
    return unquote(path) if "%" in path else path, raw, parsed.query or b""
