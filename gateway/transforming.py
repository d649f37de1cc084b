"""LiteLLM's transformation classes, driven on our transport without its call path: for the providers in WAYS.

Owns the steps that `acompletion` takes through those classes, one small class for each provider; skips what it does
beside them (logging objects, callbacks, thread hops, price and token counts). That both give the same is proved case by
case (tests/gateway/test_transforming.py) on one version of LiteLLM; on another the lane goes by `acompletion`. Must not
know tenants, keys or decisions. The reasons: docs/adr/0008.
"""

import asyncio
import importlib
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, ClassVar, Final, Protocol

import httpx

from gateway import openai_shape
from gateway.seen import Seen
from gateway.sse import Event
from gateway.transformed_stream import ChunkReader, CountingReader, GenericReader, Reader, TransformedStream
from gateway.transport import HANDLE, Exchange, Transport

PROVEN_ON: Final = "1.106.2"
REMEMBERED: Final = 1_000  # models
EVENT_STREAM: Final = "text/event-stream"
LOG: Final = logging.getLogger(__name__)
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted of a model. The containers belong to this attempt: LiteLLM writes into them."""

    model: str
    base_url: str
    messages: list[Json]
    parameters: Json  # under OpenAI's names; each is one that LiteLLM says it can translate
    stream: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """One request in the provider's words, and how its answer is read: a plain one as LiteLLM's ModelResponse, a
    stream's events one by one."""

    request: httpx.Request
    answer: Callable[[httpx.Response], Any]
    reader: Callable[[httpx.Response, Seen], Reader]


class Way(Protocol):
    """How LiteLLM drives the classes of one provider. Built in the thread that imports LiteLLM."""

    MODELS: ClassVar[re.Pattern[str]]  # for which it is proven; some older ones LiteLLM sends another way
    SAMPLE: ClassVar[bytes]  # a plain answer and an event with usage in one, to rehearse with

    def turn(self, asked: Asked) -> Turn:
        """Raises anything: what LiteLLM cannot translate."""


class _Silent:
    """Stands where the classes want LiteLLM's logging object: they tell it things, and read the parameters from it."""

    __slots__ = ("model_call_details", "optional_params")

    def __init__(self, parameters: Json) -> None:
        self.optional_params = parameters
        self.model_call_details: Json = {}

    def post_call(self, *_: object, **__: object) -> None:
        """Nothing is logged."""


class _Anthropic:
    """As litellm.llms.anthropic.chat.handler does it."""

    MODELS: ClassVar[re.Pattern[str]] = re.compile(r"claude-(?!2|instant).+")
    SAMPLE: ClassVar[bytes] = (
        b'{"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":1}},"model":"-",'
        b'"content":[{"type":"text","text":"-"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
    )

    def __init__(self, litellm: Any) -> None:
        handler = importlib.import_module("litellm.llms.anthropic.chat.handler")
        self._config = _remembering(litellm.AnthropicConfig, "_is_adaptive_thinking_model")()
        self._filtered = handler.update_request_with_filtered_beta
        self._events = handler.ModelResponseIterator
        self._names = handler.ANTHROPIC_TOOL_NAME_REVERSE_MAP_KEY
        self._library = _Library(litellm)

    def turn(self, asked: Asked) -> Turn:
        url = asked.base_url if asked.base_url.endswith("/v1/messages") else asked.base_url + "/v1/messages"
        messages, wanted = self._library.prepared(self._config, asked)
        optional = self._config.map_openai_params(wanted, {}, asked.model, drop_params=False)
        optional.pop("stream", None)
        json_mode = optional.pop("json_mode", False)
        params = _litellm_params("anthropic", url)
        given: Json = {"model": asked.model, "messages": messages, "litellm_params": params}
        options = {**optional, "is_vertex_request": False}
        headers = self._config.validate_environment(
            headers={}, api_key=HANDLE, api_base=url, optional_params=options, **given
        )
        data = self._config.transform_request(optional_params=options, headers=headers, **given)
        headers, data = self._filtered(headers=headers, request_data=data, provider="anthropic")
        if asked.stream:
            data["stream"] = True
        given |= {"optional_params": optional, "request_data": data, "json_mode": json_mode, "logging_obj": _Silent({})}

        def reader(_: httpx.Response, __: Seen) -> Reader:
            names = params.get(self._names)
            events = self._events(None, sync_stream=False, json_mode=json_mode, tool_name_reverse_map=names)
            return ChunkReader(events.chunk_parser, self._library.total)

        return Turn(_request(url, headers, data), self._library.answered(self._config, given), reader)


class _Gemini:
    """As litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini does it for Google AI Studio."""

    MODELS: ClassVar[re.Pattern[str]] = re.compile(r"gemini-.+")
    SAMPLE: ClassVar[bytes] = (
        b'{"candidates":[{"content":{"role":"model","parts":[{"text":"-"}]},"finishReason":"STOP","index":0}],'
        b'"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1,"totalTokenCount":2}}'
    )

    def __init__(self, litellm: Any) -> None:
        gemini = importlib.import_module("litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini")
        body = importlib.import_module("litellm.llms.vertex_ai.gemini.transformation")
        self._mapping = litellm.GoogleAIStudioGeminiConfig()
        self._config = litellm.VertexGeminiConfig()
        self._url = gemini.VertexLLM()._get_token_and_url
        self._body = body.transform_request_body
        self._events = gemini.ModelResponseIterator
        self._library = _Library(litellm)

    def turn(self, asked: Asked) -> Turn:
        messages, wanted = self._library.prepared(self._mapping, asked)
        optional = self._mapping.map_openai_params(wanted, {}, asked.model, drop_params=False)
        optional.pop("stream", None)
        key, url = self._url(
            model=asked.model,
            auth_header="",
            gemini_api_key=HANDLE,
            vertex_project="",
            vertex_location=None,
            vertex_credentials=None,
            stream=asked.stream,
            custom_llm_provider="gemini",
            api_base=asked.base_url,
        )
        params = _litellm_params("gemini", asked.base_url)
        given: Json = {"model": asked.model, "messages": messages, "litellm_params": params}
        given["optional_params"] = optional
        headers = self._config.validate_environment(headers={}, api_key=key, **given)
        data = self._body(custom_llm_provider="gemini", cached_content=None, **given)
        silent = _Silent(wanted)
        given |= {"request_data": data, "logging_obj": silent}

        def reader(response: httpx.Response, _: Seen) -> Reader:
            events = self._events(None, sync_stream=False, logging_obj=silent, response_headers=response.headers)
            return CountingReader(events.chunk_parser, self._library.total)

        return Turn(_request(url, headers, data), self._library.answered(self._config, given), reader)


class _Cohere:
    """As litellm.llms.custom_httpx.llm_http_handler does it for Cohere, but for the form of a stream: LiteLLM asks for
    lines of JSON and cannot read Cohere's last one. Here events are asked for, and their names are given to its parser,
    which looks for them."""

    MODELS: ClassVar[re.Pattern[str]] = re.compile(r"(?:command|c4ai)-.+")
    SAMPLE: ClassVar[bytes] = (
        b'{"message":{"content":[{"text":"-"}]},"usage":{"tokens":{"input_tokens":1,"output_tokens":1}}}'
    )

    def __init__(self, litellm: Any) -> None:
        self._mapping = litellm.CohereChatConfig()
        self._library = _Library(litellm)
        self._stream_head = importlib.import_module("litellm.types.utils").ModelResponseStream

    def turn(self, asked: Asked) -> Turn:
        config = self._library.config(asked.model, "cohere_chat")
        messages, wanted = self._library.prepared(config, asked)
        optional = self._mapping.map_openai_params(wanted, {}, asked.model, drop_params=False)
        url, params = asked.base_url, _litellm_params("cohere_chat", asked.base_url)
        given: Json = {"model": asked.model, "messages": messages, "litellm_params": params}
        given["optional_params"] = optional
        headers = config.validate_environment(headers={}, api_key=HANDLE, api_base=url, **given)
        data = config.transform_request(headers=headers, **given)
        if asked.stream:
            headers["accept"] = EVENT_STREAM
        given |= {"request_data": data, "logging_obj": _Silent(wanted)}

        def reader(_: httpx.Response, seen: Seen) -> Reader:
            events = config.get_model_response_iterator(None, sync_stream=False, json_mode=False)
            head = self._stream_head(choices=[]).model_dump()
            return GenericReader(events.chunk_parser, head, partial(note_cohere, seen))

        return Turn(_request(url, headers, data), self._library.answered(config, given), reader)


def note_cohere(seen: Seen, document: Json) -> None:
    """The end of an answer on Cohere's wire: `finish_reason` of a plain one, or of a stream's last event."""
    delta = document.get("delta")
    last = delta if document.get("type") == "message-end" and isinstance(delta, dict) else document
    reason = last.get("finish_reason")
    if isinstance(reason, str) and reason:
        seen.finish[0] = reason


class _Library:
    """What LiteLLM does for every provider before and after its classes."""

    def __init__(self, litellm: Any) -> None:
        self._utils = importlib.import_module("litellm.utils")
        mapped = inspect.signature(self._utils.get_optional_params).parameters
        self._places = {name: place for place, name in enumerate(mapped)}
        self._providers = litellm.LlmProviders
        self._empty_answer = litellm.ModelResponse
        self._usage = litellm.Usage
        self._totals = importlib.import_module(
            "litellm.litellm_core_utils.streaming_chunk_builder_utils"
        ).ChunkProcessor

    def config(self, model: str, provider: str) -> Any:
        """The class that LiteLLM chooses for this model."""
        return self._utils.ProviderConfigManager.get_provider_chat_config(model, self._providers(provider))

    def prepared(self, config: Any, asked: Asked) -> tuple[list[Json], Json]:
        """The messages as the classes want them, and the parameters that are not at their default, in the order in
        which LiteLLM goes through them: it decides of the order of tools."""
        messages = self._utils.validate_and_fix_openai_messages(messages=asked.messages)
        said = {name: value for name, value in asked.parameters.items() if value is not None}
        wanted = {name: said[name] for name in sorted(said, key=lambda name: self._places.get(name, len(self._places)))}
        if "response_format" in wanted:
            wanted["response_format"] = config.get_json_schema_from_pydantic_object(wanted["response_format"])
        wanted |= {"stream": True, "stream_options": {"include_usage": True}} if asked.stream else {"stream": False}
        return config.translate_developer_role_to_system_role(messages=messages), wanted

    def answered(self, config: Any, given: Json) -> Callable[[httpx.Response], Any]:
        """How a plain answer is read by `config`, which is given again what the request was made of."""

        def answer(response: httpx.Response) -> Any:
            empty = self._empty_answer()
            empty.usage = self._usage()
            return config.transform_response(
                raw_response=response, model_response=empty, api_key=HANDLE, encoding=None, **given
            )

        return answer

    def total(self, usages: Sequence[Any], reasoning: int | None) -> Any:
        """One Usage of all that a stream told; it has counts, so nothing is estimated."""
        chunks = [{"usage": usage} for usage in usages]
        return self._totals(chunks).calculate_usage(chunks, "", "", reasoning_tokens=reasoning)


def _remembering(config: type[Any], name: str) -> type[Any]:
    """The class with one of its static methods remembered: it looks a model's abilities up in LiteLLM's price map,
    which does not change here, and takes as long as the rest of the request."""
    known = staticmethod(lru_cache(REMEMBERED)(getattr(config, name)))
    return type(config.__name__, (config,), {name: known})


def _litellm_params(provider: str, base_url: str) -> Json:
    """What of the call's own parameters the classes read."""
    return {"custom_llm_provider": provider, "api_base": base_url, "drop_params": False}


def _request(url: str, headers: Mapping[str, str], data: Mapping[str, object]) -> httpx.Request:
    return httpx.Request("POST", url, headers={"accept": "*/*", **headers}, content=openai_shape.encode(data))


WAYS: Final[Mapping[str, Callable[[Any], Way]]] = {"anthropic": _Anthropic, "gemini": _Gemini, "cohere_chat": _Cohere}
# What gateway.seen does not read of a wire, by LiteLLM's prefix.
NOTES: Final[Mapping[str, Callable[[Seen, Json], None]]] = {"cohere_chat": note_cohere}


def proven_ways(litellm: Any, installed: str = "") -> Mapping[str, Way]:
    """The ways by LiteLLM's prefix; none, and a line in the log, when the `installed` LiteLLM (the one that can be
    imported) is not the one they were proved on."""
    installed = installed or version("litellm")
    if installed != PROVEN_ON:
        LOG.warning(
            "litellm.transforms_not_proven: LiteLLM %s is installed, its classes were proved on %s; "
            "every translated provider goes by its slower call",
            installed,
            PROVEN_ON,
        )
        return {}
    ways = {prefix: way(litellm) for prefix, way in WAYS.items()}
    for way in ways.values():
        _rehearse(way)
    return ways


def _rehearse(way: Way) -> None:
    """Go once through the classes, so that no caller waits for what they import late; what comes of it is nothing."""
    for stream in (False, True):
        messages = [{"role": "system", "content": "-"}, {"role": "user", "content": "-"}]
        turn = way.turn(Asked("rehearsal", "http://127.0.0.1:9", messages, {"max_tokens": 1}, stream))
        response = httpx.Response(200, content=way.SAMPLE)
        reader = turn.reader(response, Seen())
        reader.read(Event("", way.SAMPLE))
        reader.usage(0)
        turn.answer(response)


class NotAnswered(Exception):
    """The provider's status is no success; its body was read along."""


async def transformed(way: Way, asked: Asked, transport: Transport, exchange: Exchange) -> Any:
    """LiteLLM's ModelResponse, or the TransformedStream of an answer that began; raises anything."""
    turn = way.turn(asked)
    response = await transport.send(turn.request, exchange)
    try:
        if response.status_code >= 300:
            await response.aread()
            raise NotAnswered
        if asked.stream:
            return TransformedStream(response, turn.reader(response, exchange.seen), asked.model)
        await response.aread()
        return turn.answer(response)
    except BaseException:
        await asyncio.shield(response.aclose())
        raise
