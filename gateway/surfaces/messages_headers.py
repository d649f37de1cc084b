"""Which headers of a Messages request travel to a provider on Anthropic's wire.

Pure. Two of the caller's: the version of the API and the features that are tried out. All else stays here.
"""

from collections.abc import Iterable
from typing import Final

TRAVEL: Final = (b"anthropic-version", b"anthropic-beta")
DEFAULT_VERSION: Final = (b"anthropic-version", b"2023-06-01")  # where the caller sends none; the wire requires one


def native_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that travel, untouched and in their order; names in lower case, as ASGI gives them."""
    kept = [(name, value) for name, value in headers if name in TRAVEL]
    return kept if any(name == DEFAULT_VERSION[0] for name, _ in kept) else [DEFAULT_VERSION, *kept]
