"""The one door to LiteLLM: how it is imported, what it is given, and what is taken from its answers.

It is given an allow-list of parameters, the row's base URL, and HANDLE in the place of a key, which our transport under
it replaces; no retries, no callbacks, no router, no price map of its own. It is never given a caller's body as keyword
arguments. Facts about its behaviour: LIBRARIES.md section 1, and docs/adr/0002.
"""

import asyncio
import copy
import importlib
import os
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any

import httpx

from gateway import openai_shape
from gateway.chat_request import PARAMETERS
from gateway.events import TokenUsage
from gateway.logs import quiet_libraries
from gateway.transport import HANDLE, CurrentExchangeTransport, Exchange, Transport
from gateway.upstream import PlainReply, UpstreamCall, UpstreamFailed
from gateway.upstream_errors import failure, failure_of
from keystore.providers import Wire
from router.failure import FailureKind

# Read by LiteLLM at import: no price map or header list from the network, no .env file, no chatter.
SWITCHES = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
}
# Stands where LiteLLM insists on messages while the caller's own travel untouched beside it.
PLACEHOLDER_MESSAGES = ({"role": "user", "content": "-"},)


class _NoSyncCalls(httpx.BaseTransport):
    """Nothing of ours calls LiteLLM's blocking half, so nothing of it may reach the network."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"a blocking request to {request.url.host} was refused", request=request)


def import_litellm(environ: MutableMapping[str, str] | None = None) -> Any:
    """Import LiteLLM with its switches set first (2 to 4 seconds, about 180 MB); returns the module.

    Call it in a thread. Provider variables are expected to be scrubbed from the environment by then.
    """
    (os.environ if environ is None else environ).update(SWITCHES)
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    litellm.drop_params = False
    litellm.modify_params = False
    litellm.telemetry = False
    litellm.num_retries = 0
    litellm.api_key = None
    litellm.aclient_session = httpx.AsyncClient(
        transport=CurrentExchangeTransport(), follow_redirects=False, trust_env=False
    )
    litellm.client_session = httpx.Client(transport=_NoSyncCalls(), trust_env=False)
    quiet_libraries()
    return litellm


class LiteLLMLane:
    """Reaches every provider that LiteLLM can translate to. Call `open` once before use."""

    def __init__(self, transport: Transport, *, answer_timeout_s: float) -> None:
        self._transport = transport
        self._timeout_s = answer_timeout_s
        self._litellm: Any = None
        self._handler: Any = None
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Import LiteLLM in a thread; concurrent callers wait for the same import."""
        if self._litellm is None:
            self._opening = self._opening or asyncio.create_task(self._open())
            await asyncio.shield(self._opening)

    async def _open(self) -> None:
        litellm = await asyncio.to_thread(import_litellm)
        http = importlib.import_module("litellm.llms.custom_httpx.http_handler")
        self._handler = http.AsyncHTTPHandler(transport=CurrentExchangeTransport(), follow_redirects=False)
        self._litellm = litellm

    async def complete(self, call: UpstreamCall) -> PlainReply:
        """One plain answer; raises UpstreamFailed."""
        exchange, response = await self._send(call, stream=False)
        try:
            dumped = response.model_dump()
            body = openai_shape.completion(dumped)
        except (AttributeError, TypeError, ValueError) as error:
            raise UpstreamFailed(failure_of(call, exchange, error)) from error
        if not body.get("choices"):
            text = "the provider's answer holds no choice"
            raise UpstreamFailed(failure(call, FailureKind.MALFORMED, text, status=exchange.status))
        if not exchange.finished:
            openai_shape.without_finish(body)  # LiteLLM invents a reason where the provider gave none
        usage = openai_shape.token_usage(dumped.get("usage")) if exchange.usage_seen else None
        if usage is None:
            body.pop("usage", None)  # LiteLLM invents counts where the provider gave none
        return PlainReply(body, usage)

    async def stream(self, call: UpstreamCall) -> "LiteLLMStream":
        """A stream whose answer has begun (its status was a success); raises UpstreamFailed."""
        exchange, wrapper = await self._send(call, stream=True)
        return LiteLLMStream(call, exchange, wrapper)

    async def _send(self, call: UpstreamCall, *, stream: bool) -> tuple[Exchange, Any]:
        await self.open()
        arguments = self._arguments(call, stream=stream)
        exchange = self._transport.begin(call.credential, frozenset(call.provider.hosts))
        try:
            return exchange, await self._litellm.acompletion(**arguments)
        except Exception as error:  # noqa: BLE001 - LiteLLM raises anything; failure_of reads what was on the wire
            raise UpstreamFailed(self._failure(call, exchange, error)) from None

    def _failure(self, call: UpstreamCall, exchange: Exchange, error: Exception) -> Any:
        if not exchange.sent and isinstance(error, self._litellm.BadRequestError):
            message = f"{call.provider.name} cannot take this request: {error.message}"
            return failure(call, FailureKind.UNSUPPORTED_PARAMETER, message)
        return failure_of(call, exchange, error)

    def _arguments(self, call: UpstreamCall, *, stream: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "api_key": HANDLE,
            "api_base": call.provider.base_url,
            "timeout": self._timeout_s,
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": False,
            "_skip_mcp_handler": True,  # else any tool makes it import its proxy
            "stream": stream,
        }
        if stream:
            arguments["stream_options"] = {"include_usage": True}
        if call.provider.wire is Wire.OPENAI:
            return arguments | _openai_wire(call)
        return arguments | self._translated(call)

    def _translated(self, call: UpstreamCall) -> dict[str, Any]:
        """For another wire: named parameters, each of which LiteLLM says that it can translate."""
        prefix = call.provider.litellm_prefix
        supported = self._litellm.get_supported_openai_params(model=call.model, custom_llm_provider=prefix) or []
        parameters = _renamed(call)
        for name in parameters:
            # `metadata` is taken by LiteLLM for itself and never sent: for a translated wire it is not supported.
            if name not in supported or name == "metadata":
                text = f"{call.provider.name} does not take `{name}`"
                raise UpstreamFailed(failure(call, FailureKind.UNSUPPORTED_PARAMETER, text))
        return {
            "model": f"{prefix}/{call.model}",
            "messages": copy.deepcopy(call.request.messages),
            "client": self._handler,
            **parameters,
        }


def _openai_wire(call: UpstreamCall) -> dict[str, Any]:
    """For OpenAI's wire: the caller's own values beside LiteLLM's mapping, which would drop or rename some of them."""
    return {
        "model": f"openai/{call.model}",
        "messages": list(PLACEHOLDER_MESSAGES),
        "extra_body": {**_renamed(call), "messages": call.request.messages},
    }


def _renamed(call: UpstreamCall) -> dict[str, object]:
    """The caller's parameters under the names that the row's quirks give them; only what is on the allow-list."""
    quirks: Mapping[str, str] = call.provider.quirks
    return {quirks.get(name, name): value for name, value in call.request.parameters.items() if name in PARAMETERS}


class LiteLLMStream:
    """LiteLLM's stream, watched: what it invents at the end of a broken one does not pass."""

    def __init__(self, call: UpstreamCall, exchange: Exchange, wrapper: Any) -> None:
        self._call = call
        self._exchange = exchange
        self._wrapper = wrapper
        self._closed = False
        self.usage: TokenUsage | None = None
        self.usage_chunk: Mapping[str, object] | None = None

    async def __aiter__(self) -> AsyncIterator[dict[str, object]]:
        iterator = self._wrapper.__aiter__()
        while True:
            try:
                item = await anext(iterator)
                dumped: dict[str, object] = item.model_dump()
            except StopAsyncIteration:
                break
            except Exception as error:  # noqa: BLE001 - LiteLLM raises anything; failure_of reads what was on the wire
                raise UpstreamFailed(self._broken(error)) from None
            self._note_usage(dumped)
            if not self._exchange.finished and _finishes(dumped):
                break  # an ending that the provider never sent
            if _says_something(dumped):
                yield openai_shape.chunk(dumped, with_usage=False)
        if not self._exchange.finished:
            text = "the provider's stream ended without its end"
            raise UpstreamFailed(failure(self._call, FailureKind.TRUNCATED, text, status=self._exchange.status))

    async def aclose(self) -> None:
        """Close the upstream, also while the task is being cancelled."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._wrapper.aclose())

    def _broken(self, error: Exception) -> Any:
        if self._exchange.error is None and (self._exchange.status or 0) < 300:
            text = "the provider broke off its stream with an error"
            return failure(self._call, FailureKind.TRUNCATED, text, status=self._exchange.status)
        return failure_of(self._call, self._exchange, error)

    def _note_usage(self, dumped: Mapping[str, object]) -> None:
        usage = dumped.get("usage")
        if usage is not None and self._exchange.usage_seen:
            self.usage = openai_shape.token_usage(usage)
            head = openai_shape.chunk({**dumped, "choices": []}, with_usage=True)
            self.usage_chunk = head | {"usage": openai_shape.usage_object(usage)}


def _finishes(dumped: Mapping[str, object]) -> bool:
    choices = dumped.get("choices")
    return isinstance(choices, list) and any(choice.get("finish_reason") for choice in choices)


def _says_something(dumped: Mapping[str, object]) -> bool:
    """False for a chunk that only carries usage: no choice with a delta or a finish reason."""
    choices = dumped.get("choices")
    if not isinstance(choices, list) or not choices:
        return False
    if dumped.get("usage") is None:
        return True
    return _finishes(dumped) or any(
        any(value is not None for value in (choice.get("delta") or {}).values()) for choice in choices
    )
