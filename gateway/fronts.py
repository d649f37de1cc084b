"""From a body on any surface to one request, and from a chat completion back to that surface. One row each.

Owns how each surface is read, said as chat, and answered. No I/O.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gateway.asgi import Scope
from gateway.attempts import OpenStream
from gateway.chat_request import ChatRequest, Headers, check_name, checked, flag, model_names
from gateway.errors import ApiError, Problem, bad_request
from gateway.events import TokenUsage
from gateway.json_body import parse_object
from gateway.seen import DONE, parse
from gateway.sse import EventReader
from gateway.surface import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES, Surface
from gateway.surfaces import (
    completions,
    messages_answer,
    messages_events,
    messages_native,
    messages_request,
    responses_answer,
    responses_events,
    responses_request,
)
from gateway.surfaces.own_fields import own_error
from gateway.surfaces.translation import Translation
from gateway.upstream import StreamReply

Object = Mapping[str, object]


class Events(Protocol):
    """A stream of chat chunks, said as another surface's events."""

    def chunk(self, chunk: Object) -> bytes: ...

    def end(self, usage: Object | None) -> bytes: ...

    def broke(self, problem: Problem) -> bytes: ...


class Answer(Protocol):
    def __call__(self, completion: Object, body: Object, *, answer_id: str, created: int) -> Object: ...


class MakeEvents(Protocol):
    def __call__(self, body: Object, *, answer_id: str, created: int, model: str) -> Events: ...


@dataclass(frozen=True, slots=True)
class Front:
    """One row: how a surface's body is read, and how a chat completion is said on it (None: it is one, or never has
    to be)."""

    surface: Surface
    read: Callable[[bytes, Scope], ChatRequest]
    prefix: str = ""  # of the ids that are minted for translated answers
    answer: Answer | None = None
    events: MakeEvents | None = None


def _read_chat(raw: bytes, _: Scope) -> ChatRequest:
    body = parse_object(raw)
    if responses_request.looks_like_responses(body):
        _check_names(body)
        said = responses_request.mixed_to_chat(body)
        return replace(checked(said.body, None), asked=body, lacking=said.lacking)
    return checked(body, raw)


def _translated(
    surface: Surface, to_chat: Callable[[Object], Translation], raw: bytes, headers: Headers
) -> ChatRequest:
    body = _native_fields(raw)
    said = to_chat(body)
    try:
        request = checked(said.body, raw)
    except ApiError as error:
        raise own_error(error, surface.endpoint, body) from None
    usage = request.stream  # it is said at the end of the other surface's stream
    return replace(
        request, surface=surface, asked=body, lacking=said.lacking, headers=tuple(headers), include_usage=usage
    )


def _native_fields(raw: bytes) -> dict[str, object]:
    """The body of a surface whose fields travel as they are to who speaks it."""
    body = parse_object(raw)
    _check_names(body)
    return body


def _check_names(body: Object) -> None:
    for name in body:
        check_name(name)


def _read_responses(raw: bytes, _: Scope) -> ChatRequest:
    request = _translated(RESPONSES, responses_request.to_chat, raw, ())
    if request.asked.get("background") is True and not request.stream:
        message = "`background` asks for an answer to be fetched later, and this gateway fetches none; add `stream`."
        raise bad_request(message, param="background", code="unsupported_parameter")
    return request


def _read_messages(raw: bytes, scope: Scope) -> ChatRequest:
    return _of_anthropic(MESSAGES, messages_request.to_chat, raw, scope)


def _read_count(raw: bytes, scope: Scope) -> ChatRequest:
    return _of_anthropic(COUNT_TOKENS, _counted, raw, scope)


def _counted(body: Object) -> Translation:
    return Translation(dict(messages_request.count_body(body)))


def _of_anthropic(surface: Surface, to_chat: Callable[[Object], Translation], raw: bytes, scope: Scope) -> ChatRequest:
    """With what travels natively beside the body: two headers, and the one query that the SDKs send."""
    request = _translated(surface, to_chat, raw, messages_native.native_headers(scope["headers"]))
    return replace(request, query=b"?beta=true" if scope.get("query_string") == b"beta=true" else b"")


def _read_completions(raw: bytes, _: Scope) -> ChatRequest:
    request = _plain(COMPLETIONS, raw, "prompt", may_be_null=True)
    said = completions.to_chat(request.asked)
    messages = said.body.pop("messages")
    assert isinstance(messages, list)  # noqa: S101 - to_chat made it
    parameters = {**said.body, **request.parameters}
    return replace(request, messages=messages, parameters=parameters, lacking=said.lacking)


def _read_embeddings(raw: bytes, _: Scope) -> ChatRequest:
    request = _plain(EMBEDDINGS, raw, "input")
    if request.stream:
        raise bad_request("`stream` must not be true: embeddings come at once.", param="stream")
    return request


def _plain(surface: Surface, raw: bytes, field: str, *, may_be_null: bool = False) -> ChatRequest:
    """A body of which little is looked at: it is for a provider of the surface to judge. What it asks is estimated from
    its text."""
    body = _native_fields(raw)
    if field not in body or (body[field] is None and not may_be_null):
        message = f"`{field}` is missing; this path needs it."
        raise bad_request(message, param=field)
    first, *others = model_names(body)
    text = {name: value for name, value in body.items() if name in ("max_tokens", "n", "service_tier", "stream")}
    answers = _answers(body, body[field], "n")
    paid = max(answers, _answers(body, body[field], "best_of"))  # of these, `n` are shown
    needs = {**text, "n": paid, "messages": [{"role": "user", "content": _text(body[field])}]}
    options = body.get("stream_options")
    wants = isinstance(options, dict) and options.get("include_usage") is True
    return ChatRequest(
        model=first,
        models=tuple(others),
        messages=[],
        parameters={"n": answers},
        stream=flag(body, "stream"),
        include_usage=wants,
        body={**needs, **{name: body[name] for name in ("provider", "wardgate", "models") if name in body}},
        surface=surface,
        raw=raw,
        asked=body,
    )


def _answers(body: Object, asked: object, field: str) -> int:
    """How many answers are to come: as `field` says, for each text or list of tokens."""
    wanted = body.get(field)
    texts = len(asked) if isinstance(asked, list) and asked and not isinstance(asked[0], int) else 1
    return texts * (wanted if isinstance(wanted, int) and wanted > 0 else 1)


def _text(value: object) -> str:
    """About as much text as the tokens or texts of a prompt."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join("abcd" if isinstance(one, int) else _text(one) for one in value)
    return ""


CHAT_FRONT: Final = Front(CHAT, _read_chat)
COMPLETIONS_FRONT: Final = Front(
    COMPLETIONS, _read_completions, "cmpl-", answer=completions.answer, events=completions.Events
)
EMBEDDINGS_FRONT: Final = Front(EMBEDDINGS, _read_embeddings)
RESPONSES_FRONT: Final = Front(
    RESPONSES, _read_responses, "resp_", answer=responses_answer.answer, events=responses_events.Events
)
MESSAGES_FRONT: Final = Front(
    MESSAGES, _read_messages, "msg_", answer=messages_answer.answer, events=messages_events.Events
)
COUNT_FRONT: Final = Front(COUNT_TOKENS, _read_count)


class Retold:
    """A stream of chat chunks that is said as another surface's events."""

    def __init__(self, stream: OpenStream, events: Events) -> None:
        self._stream = stream
        self._events = events
        self._reader = EventReader()
        self._usage: Object | None = None

    @property
    def usage(self) -> TokenUsage | None:
        return self._stream.reply.usage

    @property
    def produced(self) -> int:
        return self._stream.reply.produced

    @property
    def reasoned(self) -> bool:
        return self._stream.reply.reasoned

    @property
    def request_id(self) -> str | None:
        return self._stream.reply.request_id

    def broke(self, problem: Problem) -> bytes:
        return self._events.broke(problem)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream.rest:
            if said := self.said(piece):
                yield said
        yield self._events.end(self._usage)

    def said(self, piece: bytes) -> bytes:
        """The events for a piece of chat's stream."""
        return b"".join(self._said(event.data) for event in self._reader.feed(piece) if event.data.strip() != DONE)

    def _said(self, data: bytes) -> bytes:
        chunk = parse(data)
        if not isinstance(chunk, dict):
            return b""
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        return self._events.chunk(chunk)

    async def aclose(self) -> None:
        await self._stream.reply.aclose()


def retold(stream: OpenStream, events: Events) -> OpenStream:
    """The begun stream as another surface's."""
    reply: StreamReply = (told := Retold(stream, events))
    return OpenStream(told.said(stream.first), aiter(reply), reply)
