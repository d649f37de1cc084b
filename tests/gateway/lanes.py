"""One request by LiteLLM's classes and by its own call, to one upstream: what arrived, and what the caller gets."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gateway.access_tokens import AccessTokens
from gateway.chat_request import ChatRequest, read_chat_request
from gateway.events import TokenUsage
from gateway.litellm_door import LiteLLMLane
from gateway.seen import DONE
from gateway.sse import EventReader
from gateway.transport import Transport
from gateway.upstream import UpstreamCall, UpstreamFailed
from keystore.keyring import Credential
from keystore.providers import host_of, provider_from_row
from keystore.resolve import Store, Via
from keystore.secret import Secret
from router.failure import Failure
from tests.harness import Loopback
from tests.raw_upstream import RawUpstream

KEY = "sk-sandbox-lanes"
WIRES = {"openai": "openai"}  # of the others' rows it is litellm
AUTHS = {"anthropic": "x-api-key", "gemini": "x-goog-api-key", "cohere_chat": "bearer", "openai": "bearer"}
PATHS = {"anthropic": "", "gemini": "/v1beta", "cohere_chat": "/v2/chat", "openai": "/v1"}
MODELS = {"anthropic": "claude-haiku-4-5", "gemini": "gemini-2.5-flash", "cohere_chat": "command-r-plus-08-2024"}
MODELS["openai"] = "gpt-4o-mini"
MADE_UP = re.compile(r"(chatcmpl-|call_)[0-9a-f-]{12,36}")  # ids that LiteLLM makes itself


@dataclass
class Outcome:
    """What a caller gets of one attempt: a body, or chunks; and how it ended."""

    body: Any = None
    chunks: list[Any] = field(default_factory=list)
    usage: TokenUsage | None = None
    usage_chunk: Any = None
    failure: Failure | None = None


@dataclass
class Arrived:
    """A request as the upstream saw it."""

    line: str
    headers: dict[str, str]
    body: Any


class Lanes:
    """Both lanes on one transport; open them in the running loop."""

    def __init__(self) -> None:
        self.transport = Transport(connect_timeout_s=5, max_connections=10, listed=Loopback())
        tokens = AccessTokens(self.transport)
        self.by_classes, self.by_call = (
            LiteLLMLane(self.transport, tokens, answer_timeout_s=10, idle_timeout_s=10, transforms=transforms)
            for transforms in (True, False)
        )

    @property
    def both(self) -> tuple[LiteLLMLane, LiteLLMLane]:
        """By classes, by call."""
        return self.by_classes, self.by_call

    async def __aenter__(self) -> "Lanes":
        await self.by_classes.open()
        await self.by_call.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.aclose()


def call_of(prefix: str, base: str, request: ChatRequest, model: str = "") -> UpstreamCall:
    """An attempt at the upstream of that URL, as a provider of LiteLLM's prefix."""
    url = base + PATHS[prefix]
    row = {"wire": WIRES.get(prefix, "litellm"), "base_url": url, "hosts": [host_of(base)], "auth": AUTHS[prefix]}
    provider = provider_from_row("tested", {**row, "litellm_prefix": prefix})
    hosts = frozenset({host_of(base)})
    key = Credential("tested", Secret(KEY), hosts, "TESTED_API_KEY", Via.CANONICAL, Store.CREDENTIALS, provider)
    return UpstreamCall(provider, model or MODELS[prefix], key, request)


def request_of(body: Mapping[str, object]) -> ChatRequest:
    """The checked request; one user message unless the body says otherwise."""
    hello = [{"role": "user", "content": "hello"}]
    request = read_chat_request(json.dumps({"model": "auto", "messages": hello, **body}).encode())
    return replace(request, include_usage=request.stream)


async def outcome(lane: LiteLLMLane, call: UpstreamCall) -> Outcome:
    """All that the lane gives for the call, closed at the end."""
    told = Outcome()
    try:
        if not call.request.stream:
            reply = await lane.complete(call)
            told.body, told.usage = json.loads(reply.body), reply.usage
            return told
        stream = await lane.stream(call)
        try:
            reader = EventReader()
            async for piece in stream:
                said = [json.loads(event.data) for event in reader.feed(piece) if event.data != DONE]
                told.chunks += [chunk for chunk in said if chunk.get("usage") is None]
                told.usage_chunk = next((chunk for chunk in said if chunk.get("usage") is not None), told.usage_chunk)
        finally:
            await stream.aclose()
            told.usage = stream.usage
    except UpstreamFailed as failed:
        told.failure = failed.failure
    return told


def arrived(upstream: RawUpstream) -> Arrived:
    """The last request that came."""
    head, _, body = upstream.requests[-1].partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    headers = dict(one.lower().split(": ", 1) for one in rest)
    headers.pop("content-length", None)
    return Arrived(line, headers, json.loads(body))


def comparable(value: Any) -> Any:
    """Without what is different every time: made-up ids are replaced in order, dates by 0."""
    text = json.dumps(asdict(value) if isinstance(value, Outcome | Arrived) else value)
    known: dict[str, str] = {}
    text = MADE_UP.sub(lambda found: known.setdefault(found[0], f"{found[1]}{len(known)}"), text)
    return json.loads(re.sub(r'("created": )\d+', r"\g<1>0", text))
