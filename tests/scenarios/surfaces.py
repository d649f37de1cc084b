"""What the surface tests share: a gateway over one raw upstream for each provider, and answers of each native wire."""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.harness import RunningGateway
from tests.raw_upstream import RawUpstream, raw_upstream

# provider -> the path of its base URL, its key family
PROVIDERS = {
    "openai": ("/v1", "OPENAI_API_KEY"),
    "groq": ("/v1", "GROQ_API_KEY"),
    "deepseek": ("/v1", "DEEPSEEK_API_KEY"),
    "minimax": ("/v1", "MINIMAX_API_KEY"),
    "anthropic": ("", "ANTHROPIC_API_KEY"),
}
OPENAI, GROQ, DEEPSEEK = "openai/gpt-5-mini", "groq/openai/gpt-oss-20b", "deepseek/deepseek-v4-flash"
MINIMAX, CLAUDE, EMBEDDING = "minimax/MiniMax-M2", "anthropic/claude-haiku-4-5", "openai/text-embedding-3-small"


@dataclass
class Sent:
    """One request as a provider received it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.headers}

    def json(self) -> dict[str, object]:
        body: dict[str, object] = json.loads(self.body)
        return body


@dataclass
class Stage:
    """A gateway and the upstreams behind it, by provider id."""

    gateway: RunningGateway
    at: Mapping[str, RawUpstream]
    client: httpx.Client

    def clear(self) -> None:
        for upstream in self.at.values():
            upstream.requests.clear()
            upstream.plain('{"error": {"message": "nothing is scripted"}}', "500 Internal Server Error")

    def token(self, *providers: str, plan: str = "team") -> str:
        """A new tenant's, with a key of each of these providers: what one test makes ill harms no other."""
        names = {PROVIDERS[one][1]: f"Key-{one}.0123456789" for one in providers or PROVIDERS}
        return self.gateway.tenant(f"t-{uuid.uuid4().hex[:12]}", plan, names)

    def sent(self, provider: str) -> Sent:
        """The one request that this provider got."""
        (raw,) = self.at[provider].requests
        head, _, body = raw.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        pairs = (each.partition(":") for each in rest)
        return Sent(line, [(name.lower(), value.strip()) for name, _, value in pairs], body)

    def asked(self) -> list[str]:
        """The providers that were asked, each as often as it was."""
        return [name for name, upstream in self.at.items() for _ in upstream.requests]

    def post(
        self, path: str, token: str, body: object, headers: Mapping[str, str] | None = None, query: str = ""
    ) -> httpx.Response:
        own = {"content-type": "application/json", "authorization": f"Bearer {token}"} | dict(headers or {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(f"{self.gateway.url}{path}{query}", content=content, headers=own)


@contextmanager
def stage(folder: Path, rows: str = "", tables: str = "") -> Iterator[Stage]:
    """A running one; `rows` goes into every provider's table, `tables` behind them."""
    with ExitStack() as stack:
        at = {name: stack.enter_context(raw_upstream()) for name in PROVIDERS}
        config = ""
        for name, (path, _) in PROVIDERS.items():
            host = at[name].url.removeprefix("http://")
            config += f'[providers.{name}]\nbase_url = "{at[name].url}{path}"\nhosts = ["{host}"]\n{rows}\n'
        gateway = stack.enter_context(RunningGateway(folder, config + tables))
        yield Stage(gateway, at, stack.enter_context(quick_client()))


def quick_client() -> httpx.Client:
    """A client that keeps its connections and says nothing of itself."""
    client = httpx.Client(timeout=60, verify=False)
    client.headers.clear()
    return client


class Rotation:
    """Stages one after the other, a new one after every few tests: what earlier tests made ill is well, and the retry
    budget is whole."""

    def __init__(self, tmp: pytest.TempPathFactory, every: int = 4) -> None:
        self._tmp = tmp
        self._every = every
        self._used = 0
        self._open = ExitStack()
        self._stage: Stage | None = None

    def next(self) -> Stage:
        if self._stage is None or self._used == self._every:
            self.close()
            self._used = 0
            self._stage = self._open.enter_context(stage(self._tmp.mktemp("gw")))
        self._used += 1
        self._stage.clear()
        return self._stage

    def close(self) -> None:
        self._open.close()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def answer_of(upstream: RawUpstream) -> bytes:
    """The body that an upstream answers with."""
    return upstream.answer.partition(b"\r\n\r\n")[2]


def stream(upstream: RawUpstream, content: bytes, head: str = "content-type: text/event-stream") -> None:
    """Answer with these bytes as a stream, ended by closing the connection."""
    upstream.answer = f"HTTP/1.1 200 OK\r\n{head}\r\nconnection: close\r\n\r\n".encode() + content


def named(*events: Mapping[str, object]) -> bytes:
    """Events with an `event:` line each, as Anthropic and the Responses API write them."""
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


def chunks(*datas: object, done: bool = True) -> bytes:
    """Chat completion chunks, and the end mark."""
    said = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in datas)
    return said + (b"data: [DONE]\n\n" if done else b"")


# --- answers of each wire, oddly spaced on purpose -------------------------------------------------------------------

CHAT_PLAIN = (
    b'{ "id":"chatcmpl-9",  "object":"chat.completion","created":5,"model":"exact","x_own":{"a": 1.50},\n'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hi \\u00e9"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}'
)
RESPONSE_PLAIN = (
    b'{ "id":"resp_9",  "object":"response","created_at":5,"status":"completed","model":"exact","x_own":{"a": 1.50},\n'
    b'"output":[{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":'
    b'"output_text","text":"Hi \\u00e9","annotations":[]}]}],"usage":{"input_tokens":11,"output_tokens":7,'
    b'"total_tokens":18,"input_tokens_details":{"cached_tokens":4}}}'
)
MESSAGE_PLAIN = (
    b'{ "id":"msg_9",  "type":"message","role":"assistant","model":"exact","x_own":{"a": 1.50},\n'
    b'"content":[{"type":"text","text":"Hi \\u00e9"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":7,"cache_read_input_tokens":4,"output_tokens":7}}'
)
EMBEDDINGS_PLAIN = (
    b'{ "object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAEA="}],  "model":"exact",'
    b'"usage":{"prompt_tokens":11,"total_tokens":11}}'
)
COMPLETION_PLAIN = (
    b'{ "id":"cmpl-9",  "object":"text_completion","created":5,"model":"exact","choices":[{"index":0,"text":"Hi",'
    b'"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}'
)
_HELD = {"id": "resp_9", "object": "response", "model": "exact", "output": []}
RESPONSE_BEGUN = (
    {"type": "response.created", "sequence_number": 0, "response": {**_HELD, "status": "in_progress"}},
    {"type": "response.in_progress", "sequence_number": 1, "response": {**_HELD, "status": "in_progress"}},
)
RESPONSE_DELTA = {"type": "response.output_text.delta", "sequence_number": 2, "delta": "Hi", "output_index": 0}
RESPONSE_ENDED = {
    "type": "response.completed",
    "sequence_number": 3,
    "response": {
        **_HELD,
        "status": "completed",
        "usage": {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18},
    },
}
MESSAGE_BEGUN = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_9",
            "type": "message",
            "role": "assistant",
            "model": "exact",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 11, "output_tokens": 1},
        },
    },
    {"type": "ping"},
)
MESSAGE_DELTA = (
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
)
MESSAGE_ENDED = (
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
)
_CHUNK = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 5, "model": "exact"}
CHUNK = _CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]}
CHUNK_END = _CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
CHUNK_USAGE = _CHUNK | {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}}
TEXT_CHUNK = {"id": "cmpl-9", "object": "text_completion", "created": 5, "model": "exact"} | {
    "choices": [{"index": 0, "text": "Hi", "finish_reason": None, "logprobs": None}]
}
TEXT_END = TEXT_CHUNK | {"choices": [{"index": 0, "text": "", "finish_reason": "stop", "logprobs": None}]}
TEXT_USAGE = TEXT_CHUNK | {"choices": [], "usage": CHUNK_USAGE["usage"]}
