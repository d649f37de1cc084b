"""An upstream that plays a recorded answer for each request, at a pace, and breaks it off in every way there is.

It runs on the test's own event loop; a request says by `case-<number>` in its body which answer it gets.
"""

import asyncio
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx

CASE = re.compile(rb"case-(\d+)")
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # SO_LINGER of 0 s


@dataclass(frozen=True)
class Case:
    """`pieces` are written one by one, `pause_s` before each; `end` is "whole", or a way to break off. With `raw` they
    are the answer as it is, head and all. `then` is what the next request of the same case gets, where that differs."""

    pieces: Sequence[bytes]
    end: str = "whole"
    pause_s: float = 0.0
    raw: bool = False
    then: "Case | None" = None


@dataclass
class Play:
    """One request of a case as it was answered: its head, and how many of the pieces were written."""

    head: bytes
    case: Case
    written: int = 0


@dataclass
class Cutting:
    """`asked` counts the requests of each case, `plays` are what they got, `heads` are all that came, `gone` when the
    gateway left a case. A case in `paced` has a piece written for each release of its semaphore."""

    url: str = ""
    cases: dict[int, Case] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)
    plays: dict[int, list[Play]] = field(default_factory=dict)
    paced: dict[int, asyncio.Semaphore] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    gone: dict[int, float] = field(default_factory=dict)
    standing: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.standing += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self.standing -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        self.heads.append(head)
        found = CASE.search(body)
        number = int(found[1]) if found else 0
        case = self.cases.get(number) or Case([plain_answer(head)], raw=True)
        for _ in range(self.asked[number]):
            case = case.then or case
        self.asked[number] += 1
        play = Play(head, case)
        pace = self.paced.get(number)
        self.plays.setdefault(number, []).append(play)
        playing = asyncio.ensure_future(self._play(play, writer, pace))
        leaving, left = asyncio.ensure_future(reader.read(1)), False
        try:
            await asyncio.wait((playing, leaving), return_when=asyncio.FIRST_COMPLETED)
            left = leaving.done() and not playing.done()
            return not left and await playing
        except ConnectionError:
            left = True
            raise
        finally:
            if left:
                self.gone[number] = asyncio.get_running_loop().time()
            playing.cancel()
            leaving.cancel()
            await asyncio.gather(playing, leaving, return_exceptions=True)

    async def _play(self, play: Play, writer: asyncio.StreamWriter, pace: asyncio.Semaphore | None) -> bool:
        case = play.case
        if not case.raw:
            size = sum(map(len, case.pieces))
            told = b"content-length: %d" % (size + 1000) if case.end == "limit" else b"transfer-encoding: chunked"
            writer.write(STREAM + told + b"\r\n\r\n")
        for piece in case.pieces:
            if case.pause_s:
                await asyncio.sleep(case.pause_s)
            if pace is not None:
                await pace.acquire()
            plain = case.raw or case.end == "limit"
            writer.write(piece if plain else b"%x\r\n%b\r\n" % (len(piece), piece))
            play.written += 1
            await writer.drain()
        return await self._end(case, writer)

    async def _end(self, case: Case, writer: asyncio.StreamWriter) -> bool:
        if case.end == "reset":
            await asyncio.sleep(0.02)  # what was written is to arrive
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif case.end == "bad chunk":
            writer.write(b"zz\r\n")
        elif case.end == "whole" and not case.raw:
            writer.write(b"0\r\n\r\n")
        return case.end == "whole"


@asynccontextmanager
async def cutting() -> AsyncIterator[Cutting]:
    """A running upstream."""
    upstream = Cutting()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await upstream.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def answer(document: object, status: str = "200 OK", headers: bytes = b"") -> bytes:
    raw = json.dumps(document).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status.encode(), len(raw))
    return head + headers + b"\r\n" + raw


OPENAI_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ANTHROPIC_USAGE = {"input_tokens": 3, "output_tokens": 2}
GEMINI_USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
PLAIN = {
    "openai": {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": OPENAI_USAGE,
    },
    "anthropic": {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "c",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "ok"}],
        "usage": ANTHROPIC_USAGE,
    },
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "ok"}], "role": "model"}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": GEMINI_USAGE,
    },
}


def plain_answer(head: bytes) -> bytes:
    """A good one on the wire of the path that was asked for."""
    path = head.split(b" ")[1]
    wire = "anthropic" if b"/messages" in path else "gemini" if b"enerateContent" in path else "openai"
    return answer(PLAIN[wire])


def openai_chunk(content: str | None = None, reason: str | None = None, **more: object) -> str:
    delta = {} if content is None else {"content": content}
    head = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    return json.dumps(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} | more)


def openai_stream(words: Sequence[str], usage: Mapping[str, object] | None = OPENAI_USAGE) -> list[bytes]:
    """Events up to the one that ends the answer, which is the last but two. Without `usage` nobody is told of any."""
    counts = json.dumps({"id": "chatcmpl-9", "object": "chat.completion.chunk", "choices": [], "usage": usage})
    datas = [*map(openai_chunk, words), openai_chunk(reason="stop"), *[counts][: usage is not None], "[DONE]"]
    return [b"data: " + data.encode() + b"\n\n" for data in datas]


def anthropic_stream(words: Sequence[str], used: Mapping[str, object] = ANTHROPIC_USAGE) -> list[bytes]:
    start: dict[str, object] = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []}
    usage, told = {**used, "output_tokens": 1}, {"output_tokens": used["output_tokens"]}
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    datas: list[dict[str, object]] = [
        {"type": "message_start", "message": start | {"usage": usage, "stop_reason": None}},
        {"type": "content_block_start", **block},
        *[{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w}} for w in words],
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told},
        {"type": "message_stop"},
    ]
    return [f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode() for data in datas]


def gemini_stream(words: Sequence[str], used: Mapping[str, object] = GEMINI_USAGE) -> list[bytes]:
    def candidate(text: str, **more: object) -> dict[str, object]:
        return {"candidates": [{"index": 0, "content": {"parts": [{"text": text}], "role": "model"}, **more}]}

    datas = [*map(candidate, words), candidate("", finishReason="STOP") | {"usageMetadata": used}]
    return [b"data: " + json.dumps(data).encode() + b"\r\n\r\n" for data in datas]


MODELS = {
    "openai": "minimax/MiniMax-M2",
    "anthropic": "anthropic/claude-haiku-4-5",
    "gemini": "google/gemini-2.5-flash",
}
KEYS = {"MINIMAX_API_KEY": "Key.of-minimax-0123", "ANTHROPIC_API_KEY": "Key.of-anthropic-0123"} | {
    "GOOGLE_API_KEY": "Key.of-google-0123",
    "DEEPSEEK_API_KEY": "Key.of-deepseek-0123",
    "OPENAI_API_KEY": "Key.of-openai-0123",
}


def asking(wire: str, number: int = 0, **more: object) -> dict[str, object]:
    """A request that gets case `number`."""
    return {"model": MODELS[wire], "messages": [{"role": "user", "content": f"case-{number}"}]} | more


async def keep_well(client: httpx.AsyncClient, wire: str, count: int) -> None:
    """Good answers beside the bad ones, so that the provider is not held for ill and left alone."""
    answers = await asyncio.gather(*[client.post("/v1/chat/completions", json=asking(wire)) for _ in range(count)])
    assert {one.status_code for one in answers} == {200}, answers[0].text


@asynccontextmanager
async def caller(url: str, token: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=400)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as client:
        yield client
