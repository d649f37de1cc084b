"""LiteLLM's classes give what LiteLLM's own call gives: case by case, at the upstream and at the caller."""

import asyncio
import copy
import json
import random
import re
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.litellm_door import import_litellm
from gateway.transforming import PROVEN_ON, WAYS, proven_ways
from gateway.transport import TransportRefusal
from tests.gateway import test_translation
from tests.gateway.lanes import KEY, MODELS, Arrived, Lanes, arrived, call_of, comparable, outcome, request_of
from tests.raw_upstream import RawUpstream, raw_upstream

ROOT = Path(__file__).parents[2]
VECTORS = tomllib.loads((ROOT / "tests" / "vectors" / "transforming.toml").read_text("utf-8"))
Row = dict[str, Any]
pytestmark = pytest.mark.asyncio(loop_scope="module")
DIFFERS = {(row["wire"], row["situation"]): row["fields"] for row in VECTORS["differs"]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lanes() -> AsyncIterator[Lanes]:
    async with Lanes() as opened:
        yield opened


def named(row: Row) -> str:
    return f"{row.get('wire', '')}: {row['situation']}"


def prepare(upstream: RawUpstream, row: Row) -> None:
    """Let the upstream answer as the row says."""
    headers = f"{row['headers']}\r\n" if "headers" in row else ""
    upstream.reset = row.get("cut", False)
    if "events" in row:
        upstream.events(*row["events"])
        upstream.answer = upstream.answer.replace(b"\r\n\r\n", b"\r\n" + headers.encode() + b"\r\n", 1)
        return
    upstream.plain(row["answer"], row.get("status", "200 OK"), f"connection: close\r\n{headers}")
    if row.get("cut"):
        upstream.answer = upstream.answer[:-9]


def first(kind: str, wire: str) -> Row:
    """The plainest answer of a wire."""
    return next(row for row in VECTORS[kind] if row["wire"] == wire and row["situation"] == "text")


# --- the answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", VECTORS["answers"], ids=named)
async def test_the_caller_gets_the_same_plain_answer(row: Row, upstream: RawUpstream, lanes: Lanes) -> None:
    await both(row, upstream, lanes, stream=False)


@pytest.mark.parametrize("row", VECTORS["streams"], ids=named)
async def test_the_caller_gets_the_same_stream(row: Row, upstream: RawUpstream, lanes: Lanes) -> None:
    await both(row, upstream, lanes, stream=True)


async def both(row: Row, upstream: RawUpstream, lanes: Lanes, *, stream: bool) -> None:
    request = request_of({**json.loads(row.get("ask", "{}")), "stream": stream})
    call = call_of(row["wire"], upstream.url, request)
    prepare(upstream, row)
    by_classes, by_call = [comparable(await outcome(lane, call)) for lane in lanes.both]
    assert by_classes["failure"] or by_classes["body"] or by_classes["chunks"]
    differing = [name for name in by_call if by_classes[name] != by_call[name]]
    if differing != DIFFERS.get((row["wire"], row["situation"]), []):
        assert by_classes == by_call


@pytest.mark.parametrize("row", VECTORS["cohere_streams"], ids=named)
async def test_coheres_streams_come_to_their_end(row: Row, upstream: RawUpstream, lanes: Lanes) -> None:
    upstream.reset = False
    upstream.events(*row["events"])
    told = await outcome(lanes.by_classes, call_of("cohere_chat", upstream.url, request_of({"stream": True})))
    choices = [choice for chunk in told.chunks for choice in chunk["choices"]]
    assert [choice["delta"]["content"] for choice in choices if choice["delta"]] == row["pieces"]
    assert [choice["delta"].get("role") for choice in choices[:1]] == ["assistant"][: len(row["pieces"])]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == [
        row["end"] for _ in row.keys() & {"end"}
    ]
    assert (told.failure.kind if told.failure else None) == row.get("fails")
    usage = told.usage and [told.usage.input_tokens, told.usage.output_tokens]
    assert (None if told.failure else usage) == row.get("usage")


async def test_coheres_pieces_are_those_of_litellms_own_call(upstream: RawUpstream, lanes: Lanes) -> None:
    """Which reads lines of JSON up to the end, and invents that."""
    row = VECTORS["cohere_streams"][0]
    call = call_of("cohere_chat", upstream.url, request_of({"stream": True}))
    prepare(upstream, {"answer": "\n".join(row["events"]), "situation": ""})
    _, wrapper = await lanes.by_call._send(call, stream=True)
    told = [item.model_dump()["choices"][0]["delta"] async for item in wrapper if item.choices]
    assert [delta["content"] for delta in told if delta["content"]] == row["pieces"]


WORDS = ["a", " b", "Füße", "東京 ", "😀", "\n\n", "", '{"x": 1}', "</s>", "data: x", "| - |"]


def anthropic_stream(dice: random.Random) -> list[Row]:
    events: list[Row] = [{"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 5}}}]
    for index in range(dice.randint(0, 4)):
        kind = dice.choice(["text", "tool_use", "thinking"])
        block: dict[str, Row] = {"text": {"text": ""}, "tool_use": {"id": f"t{index}", "name": "lookup", "input": {}}}
        start = {"type": kind, **block.get(kind, {"thinking": ""})}
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        for _ in range(dice.randint(0, 4)):
            word = dice.choice(WORDS)
            delta = {"type": "text_delta", "text": word}
            delta = {"type": "input_json_delta", "partial_json": word} if kind == "tool_use" else delta
            delta = {"type": "thinking_delta", "thinking": word} if kind == "thinking" else delta
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    reason = dice.choice(["end_turn", "max_tokens", "tool_use", "refusal"])
    events.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4}})
    return [*events, {"type": "message_stop"}]


def gemini_stream(dice: random.Random) -> list[Row]:
    def event(parts: list[Row], count: int, **more: object) -> Row:
        usage = {"promptTokenCount": 5, "candidatesTokenCount": count, "totalTokenCount": 5 + count}
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **more}
        return {"candidates": [candidate], "responseId": "r", "modelVersion": "m", "usageMetadata": usage}

    def part() -> Row:
        word = dice.choice(WORDS)
        call = {"functionCall": {"name": "lookup", "args": {"city": word}}}
        return dice.choice([{"text": word}, {"text": word}, {"text": word, "thought": True}, call])

    pieces = dice.randint(0, 6)
    events = [event([part() for _ in range(dice.randint(1, 2))], place + 1) for place in range(pieces)]
    reason = dice.choice(["STOP", "MAX_TOKENS", "SAFETY"])
    return [*events, event(dice.choice([[], [part()]]), pieces + 1, finishReason=reason)]


@pytest.mark.parametrize(("wire", "made"), [("anthropic", anthropic_stream), ("gemini", gemini_stream)])
async def test_streams_made_at_random_are_the_same(wire: str, made: Any, upstream: RawUpstream, lanes: Lanes) -> None:
    call = call_of(wire, upstream.url, request_of({"stream": True}))
    upstream.reset = False
    for seed in range(40):
        upstream.events(*map(json.dumps, made(random.Random(seed))))
        told = [comparable(await outcome(lane, call)) for lane in lanes.both]
        for one in told:  # reasoning that the provider did not count is guessed by LiteLLM with a tokenizer
            one["usage"] = one["usage_chunk"] = None
        assert told[0] == told[1], seed


# --- the request -----------------------------------------------------------------------------------------------------


def cases(wire: str) -> list[tuple[str, str, Row]]:
    """Situation, model and body of every request that is known of a wire."""
    own = [
        (row["situation"], MODELS[wire], json.loads(row["ask"])) for row in VECTORS["requests"] if row["wire"] == wire
    ]
    known = [row for row in test_translation.rows("accepted") if row["wire"] == wire]
    png = test_translation.PNG
    return own + [(row["situation"], row["model"], json.loads(row["body"].replace("@PNG@", png))) for row in known]


@pytest.mark.parametrize("wire", sorted(WAYS))
@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_request_arrives_upstream(wire: str, stream: bool, upstream: RawUpstream, lanes: Lanes) -> None:
    tried = cases(wire)
    wrong = {}
    prepare(upstream, first("streams" if stream and wire != "cohere_chat" else "answers", wire))
    for situation, model, body in tried:
        call = call_of(wire, upstream.url, request_of({**body, "stream": stream}), model)
        before = copy.deepcopy((call.request.messages, call.request.parameters))
        came = []
        for lane in lanes.both:
            upstream.requests.clear()
            await outcome(lane, call)
            came.append(without_known_differences(arrived(upstream), wire, stream=stream))
        if came[0] != came[1]:
            wrong[situation] = came
        assert (call.request.messages, call.request.parameters) == before, situation
    assert len(tried) > 10 and wrong == {}


@pytest.mark.parametrize("wire", sorted(WAYS))
async def test_the_same_request_arrives_when_cases_are_mixed_at_random(
    wire: str, upstream: RawUpstream, lanes: Lanes
) -> None:
    dice, known = random.Random(7), [(model, body) for _, model, body in cases(wire)]
    prepare(upstream, first("answers", wire))
    for _ in range(40):
        mixed = dice.sample(known, 3)
        body: Row = {name: value for _, part in mixed for name, value in part.items()}
        if len(body.keys() & {"max_tokens", "max_completion_tokens"}) == 2:
            del body["max_completion_tokens"]
        told, came = [], []
        for lane in lanes.both:
            upstream.requests.clear()
            told.append(comparable(await outcome(lane, call_of(wire, upstream.url, request_of(body), mixed[0][0]))))
            one = arrived(upstream) if upstream.requests else None
            came.append(one and without_known_differences(one, wire, stream=False))
        assert (told[0], came[0]) == (told[1], came[1]), body


@pytest.mark.parametrize("wire", sorted(WAYS))
async def test_the_same_request_arrives_for_every_model_that_litellm_knows(
    wire: str, upstream: RawUpstream, lanes: Lanes
) -> None:
    """Its price map decides of parameters and headers by model."""
    prices: dict[str, Row] = import_litellm().model_cost
    models = {name.rpartition("/")[2] for name, row in prices.items() if row.get("litellm_provider") == wire}
    chosen = sorted(model for model in models if lanes.by_classes._ways[wire].MODELS.fullmatch(model))
    prepare(upstream, first("answers", wire))
    for model in chosen:
        came = []
        for lane in lanes.both:
            upstream.requests.clear()
            await outcome(lane, call_of(wire, upstream.url, request_of({"max_tokens": 9, "temperature": 1}), model))
            came.append(without_known_differences(arrived(upstream), wire, stream=False))
        assert came[0] == came[1], model
    assert len(chosen) > 4


def without_known_differences(request: Arrived, wire: str, *, stream: bool) -> Arrived:
    for row in VECTORS["header_differs"]:
        if row.get("wire", wire) == wire and row.get("stream", stream) == stream:
            request.headers.pop(row["name"], None)
    return request


@pytest.mark.parametrize("wire", sorted(WAYS))
async def test_the_key_is_the_tenants_whatever_the_environment_holds(
    wire: str, upstream: RawUpstream, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC", "GEMINI", "GOOGLE", "COHERE", "CO"):
        monkeypatch.setenv(f"{name}_API_KEY", "sk-operators-own")
        monkeypatch.setenv(f"{name}_API_BASE", "http://127.0.0.1:1")
    prepare(upstream, first("answers", wire))
    told = await outcome(lanes.by_classes, call_of(wire, upstream.url, request_of({})))
    assert told.failure is None
    assert KEY in upstream.requests[-1].decode() and "operators" not in upstream.requests[-1].decode()


async def test_what_a_class_refuses_is_a_request_that_cannot_be_translated(upstream: RawUpstream, lanes: Lanes) -> None:
    broken = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{broken"}}
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [broken]}]
    request = request_of({"messages": said})
    upstream.requests.clear()
    told = [comparable(await outcome(lane, call_of("anthropic", upstream.url, request))) for lane in lanes.both]
    assert told[0] == told[1]
    assert told[0]["failure"]["kind"] == "unsupported_parameter" and upstream.requests == []


# --- the version, the clients, the end -------------------------------------------------------------------------------


async def test_on_another_version_every_provider_goes_by_litellms_own_call(caplog: pytest.LogCaptureFixture) -> None:
    litellm = import_litellm()
    assert set(proven_ways(litellm, PROVEN_ON)) == set(WAYS)
    assert caplog.records == []
    assert proven_ways(litellm, "1.109.1") == {}
    assert "litellm.transforms_not_proven" in caplog.text and "1.109.1" in caplog.text


async def test_the_locked_version_is_the_proven_one() -> None:
    locked = re.search(r"^litellm==(\S+)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    assert locked is not None and locked[1] == PROVEN_ON


async def test_a_provider_that_takes_no_client_has_ours_all_the_same(upstream: RawUpstream) -> None:
    """Cohere's: LiteLLM would make one of its own, and send past our transport."""
    litellm = import_litellm()
    assert isinstance(
        litellm.in_memory_llm_clients_cache.get_cache("httpx_clientany"), type(litellm.module_level_client)
    )
    upstream.requests.clear()
    with pytest.raises(Exception, match="outside any exchange") as caught:
        await litellm.acompletion(
            model="cohere_chat/command-r",
            messages=[{"role": "user", "content": "x"}],
            api_key="x",
            api_base=upstream.url,
            num_retries=0,
        )
    assert upstream.requests == [] and not isinstance(caught.value, TransportRefusal)


async def test_closing_a_stream_closes_the_upstream_also_while_it_is_cancelled(lanes: Lanes) -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        event = first("streams", "gemini")["events"][0]
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        writer.write(f"{head}data: {event}\n\n".encode())
        while await reader.read(65536):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        stream = await lanes.by_classes.stream(call_of("gemini", url, request_of({"stream": True})))
        begun = asyncio.Event()

        async def read() -> None:
            try:
                async for _ in stream:
                    begun.set()
            finally:
                await stream.aclose()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 5)
        reading.cancel()
        await asyncio.wait([reading])
        await asyncio.wait_for(gone.wait(), 5)
        await stream.aclose()


@pytest.mark.parametrize("wire", [*sorted(WAYS), "openai"])
async def test_a_caller_that_leaves_before_the_answer_frees_the_connection(wire: str, lanes: Lanes) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
        asked.set()
        while await reader.read(65536):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        waiting = asyncio.create_task(lanes.by_classes.complete(call_of(wire, url, request_of({}))))
        await asyncio.wait_for(asked.wait(), 5)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await asyncio.wait_for(gone.wait(), 5)
