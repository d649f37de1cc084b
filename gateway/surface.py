"""The surfaces: what callers may speak to the gateway, one row each.

A provider that speaks a surface natively gets the caller's own fields; for the others some surfaces are said as a chat
completion, and the answer is said back. Owns which is which; knows neither HTTP nor routing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway import openai_shape
from gateway.chat_reader import ChatReader
from gateway.events import Endpoint, TokenUsage
from gateway.native_readers import MessagesStreamReader, ResponsesStreamReader
from gateway.refusals import Refused
from gateway.seen import Seen
from gateway.stream_reader import StreamReader
from gateway.surfaces import messages_answer, messages_events, messages_native, responses_answer
from keystore.providers import Forwarding, Provider, Speaks

Object = Mapping[str, object]
UsageOf = Callable[[Object | None, object], TokenUsage | None]
COMMENT: Final = b": keep-alive\n\n"


def _nothing(_: Object) -> Refused | None:
    return None


@dataclass(frozen=True, slots=True)
class Surface:
    """One row. `path` is below a native provider's base URL, `modes` are those of models that may answer."""

    endpoint: Endpoint
    speaks: Speaks
    path: str
    modes: tuple[str, ...]
    usage_of: UsageOf
    answered: Callable[[Object], bool]  # whether a plain answer is one of this surface
    reader: Callable[[Seen, bool], StreamReader]  # of a native stream; whether the caller wants the usage chunk
    optional: bool = False  # a provider may serve the model and not this surface: its 404 says nothing of the model
    by_chat: bool = False  # it can be said as a chat completion
    stays_native: bool = False  # also where the row forces LiteLLM, which would have to say it as a chat completion
    asks_usage: bool = False  # whether usage of a stream is to be asked for
    keep_alive: bytes = COMMENT  # said while the provider is silent
    unfit: Callable[[Object], Refused | None] = _nothing  # what no native provider takes of a body

    def native(self, provider: Provider) -> bool:
        """Whether this provider is sent the caller's own fields."""
        return self.speaks in provider.speaks and (
            provider.forwarding is Forwarding.AUTO or not self.by_chat or self.stays_native
        )


def _chat_reader(seen: Seen, keep_usage: bool) -> StreamReader:
    return ChatReader(seen, keep_usage=keep_usage)


def _has_choices(document: Object) -> bool:
    choices = document.get("choices")
    return isinstance(choices, list) and bool(choices)


def _counted(usage_of: Callable[[Object, object], TokenUsage | None]) -> UsageOf:
    return lambda usage, tier: None if usage is None else usage_of(usage, tier)


CHAT: Final = Surface(
    Endpoint.CHAT_COMPLETIONS,
    Speaks.CHAT,
    "/chat/completions",
    modes=("chat",),
    usage_of=openai_shape.token_usage,
    answered=_has_choices,
    reader=_chat_reader,
    by_chat=True,
    asks_usage=True,
)
COMPLETIONS: Final = Surface(
    Endpoint.COMPLETIONS,
    Speaks.COMPLETIONS,
    "/completions",
    modes=("completion", "chat"),
    usage_of=openai_shape.token_usage,
    answered=_has_choices,
    optional=True,
    reader=_chat_reader,
    by_chat=True,
    stays_native=True,
    asks_usage=True,
)
EMBEDDINGS: Final = Surface(
    Endpoint.EMBEDDINGS,
    Speaks.EMBEDDINGS,
    "/embeddings",
    modes=("embedding",),
    usage_of=openai_shape.embedding_usage,
    answered=lambda document: isinstance(document.get("data"), list),
    reader=_chat_reader,
)
RESPONSES: Final = Surface(
    Endpoint.RESPONSES,
    Speaks.RESPONSES,
    "/responses",
    modes=("chat", "responses"),
    usage_of=_counted(responses_answer.usage_of),
    answered=lambda document: document.get("object") == "response",
    reader=lambda seen, _: ResponsesStreamReader(seen),
    by_chat=True,
)
MESSAGES: Final = Surface(
    Endpoint.MESSAGES,
    Speaks.MESSAGES,
    "/v1/messages",
    modes=("chat",),
    usage_of=_counted(messages_answer.usage_of),
    answered=lambda document: document.get("type") == "message",
    reader=lambda seen, _: MessagesStreamReader(seen),
    by_chat=True,
    keep_alive=messages_events.KEEP_ALIVE,
    unfit=messages_native.unsigned_thought,
)
COUNT_TOKENS: Final = Surface(
    Endpoint.COUNT_TOKENS,
    Speaks.MESSAGES,
    "/v1/messages/count_tokens",
    modes=("chat",),
    usage_of=lambda usage, tier: None,
    answered=lambda document: isinstance(document.get("input_tokens"), int),
    optional=True,
    reader=lambda seen, _: MessagesStreamReader(seen),
    by_chat=True,
    unfit=messages_native.unsigned_thought,
)
