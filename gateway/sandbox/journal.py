"""What arrived at the sandbox and what became of it: the truth that a test compares with.

Owns the records; they hold no key, only its tail and hash. Written by the server's thread, read from any.
"""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

REMEMBERED = 10_000  # the oldest requests are forgotten beyond this, so that a long demo does not grow


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request and its fate so far."""

    number: int  # counts from 1, over the sandbox's whole life
    method: str
    path: str
    query: tuple[tuple[str, str], ...]  # the key is redacted here and in the headers
    headers: tuple[tuple[str, str], ...]  # names in lower case, in the order in which they came
    key_carrier: str  # the header that held the key, `?key`, or empty
    key_tail: str
    key_sha256: str
    wire: str = ""  # openai, anthropic, gemini; empty for an unknown path
    model: str = ""
    raw: bytes = field(default=b"", repr=False)  # the body, byte for byte
    behaviour: str = ""  # the order that was carried out
    status: int | None = None  # of the answer, once it began
    tokens_sent: int = 0
    client_left: bool = False  # before the answer was complete
    finished: bool = False
    duration_s: float | None = None

    @property
    def body(self) -> Any:
        """The body as JSON; None when it is not JSON."""
        try:
            return orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            return None

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for held, value in self.headers if held == name.lower()), None)

    def to_json(self) -> dict[str, object]:
        """The record as `GET /_sandbox/requests` shows it."""
        shown = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**shown, "raw": self.raw.decode(errors="replace"), "body": self.body}


class Journal:
    """The requests that arrived since the last `clear`, oldest first."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._changed = threading.Condition()
        self._requests: OrderedDict[int, Arrived] = OrderedDict()
        self._remembered = remembered
        self._count = 0

    def open(self, describe: Callable[[int], Arrived]) -> int:
        """Record a new request; returns its number, by which `update` finds it."""
        with self._changed:
            self._count += 1
            self._requests[self._count] = describe(self._count)
            if len(self._requests) > self._remembered:
                self._requests.popitem(last=False)
            self._changed.notify_all()
            return self._count

    def update(self, number: int, **fields: Any) -> None:
        """Change a record; nothing happens when it was cleared meanwhile."""
        with self._changed:
            if number in self._requests:
                self._requests[number] = dataclasses.replace(self._requests[number], **fields)
                self._changed.notify_all()

    def requests(self) -> tuple[Arrived, ...]:
        """The records as they are now."""
        with self._changed:
            return tuple(self._requests.values())

    def clear(self) -> None:
        """Forget all records; numbers go on."""
        with self._changed:
            self._requests.clear()

    def wait_for(self, done: Callable[[tuple[Arrived, ...]], bool], timeout_s: float) -> tuple[Arrived, ...]:
        """The records as soon as `done` holds of them; TimeoutError, quoting them, when it never does."""
        with self._changed:
            if self._changed.wait_for(lambda: done(tuple(self._requests.values())), timeout_s):
                return tuple(self._requests.values())
            seen = list(self._requests.values())
        raise TimeoutError(f"not within {timeout_s} s; the sandbox saw {seen}")
