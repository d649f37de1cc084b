"""Which path is what: the table of paths that the sandbox serves, each also without its version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.sandbox.anthropic_wire import AnthropicWire
from gateway.sandbox.gemini_wire import GeminiWire
from gateway.sandbox.openai_wire import OpenAIWire
from gateway.sandbox.wire import Wire


class Operation(StrEnum):
    """What is asked for."""

    CHAT = "chat"
    COUNT_TOKENS = "count tokens"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    MODEL = "model"
    GREETING = "greeting"
    UNKNOWN = "unknown"
    WRONG_METHOD = "wrong method"


@dataclass(frozen=True, slots=True)
class Route:
    """What a request is, by its method and path alone."""

    operation: Operation
    wire: Wire
    model: str = ""  # where the path names it
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    path: re.Pattern[str]
    methods: Mapping[str, Operation]
    wire: Wire


OPENAI = OpenAIWire()
GET_GREETING = {"GET": Operation.GREETING, "HEAD": Operation.GREETING}

TABLE = (
    Row(re.compile(r"(?:/v1)?/chat/completions"), {"POST": Operation.CHAT}, OPENAI),
    Row(re.compile(r"(?:/v1)?/embeddings"), {"POST": Operation.EMBEDDINGS}, OPENAI),
    Row(re.compile(r"(?:/v1)?/messages"), {"POST": Operation.CHAT}, AnthropicWire()),
    Row(re.compile(r"(?:/v1)?/messages/count_tokens"), {"POST": Operation.COUNT_TOKENS}, AnthropicWire()),
    Row(
        re.compile(r"(?:/v1|/v1beta)?/models/(?P<model>.+):(?P<verb>generateContent|streamGenerateContent)"),
        {"POST": Operation.CHAT},
        GeminiWire(),
    ),
    Row(re.compile(r"(?:/v1)?/models"), {"GET": Operation.MODELS}, OPENAI),
    Row(re.compile(r"(?:/v1)?/models/(?P<model>.+)"), {"GET": Operation.MODEL}, OPENAI),
    Row(re.compile(r"/"), GET_GREETING, OPENAI),
)


def find(method: str, path: str) -> Route:
    """The route of a request; an unknown path or method is a route too, which answers with an error."""
    for row in TABLE:
        if found := row.path.fullmatch(path):
            named = found.groupdict()
            operation = row.methods.get(method, Operation.WRONG_METHOD)
            return Route(operation, row.wire, named.get("model", ""), named.get("verb") == "streamGenerateContent")
    return Route(Operation.UNKNOWN, OPENAI)
