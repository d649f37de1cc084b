"""`python -m tests.benchmarks.litellm_lane`: the LiteLLM lane against a bare loop of `litellm.acompletion`.

One process, one upstream (a process of its own that answers with ready bytes), rounds in turn: the bare loop as a user
would write it, with LiteLLM's own HTTP client; then the lane, with our transport, our reading along and our shaping.
No test: nothing here fails for being slow.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

from gateway.access_tokens import AccessTokens
from gateway.chat_request import read_chat_request
from gateway.litellm_door import LiteLLMLane, import_litellm
from gateway.transport import Transport
from gateway.upstream import UpstreamCall
from keystore.keyring import Credential
from keystore.providers import host_of, provider_from_row
from keystore.resolve import Store, Via
from keystore.secret import Secret
from tests.harness import Loopback

# What gateway.litellm_door sets in LiteLLM; the bare loop has what stands there otherwise.
OURS: Final = ("aclient_session", "in_memory_llm_clients_cache", "module_level_aclient", "response_cost_calculator")
KEY: Final = "sk-bench-litellm-lane"
PIECES: Final = 50
IN_FLIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Side:
    """A provider: how LiteLLM names it, how its row stands, and the JSON that its upstream answers with."""

    prefix: str
    model: str
    path: str  # of the base URL
    asked: str  # where requests arrive
    wire: str
    auth: str
    plain: Mapping[str, object]
    events: tuple[Mapping[str, object], ...]


def _openai(choice: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def _gemini(text: str, count: int, **more: object) -> dict[str, object]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}
    usage = {"promptTokenCount": 9, "candidatesTokenCount": count, "totalTokenCount": 9 + count}
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r1", "usageMetadata": usage}


def _anthropic(kind: str, **more: object) -> dict[str, object]:
    return {"type": kind, **more}


def _message(content: list[object], stop: str | None, output_tokens: int) -> dict[str, object]:
    usage = {"input_tokens": 9, "output_tokens": output_tokens}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return {**head, "content": content, "stop_reason": stop, "usage": usage}


def _cohere(kind: str, **delta: object) -> dict[str, object]:
    return {"type": kind, "index": 0, "delta": delta}


WORDS: Final = [f" word{place}" for place in range(PIECES)]
TEXT: Final = "".join(WORDS)
COHERE_USAGE: Final = {"tokens": {"input_tokens": 9, "output_tokens": PIECES}}
SIDES: Final = (
    Side(
        "openai",
        "gpt-4o-mini",
        "/v1",
        "/v1/chat",
        "openai",
        "bearer",
        {
            **_openai({"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}),
            "object": "chat.completion",
            "usage": {"prompt_tokens": 9, "completion_tokens": PIECES, "total_tokens": 9 + PIECES},
        },
        (
            *(_openai({"index": 0, "delta": {"content": word}, "finish_reason": None}) for word in WORDS),
            _openai({"index": 0, "delta": {}, "finish_reason": "stop"}),
        ),
    ),
    Side(
        "anthropic",
        "claude-haiku-4-5",
        "",
        "/v1/messages",
        "anthropic",
        "x-api-key",
        _message([{"type": "text", "text": TEXT}], "end_turn", PIECES),
        (
            _anthropic("message_start", message=_message([], None, 1)),
            _anthropic("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *(_anthropic("content_block_delta", index=0, delta={"type": "text_delta", "text": w}) for w in WORDS),
            _anthropic("content_block_stop", index=0),
            _anthropic("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": PIECES}),
            _anthropic("message_stop"),
        ),
    ),
    Side(
        "gemini",
        "gemini-2.5-flash",
        "/v1beta",
        "/v1beta/models",
        "litellm",
        "x-goog-api-key",
        _gemini(TEXT, PIECES, finishReason="STOP"),
        (*(_gemini(word, place + 1) for place, word in enumerate(WORDS)), _gemini("", PIECES, finishReason="STOP")),
    ),
    Side(
        "cohere_chat",
        "command-r-plus-08-2024",
        "/v2/chat",
        "/v2/chat",
        "litellm",
        "bearer",
        {
            "id": "c1",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
            "usage": COHERE_USAGE,
        },
        (
            _cohere("message-start", message={"role": "assistant"}),
            *(_cohere("content-delta", message={"content": {"text": word}}) for word in WORDS),
            _cohere("message-end", finish_reason="COMPLETE", usage=COHERE_USAGE),
        ),
    ),
)


@dataclass
class Measured:
    """Calls a second of one side in each round, and the processor time of a call in microseconds."""

    calls_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


Call = Callable[[bool], Awaitable[int]]  # with whether it streams; gives the number of pieces, which may come together


def main() -> int:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200, help="plain calls in a round; an eighth of it streams")
    parser.add_argument("--only", action="append", choices=[side.prefix for side in SIDES])
    parser.add_argument(
        "--by-call", action="store_true", help="the lane without LiteLLM's classes, as on another version"
    )
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with _upstream() as url:
        rows = asyncio.run(measure(url, chosen))
    print(json.dumps(rows, indent=2) if chosen.json else table(rows))
    return 0


async def measure(url: str, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each provider and shape; the first round of each is not counted."""
    litellm = await asyncio.to_thread(import_litellm)
    ours = {name: getattr(litellm, name) for name in OURS}
    memory, handler = type(ours[OURS[1]]).__mro__[1], type(ours[OURS[2]])
    price = importlib.import_module("litellm.cost_calculator").response_cost_calculator
    its_own = dict(zip(OURS, (None, memory(), handler(), price), strict=True))
    transport = Transport(connect_timeout_s=5, max_connections=100, listed=Loopback())
    lane = LiteLLMLane(
        transport, AccessTokens(transport), answer_timeout_s=30, idle_timeout_s=30, transforms=not chosen.by_call
    )
    await lane.open()
    rows = []
    for side in SIDES:
        if chosen.only and side.prefix not in chosen.only:
            continue
        for stream in (False, True):
            bare, lanes = Measured(), Measured()
            number = max(IN_FLIGHT, chosen.calls // 8) if stream else chosen.calls
            for place in range(chosen.rounds + 1):
                for call, measured, settings in (
                    (_bare(litellm, side, url), bare, its_own),
                    (_by_lane(lane, side, url), lanes, ours),
                ):
                    vars(litellm).update(settings)
                    result = await _round(call, number, stream)
                    if place:
                        measured.calls_s.append(result[0])
                        measured.cpu_us.append(result[1])
            rows.append(_row(side, stream, bare, lanes))
            print(f"{side.prefix} {'stream' if stream else 'plain'} measured", file=sys.stderr, flush=True)
    await lane.aclose()
    await transport.aclose()
    return rows


async def _round(call: Call, number: int, stream: bool) -> tuple[float, float]:
    left = iter(range(number))

    async def work() -> None:
        for _ in left:
            pieces = await call(stream)
            assert pieces >= (PIECES if stream else 1), pieces

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return number / wall, cpu / number * 1e6


def _bare(litellm: Any, side: Side, url: str) -> Call:
    async def call(stream: bool) -> int:
        answer = await litellm.acompletion(
            model=f"{side.prefix}/{side.model}",
            messages=MESSAGES,
            max_tokens=100,
            temperature=0.5,
            stream=stream,
            api_key=KEY,
            api_base=url + side.path,
            **({"stream_options": {"include_usage": True}} if stream else {}),
        )
        if not stream:
            return int(bool(answer.choices))
        return sum([1 async for _ in answer])

    return call


MESSAGES: Final = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me of words"}]


def _by_lane(lane: LiteLLMLane, side: Side, url: str) -> Call:
    row = {"wire": side.wire, "base_url": url + side.path, "hosts": [host_of(url)], "auth": side.auth}
    provider = provider_from_row("measured", {**row, "litellm_prefix": side.prefix})
    key = Credential(
        "measured", Secret(KEY), frozenset({host_of(url)}), "X_API_KEY", Via.CANONICAL, Store.CREDENTIALS, provider
    )
    body = {"model": "auto", "messages": MESSAGES, "max_tokens": 100, "temperature": 0.5}
    requests = [read_chat_request(json.dumps({**body, "stream": stream}).encode()) for stream in (False, True)]

    async def call(stream: bool) -> int:
        asked = UpstreamCall(provider, side.model, key, requests[stream])
        if not stream:
            return int(bool((await lane.complete(asked)).body))
        reply = await lane.stream(asked)
        try:
            return sum([piece.count(b"\n\n") async for piece in reply])
        finally:
            await reply.aclose()

    return call


def _row(side: Side, stream: bool, bare: Measured, lane: Measured) -> dict[str, Any]:
    bare_s, lane_s = statistics.median(bare.calls_s), statistics.median(lane.calls_s)
    bare_us, lane_us = statistics.median(bare.cpu_us), statistics.median(lane.cpu_us)
    return {
        "provider": side.prefix,
        "shape": f"{PIECES} pieces" if stream else "plain",
        "bare_calls_s": round(bare_s, 1),
        "lane_calls_s": round(lane_s, 1),
        "throughput_ratio": round(lane_s / bare_s, 2),
        "bare_cpu_us": round(bare_us),
        "lane_cpu_us": round(lane_us),
        "cpu_ratio": round(bare_us / lane_us, 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in columns."""
    head = ("provider", "shape", "bare/s", "lane/s", "ratio", "bare cpu µs", "lane cpu µs", "ratio")
    lines = [head, *(tuple(str(value) for value in row.values()) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


# --- the upstream ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _upstream() -> Iterator[str]:
    """An upstream in a process of its own; gives its URL."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join(5)


def _serve(pipe: Connection) -> None:
    async def run() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"content-length:"))
            body = await reader.readexactly(length)
            writer.write(_ready(head, body))
            await writer.drain()
    writer.close()


def _ready(head: bytes, body: bytes) -> bytes:
    path = head.split(b" ")[1].decode()
    side = next(side for side in SIDES if path.startswith(side.asked))
    if not (b'"stream":true' in body.replace(b" ", b"") or "streamgenerate" in path):
        return _http(b"application/json", [json.dumps(side.plain).encode()])
    if side.prefix == "cohere_chat" and b"text/event-stream" not in head:
        return _http(b"application/stream+json", [json.dumps(event).encode() + b"\n" for event in side.events])
    events = [_event(event) for event in side.events]
    return _http(b"text/event-stream", [*events, b"data: [DONE]\n\n"] if side.prefix == "openai" else events)


def _event(event: Mapping[str, object]) -> bytes:
    """Gemini and OpenAI send data alone, the others a name before it."""
    name = b"event: %s\n" % str(event["type"]).encode() if "type" in event else b""
    return name + b"data: %s\n\n" % json.dumps(event).encode()


def _http(kind: bytes, parts: list[bytes]) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % kind
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


if __name__ == "__main__":
    sys.exit(main())
