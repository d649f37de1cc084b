"""What the stand-in says, as bytes made once, on OpenAI's and Anthropic's wire; and the orders that a request carries.

An order stands in the text of the first message, so that it survives every side: `[bench chunks=50 gap=20]` is a stream
of 50 tokens with 20 ms between them (0: all at once). Knows nothing of sockets.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import orjson

ORDER = re.compile(rb"\[bench chunks=(\d+) gap=(\d+)\]")
STREAM = re.compile(rb'"stream"\s*:\s*true')
WANTS_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
MESSAGES_PATH = b"/v1/messages"  # Anthropic's; every other path is answered as OpenAI does
HEADS = {
    "plain": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
    b"content-length: %d\r\n\r\n",
    "stream": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_bench\r\n"
    b"transfer-encoding: chunked\r\n\r\n",
}
LAST_CHUNK = b"0\r\n\r\n"
IDENTITY = {"id": "chatcmpl-bench00000000000000000001", "created": 1_763_700_000, "model": "stand-in"}
USAGE = {"prompt_tokens": 180, "completion_tokens": 50, "total_tokens": 230}
TEXT = "Your order 4711 left our warehouse this morning and will be delivered tomorrow before noon. " * 3


@dataclass(frozen=True, slots=True)
class Order:
    """What one request asks for."""

    anthropic: bool
    stream: bool
    usage: bool
    chunks: int
    gap_ms: int


@dataclass(frozen=True, slots=True)
class Script:
    """A streamed answer in three parts, each of whole chunks of HTTP: to the first token, one more token, the end."""

    opening: bytes
    token: bytes
    ending: bytes


@lru_cache(maxsize=64)  # a side sends the same body again and again
def order_of(path: bytes, body: bytes) -> Order:
    """The order of a request; `body` is the beginning of it when it is large."""
    told = ORDER.search(body)
    chunks, gap_ms = (int(told[1]), int(told[2])) if told else (50, 0)
    anthropic = path.startswith(MESSAGES_PATH)
    return Order(anthropic, bool(STREAM.search(body)), bool(WANTS_USAGE.search(body)), chunks, gap_ms)


@lru_cache(maxsize=8)
def plain(anthropic: bool) -> bytes:
    """A whole plain answer with its head."""
    body = orjson.dumps(_message() if anthropic else _completion())
    return HEADS["plain"] % len(body) + body


@lru_cache(maxsize=32)
def script(anthropic: bool, usage: bool, chunks: int) -> Script:
    """A streamed answer of `chunks` tokens."""
    if anthropic:
        return _anthropic_script(chunks)
    opening = _data(_chunk({"role": "assistant", "content": ""})) + _token()
    ending = _data(_chunk({}, finish="stop"))
    if usage:
        ending += _data(_chunk(None) | {"usage": USAGE})
    return Script(HEADS["stream"] + opening, _token(), ending + _framed(b"data: [DONE]\n\n") + LAST_CHUNK)


def _token() -> bytes:
    return _data(_chunk({"content": " delivered"}))


def _completion() -> dict[str, object]:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return IDENTITY | {"object": "chat.completion", "choices": [choice], "usage": USAGE}


def _chunk(delta: dict[str, str] | None, finish: str | None = None) -> dict[str, object]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return IDENTITY | {"object": "chat.completion.chunk", "choices": choices}


def _message() -> dict[str, object]:
    usage = {"input_tokens": 180, "output_tokens": 50}
    content = [{"type": "text", "text": TEXT}]
    head = {"id": "msg_bench", "type": "message", "role": "assistant", "model": "stand-in"}
    return head | {"content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}


def _anthropic_script(chunks: int) -> Script:
    begun = _message() | {"content": [], "stop_reason": None, "usage": {"input_tokens": 180, "output_tokens": 1}}
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    token = _event("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": " delivered"}})
    opening = _event("message_start", {"message": begun}) + _event("content_block_start", block) + token
    stop = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": chunks}}
    ending = _event("content_block_stop", {"index": 0}) + _event("message_delta", stop) + _event("message_stop", {})
    return Script(HEADS["stream"] + opening, token, ending + LAST_CHUNK)


def _event(name: str, fields: dict[str, object]) -> bytes:
    return _framed(b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps({"type": name} | fields)))


def _data(value: dict[str, object]) -> bytes:
    return _framed(b"data: %s\n\n" % orjson.dumps(value))


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
