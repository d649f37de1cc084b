"""What a wire is to the sandbox: how it reads a question, renders an answer, and words its errors.

Each wire module has one object with these methods; gateway.sandbox.app knows no wire by name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

import orjson

from gateway.sandbox.answers import Answer, Question
from gateway.sandbox.keys import GivenKey


class Part(Enum):
    """What an event of a stream is for."""

    HEAD = auto()
    TOKEN = auto()
    END = auto()  # finish reason, usage, end mark


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, as it goes over the wire."""

    part: Part
    data: bytes
    tokens: int = 0  # output tokens in it


@dataclass(frozen=True, slots=True)
class Fault:
    """An error to be answered: its status, and what differs from the wire's usual words for that status."""

    status: int
    message: str | None = None
    code: str | None = None  # empty for no word at all, where the wire can do without
    param: str | None = None


class RequestFaultError(Exception):
    """The request is not one that this wire's provider would serve."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Path:
    """What a wire may learn from where the request was sent."""

    model: str = ""  # for the wire that names the model there
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


class Wire(Protocol):
    """One provider family's way of speaking."""

    @property
    def name(self) -> str:
        """openai, anthropic or gemini."""

    def read(self, body: Mapping[str, Any], path: Path) -> Question:
        """The question in a chat request; RequestFaultError when the provider would refuse it."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The body of a plain answer."""

    def stream(self, answer: Answer, *, include_usage: bool) -> Iterator[Event]:
        """The events of a streamed answer, one token each."""

    def error(self, fault: Fault) -> dict[str, Any]:
        """The provider's error body."""

    def key_refused(self, key: GivenKey) -> tuple[int, dict[str, Any]]:
        """Status and body for a key that is not good, or absent."""

    def stream_error(self, fault: Fault) -> bytes:
        """The event that reports an error inside a stream."""

    def headers(self, number: int) -> list[tuple[str, str]]:
        """What the provider adds to every answer: its request id, its own limits."""


def sse(payload: object, event: str | None = None) -> bytes:
    """One server-sent event with JSON data."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + orjson.dumps(payload) + b"\n\n"


def refuse(message: str, *, param: str | None = None, code: str = "", status: int = 400) -> RequestFaultError:
    """The error to raise for a request that the provider would not serve."""
    return RequestFaultError(Fault(status, message, code, param))


def texts_of(content: object) -> list[str]:
    """The texts in a message's content: a text, or a list of parts of which some have a `text`."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def objects(value: object) -> list[dict[str, Any]]:
    """The JSON objects in a list; empty for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def whole_number(body: Mapping[str, Any], *names: str) -> int | None:
    """The first of the fields that holds a whole number."""
    values = (body.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)
