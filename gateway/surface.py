"""The surfaces: what callers may speak to the gateway, one row each.

A provider that speaks a surface natively gets the caller's own fields; for the others a surface may be translated to a
chat completion and back. Owns which is which; knows neither HTTP nor routing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway import openai_shape
from gateway.chat_reader import ChatReader
from gateway.errors import Problem
from gateway.events import Endpoint, TokenUsage
from gateway.seen import Seen
from gateway.stream_reader import Reader
from keystore.providers import Provider, Speaks

COMMENT: Final = b": keep-alive\n\n"
UsageOf = Callable[[Mapping[str, object] | None, object], TokenUsage | None]


@dataclass(frozen=True, slots=True)
class Surface:
    """One row. `path` is below a native provider's base URL."""

    endpoint: Endpoint
    speaks: Speaks
    path: str
    usage_of: UsageOf
    reader: Callable[[Seen, bool], Reader]  # of a native stream; whether the caller asked for the usage chunk
    answered: Callable[[Mapping[str, object]], bool]  # whether a plain answer is one of this surface
    broke: Callable[[Problem], bytes]  # the event that says in a stream how it broke
    keep_alive: bytes = COMMENT  # said while the provider is silent
    asks_usage: bool = False  # whether usage of a stream is to be asked for

    def native(self, provider: Provider) -> bool:
        """Whether this provider is sent the caller's own fields."""
        return self.speaks in provider.speaks


def _chat_reader(seen: Seen, keep_usage: bool) -> Reader:
    return ChatReader(seen, keep_usage=keep_usage)


def _has_choices(document: Mapping[str, object]) -> bool:
    choices = document.get("choices")
    return isinstance(choices, list) and bool(choices)


def _error_event(problem: Problem) -> bytes:
    """Both OpenAI SDKs raise on it; no end mark follows."""
    return b"data: " + problem.body() + b"\n\n"


CHAT: Final = Surface(
    Endpoint.CHAT_COMPLETIONS,
    Speaks.CHAT,
    "/chat/completions",
    usage_of=openai_shape.token_usage,
    reader=_chat_reader,
    answered=_has_choices,
    broke=_error_event,
    asks_usage=True,
)
