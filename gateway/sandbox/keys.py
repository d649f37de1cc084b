"""The key that a request brought: where it stood, whether it is accepted, and how much of it may be told.

Real providers know their keys; the sandbox accepts those it was started with, or whatever begins with `sk-sandbox-`.
It remembers a key's last four characters and its SHA-256, never the key.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

DEFAULT_PREFIX = "sk-sandbox-"
TAIL = 4
REDACTED = "***"
CARRIERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")  # looked at in this order, then `?key=`
QUERY_CARRIER = "key"


@dataclass(frozen=True, slots=True)
class GivenKey:
    """The key of one request and the header that carried it, or `?key` for the query; both empty without a key."""

    text: str = field(repr=False)
    carrier: str

    @property
    def tail(self) -> str:
        """The last four characters; nothing of a key so short that they would tell it."""
        return self.text[-TAIL:] if len(self.text) > 2 * TAIL else ""

    @property
    def sha256(self) -> str:
        """The hash by which a test recognises the key; empty without a key."""
        return hashlib.sha256(self.text.encode()).hexdigest() if self.text else ""

    @property
    def masked(self) -> str:
        """The key as OpenAI's error message shows it: its beginning and its last four characters."""
        return f"{self.text[:5]}{REDACTED}{self.tail}"


NO_KEY = GivenKey("", "")


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """Which keys are good: exactly `keys`, or, when that is None, all that begin with `sk-sandbox-`."""

    keys: frozenset[str] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, keys: Collection[str] | None) -> "KeyCheck":
        """The check for the keys that the sandbox was started with."""
        return cls(None if keys is None else frozenset(keys))

    def accepts(self, key: GivenKey) -> bool:
        """Whether a provider would serve this key."""
        return key.text in self.keys if self.keys is not None else key.text.startswith(DEFAULT_PREFIX)


def given_key(headers: Mapping[str, str], query: Mapping[str, str]) -> GivenKey:
    """The first key found in the headers, then in the query; NO_KEY when there is none."""
    for carrier in CARRIERS:
        value = headers.get(carrier, "")
        if carrier == "authorization":
            scheme, _, token = value.partition(" ")
            value = token if scheme.lower() == "bearer" else ""
        if value.strip():
            return GivenKey(value.strip(), carrier)
    if value := query.get(QUERY_CARRIER, ""):
        return GivenKey(value, "?key")
    return NO_KEY


def redact(pairs: Iterable[tuple[str, str]], secret_names: Collection[str] = CARRIERS) -> tuple[tuple[str, str], ...]:
    """The pairs with the value of every key carrier replaced."""
    return tuple((name, REDACTED if name in secret_names else value) for name, value in pairs)
