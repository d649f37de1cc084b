"""The one door to LiteLLM: how it is imported, what it is given, and what is taken from its answers.

It is given an allow-list of parameters, the row's base URL, and HANDLE in the place of a key, which our transport under
it replaces; no retries, no callbacks, no router, no price map of its own. It is never given a caller's body as keyword
arguments. Facts about its behaviour: LIBRARIES.md section 1, and docs/adr/0002.
"""

import asyncio
import importlib
import logging
import os
import time
import warnings
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import httpx

from gateway import openai_shape
from gateway.access_tokens import AccessTokens
from gateway.attempt_costs import watch
from gateway.garbage import kept_for_good
from gateway.logs import quiet_libraries
from gateway.parameters import PARAMETERS
from gateway.scrub import scrub
from gateway.seen import Seen, parse
from gateway.streams import ForwardedStream, TranslatedStream, check_error, told_reason
from gateway.transforming import NOTES, Asked, Way, proven_ways, transformed
from gateway.translation_rules import asks_nothing
from gateway.transport import HANDLE, CurrentExchangeTransport, Exchange, Transport
from gateway.upstream import PlainReply, StreamReply, UpstreamCall, UpstreamFailed
from gateway.upstream_errors import failure, failure_of
from keystore.providers import Wire
from router.failure import Failure, FailureKind

# Read by LiteLLM at import: no price map or header list from the network, no .env file, no chatter.
SWITCHES = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",  # a table of equal pieces is no loop
}
LOG: Final = logging.getLogger(__name__)
REMEMBERED_MODELS: Final = 1_000  # whose parameters are known
# Stands where LiteLLM insists on messages while the caller's own travel untouched beside it.
PLACEHOLDER_MESSAGES = ({"role": "user", "content": "-"},)


class _NoSyncCalls(httpx.BaseTransport):
    """Nothing of ours calls LiteLLM's blocking half, so nothing of it may reach the network."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"a blocking request to {request.url.host} was refused", request=request)


def import_litellm() -> Any:
    """Import LiteLLM with its switches set first (2 to 4 seconds, about 180 MB); returns the module.

    Call it in a thread. Provider variables are expected to be scrubbed from the environment by then.
    """
    os.environ.update(SWITCHES)
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    litellm.drop_params = False
    litellm.modify_params = False
    litellm.telemetry = False
    litellm.num_retries = 0
    litellm.api_key = None
    litellm.response_cost_calculator = _no_price
    litellm.aclient_session = httpx.AsyncClient(
        transport=CurrentExchangeTransport(), follow_redirects=False, trust_env=False
    )
    litellm.client_session = httpx.Client(transport=_NoSyncCalls(), trust_env=False)
    litellm.in_memory_llm_clients_cache = _only_ours(litellm.client_session)
    litellm.module_level_aclient = litellm.in_memory_llm_clients_cache.get_cache("async_httpx_client")
    litellm.module_level_client = litellm.in_memory_llm_clients_cache.get_cache("httpx_client")
    quiet_libraries()
    # It writes to standard error what a provider sent where a number was due, and that may be a tenant's text.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    return litellm


def _no_price(**_: object) -> None:
    """Stands where LiteLLM works out the price of every answer, a fifth of the time of its call: nobody asks for it."""


def _only_ours(blocking: httpx.Client) -> Any:
    """LiteLLM's memory of HTTP clients, in which it finds ours alone: some of its providers (Cohere) take no client
    from their caller, and would send past our transport with one that they make."""
    http = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    memory = importlib.import_module("litellm.caching.llm_caching_handler").LLMClientCache
    ours = http.AsyncHTTPHandler(transport=CurrentExchangeTransport(), follow_redirects=False)
    clients = {"async_httpx_client": ours, "httpx_client": http.HTTPHandler(client=blocking)}

    class OurClients(memory):  # type: ignore[misc,valid-type]
        def get_cache(self, key: str, **more: Any) -> Any:
            found = next((client for start, client in clients.items() if key.startswith(start)), None)
            return found or super().get_cache(key, **more)

    return OurClients()


def _import_all(transforms: bool) -> tuple[Any, Mapping[str, Way]]:
    litellm = import_litellm()
    return litellm, proven_ways(litellm) if transforms else {}


class LiteLLMLane:
    """Reaches every provider that LiteLLM can translate to. Call `open` once before use. Without `transforms` all of
    them are reached by LiteLLM's own call, with which its classes are compared."""

    def __init__(
        self,
        transport: Transport,
        tokens: AccessTokens,
        *,
        answer_timeout_s: float,
        idle_timeout_s: float,
        transforms: bool = True,
    ) -> None:
        self._transport = transport
        self._transforms = transforms
        self._tokens = tokens
        self._timeout_s = answer_timeout_s
        self._idle_s = idle_timeout_s
        self._litellm: Any = None
        self._handler: Any = None
        self._omit: object = None  # the SDK's word for what is not sent
        self._ways: Mapping[str, Way] = {}
        self._supported: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Import LiteLLM in a thread; concurrent callers wait for the same import."""
        if self._litellm is None:
            self._opening = self._opening or asyncio.create_task(self._open())
            await asyncio.shield(self._opening)

    async def aclose(self) -> None:
        """Let an import that was begun come to its end: a thread cannot be stopped, and LiteLLM's first call, broken
        off, leaves a coroutine that nobody awaits."""
        if self._opening is not None:
            await asyncio.wait([self._opening])

    async def _open(self) -> None:
        began = time.monotonic()
        with kept_for_good():
            litellm, ways = await asyncio.to_thread(_import_all, self._transforms)
            self._handler = litellm.module_level_aclient
            self._omit = importlib.import_module("openai").omit
            await _warm_up(litellm)
        self._litellm, self._ways = litellm, ways
        LOG.info(
            "LiteLLM was imported in %.1f s: a request needs it, or WARDGATE_PRELOAD_LITELLM", time.monotonic() - began
        )

    async def complete(self, call: UpstreamCall) -> PlainReply:
        """One plain answer; raises UpstreamFailed."""
        async with self._tokens.ready(call) as ready:
            exchange, response = await self._send(ready, stream=False)
            if ready.provider.wire is Wire.OPENAI:
                return await _openai_reply(ready, exchange, response.completion_stream.response)
            check_error(ready, exchange)
            _note_end(ready, exchange)
            return translated_reply(ready, exchange, response)

    async def stream(self, call: UpstreamCall) -> StreamReply:
        """A stream that was opened (its status was a success); raises UpstreamFailed."""
        async with self._tokens.ready(call) as ready:
            return await self._stream(ready)

    async def _stream(self, call: UpstreamCall) -> StreamReply:
        exchange, wrapper = await self._send(call, stream=True)
        if call.provider.wire is not Wire.OPENAI:
            return TranslatedStream(call, exchange, wrapper)
        response = wrapper.completion_stream.response
        if not exchange.streams:
            await response.aread()  # what it says decides what it is: an error, or an answer that is no stream
            check_error(call, exchange)
        reader = call.request.surface.reader(Seen(), call.request.include_usage)  # `exchange.seen` is a piece ahead
        return ForwardedStream(call, exchange, reader, response.aiter_raw(), exchange.hang_up)

    async def _send(self, call: UpstreamCall, *, stream: bool) -> tuple[Exchange, Any]:
        await self.open()
        send = self._sender(call, stream=stream)
        idle_s = self._idle_s if stream else self._timeout_s
        exchange = self._transport.begin(call.credential, call.provider, idle_s=idle_s, stream=stream)
        watch(call, exchange)
        try:
            return exchange, await send(exchange)
        except Exception as error:  # noqa: BLE001 - LiteLLM raises anything; failure_of reads what was on the wire
            exchange.hang_up()
            raise UpstreamFailed(self._failure(call, exchange, error)) from None
        except BaseException:  # the caller has left: LiteLLM does not close what it had begun to read
            exchange.hang_up()
            raise

    def _sender(self, call: UpstreamCall, *, stream: bool) -> Callable[[Exchange], Awaitable[Any]]:
        """By LiteLLM's classes where they are proven for the row's prefix, else by its own call."""
        way = None if call.provider.wire is Wire.OPENAI else self._ways.get(call.provider.litellm_prefix)
        if way is None or not way.MODELS.fullmatch(call.model):
            arguments = self._arguments(call, stream=stream)
            return lambda _: self._litellm.acompletion(**arguments)
        asked = Asked(call.model, call.provider.base_url, _messages(call), _own(self._parameters(call)), stream)
        return lambda exchange: transformed(way, asked, self._transport, exchange)

    def _failure(self, call: UpstreamCall, exchange: Exchange, error: Exception) -> Failure:
        """What LiteLLM refused before it sent anything is a request that it cannot translate."""
        if exchange.sent or exchange.error is not None or isinstance(error, TimeoutError):
            return failure_of(call, exchange, error)
        reason = scrub(str(error))
        LOG.warning(
            "LiteLLM could not translate a request for %s: %s: %s", call.provider.id, type(error).__name__, reason
        )
        text = f"{call.provider.name} cannot be sent this request; ask for a provider on OpenAI's wire, or change it"
        return failure(call, FailureKind.UNSUPPORTED_PARAMETER, text)

    def _arguments(self, call: UpstreamCall, *, stream: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "api_key": HANDLE,
            "api_base": call.provider.base_url,
            "timeout": self._timeout_s,
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": False,
            "_skip_mcp_handler": True,  # else any tool makes it import its proxy
        }
        if stream:
            arguments["stream_options"] = {"include_usage": True}
        if call.provider.wire is Wire.OPENAI:
            # Always as a stream, which it hands over unread: of a plain answer it would make objects and a price first.
            not_said = {} if stream else {"stream": self._omit}
            return arguments | {"stream": True} | _openai_wire(call, not_said)
        return arguments | {"stream": stream} | self._translated(call)

    def _translated(self, call: UpstreamCall) -> dict[str, Any]:
        """For another wire, by LiteLLM's own call."""
        model = f"{call.provider.litellm_prefix}/{call.model}"
        return {"model": model, "messages": _messages(call), "client": self._handler, **self._parameters(call)}

    def _parameters(self, call: UpstreamCall) -> dict[str, Any]:
        """Named parameters, each of which LiteLLM says that it can translate. What it says is not the whole truth:
        `translation.refused_by` was asked when the candidate was chosen."""
        supported = self._supported_by(call.provider.litellm_prefix, call.model)
        parameters = {name: value for name, value in _renamed(call).items() if not asks_nothing(name, value)}
        for name in parameters:
            # `metadata` is taken by LiteLLM for itself and never sent: for a translated wire it is not supported.
            if name not in supported or name == "metadata":
                text = f"{call.provider.name} does not take `{name}`; leave it out, or ask for another provider"
                raise UpstreamFailed(failure(call, FailureKind.UNSUPPORTED_PARAMETER, text, param=name))
        return parameters

    def _supported_by(self, prefix: str, model: str) -> frozenset[str]:
        """Remembered, because asking takes longer than all the rest of a request."""
        known = self._supported.get((prefix, model))
        if known is None:
            told = self._litellm.get_supported_openai_params(model=model, custom_llm_provider=prefix)
            known = self._supported[prefix, model] = frozenset(told or ())
            if len(self._supported) > REMEMBERED_MODELS:
                self._supported.popitem(last=False)
        return known


def _messages(call: UpstreamCall) -> list[dict[str, Any]]:
    """Copies, because LiteLLM writes into them and the next attempt needs the caller's own."""
    return [without_empty_content(message) for message in _own(call.request.messages)]


def _own(value: Any) -> Any:
    """A copy of what JSON made, without its texts: these cannot be written into."""
    if isinstance(value, dict):
        return {key: _own(held) for key, held in value.items()}
    return [_own(held) for held in value] if isinstance(value, list | tuple) else value


def without_empty_content(message: dict[str, object]) -> dict[str, object]:
    """An assistant's empty text beside tool calls is no text; some SDKs send it."""
    if message.get("role") == "assistant" and message.get("tool_calls") and message.get("content") == "":
        return message | {"content": None}
    return message


def _openai_wire(call: UpstreamCall, not_said: Mapping[str, object]) -> dict[str, Any]:
    """For OpenAI's wire: the caller's own values beside LiteLLM's mapping, which would drop or rename some of them."""
    return {
        "model": f"openai/{call.model}",
        "messages": list(PLACEHOLDER_MESSAGES),
        "extra_body": {
            **_renamed(call),
            **call.request.unknown,
            **_stream_options(call),
            "messages": call.request.messages,
            **not_said,
        },
    }


def _stream_options(call: UpstreamCall) -> dict[str, Any]:
    """The caller's own options of a stream, and usage in any case."""
    own = call.request.body.get("stream_options")
    return {"stream_options": {**own, "include_usage": True}} if call.request.stream and isinstance(own, dict) else {}


def _renamed(call: UpstreamCall) -> dict[str, object]:
    """The caller's parameters under the names that the row's quirks give them; only what is on the allow-list."""
    quirks: Mapping[str, str] = call.provider.quirks
    return {quirks.get(name, name): value for name, value in call.request.parameters.items() if name in PARAMETERS}


async def _warm_up(litellm: Any) -> None:
    """Go once through all that LiteLLM does before it sends, so that the first caller does not wait for its late
    imports. Nothing is sent: the transport refuses a request outside an exchange."""
    arguments = {"messages": list(PLACEHOLDER_MESSAGES), "api_base": "http://127.0.0.1:9", "max_retries": 0}
    with suppress(Exception):
        await litellm.acompletion(model="openai/warm-up", api_key=HANDLE, num_retries=0, **arguments)


def _note_end(call: UpstreamCall, exchange: Exchange) -> None:
    """Read the end of a plain answer where its wire is not one of those that are read along."""
    note = NOTES.get(call.provider.litellm_prefix)
    document = parse(bytes(exchange.body)) if note else None
    if note and isinstance(document, dict):
        note(exchange.seen, document)


async def _openai_reply(call: UpstreamCall, exchange: Exchange, response: httpx.Response) -> PlainReply:
    try:
        await response.aread()
    except httpx.HTTPError as error:
        raise UpstreamFailed(failure_of(call, exchange, error)) from None
    finally:
        await response.aclose()
    check_error(call, exchange)
    return openai_reply(call, exchange)


def openai_reply(call: UpstreamCall, exchange: Exchange) -> PlainReply:
    """A provider's own answer on OpenAI's wire, byte for byte."""
    body = parse(bytes(exchange.body))
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list) or not body["choices"]:
        text = "the provider's answer is not one of this kind"
        raise UpstreamFailed(failure(call, FailureKind.MALFORMED, text, status=exchange.status))
    usage = openai_shape.token_usage(body.get("usage"), exchange.seen.service_tier)
    return PlainReply(bytes(exchange.body), usage, exchange.request_id)


def translated_reply(call: UpstreamCall, exchange: Exchange, response: Any) -> PlainReply:
    """LiteLLM's translation of an answer, with the provider's own finish reasons and no usage that it did not count."""
    try:
        dumped = response.model_dump()
        body = openai_shape.completion(dumped)
        choices = body["choices"]
        if not isinstance(choices, list) or not choices:
            raise ValueError("no choices")
        for choice in choices:
            seen = exchange.seen.finish.get(choice["index"])
            choice["finish_reason"] = None if seen is None else told_reason(seen, choice["finish_reason"], call)
        counted = dumped.get("usage") if exchange.seen.usage else None
        usage = openai_shape.token_usage(counted, exchange.seen.service_tier)
        if usage is None:
            body.pop("usage", None)
        return PlainReply(openai_shape.encode(body), usage, exchange.request_id)
    except (AttributeError, TypeError, ValueError) as error:
        raise UpstreamFailed(failure_of(call, exchange, error)) from error
