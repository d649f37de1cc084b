"""Chat chunks as the events of a Messages stream, and all of it as the real SDK reads it from a server on a port."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest
from anthropic._models import construct_type
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gateway.errors import ApiError, Problem
from gateway.surfaces.messages_answer import answer
from gateway.surfaces.messages_events import KEEP_ALIVE, Events
from gateway.surfaces.messages_problem import TYPE_OF_STATUS, problem_body
from router.reasons import Fault
from tests.raw_upstream import RawUpstream, raw_upstream

EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
PROBLEM = Problem(502, "provider_stream_truncated", "minimax broke off its answer.", Fault.PROVIDER)
Json = dict[str, Any]


def events(body: Json | None = None) -> Events:
    return Events(body or {}, answer_id="1", created=1700000000, model="m")


def chunk(delta: Json | None = None, finish: str | None = None, **fields: object) -> Json:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice], **fields}


def call(index: int, arguments: object = None, identity: str | None = None, name: str | None = None) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": identity, "type": "function", "function": function}]}


def stream(*chunks: Json, body: Json | None = None, usage: Json | None = USAGE) -> bytes:
    made = events(body)
    return b"".join([made.chunk(each) for each in chunks]) + made.end(usage)


def documents(raw: bytes) -> list[Json]:
    """The data of each event, whose name is its type."""
    held = []
    for event in raw.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        held.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {held[-1]['type']}"
    return held


def checked(raw: bytes) -> list[Json]:
    """The events of a whole stream: each valid by the SDK's types, blocks opened and closed once and in order."""
    held = documents(raw)
    for document in held:
        EVENT.validate_python(document)
    kinds = [document["type"] for document in held]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert [kinds.count(once) for once in ("message_start", "message_delta", "message_stop")] == [1, 1, 1]
    opened = -1
    is_open = False
    for document in held[1:-2]:
        kind = document["type"].removeprefix("content_block_")
        assert is_open is (kind != "start")
        opened += kind == "start"
        is_open = kind != "stop"
        assert document["index"] == opened
    assert not is_open
    return held


def final(raw: bytes) -> Json:
    """The message that the SDK accumulates."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for document in documents(raw):
        event: Any = construct_type(type_=RawMessageStreamEvent, value=document)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    told: Json = snapshot.to_dict()
    return told


def test_text_streams_from_start_to_stop() -> None:
    raw = stream(
        chunk({"role": "assistant", "content": ""}), chunk({"content": "he"}), chunk({"content": "llo"}, "stop")
    )
    counts = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "input_tokens": 6, "output_tokens": 5}
    none = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "input_tokens": 0, "output_tokens": 0}
    assert checked(raw) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": none,
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "he"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": counts},
        {"type": "message_stop"},
    ]


def test_each_piece_leaves_with_its_chunk() -> None:
    made = events()
    assert [d["type"] for d in documents(made.chunk(chunk({"content": "a"})))] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
    ]
    assert [d["delta"]["text"] for d in documents(made.chunk(chunk({"content": "b"})))] == ["b"]
    assert made.chunk(chunk({"content": ""})) == b""


def test_chunks_without_our_choice_say_nothing() -> None:
    made = events()
    assert made.chunk({"choices": [], "usage": USAGE}) == b""
    assert made.chunk({"choices": [{"index": 1, "delta": {"content": "x"}}]}) == b""
    assert [d["type"] for d in checked(made.end(None))] == ["message_start", "message_delta", "message_stop"]


def test_delta_that_is_no_object_says_nothing() -> None:
    raw = stream({"choices": [{"index": 0, "delta": None, "finish_reason": "length"}]})
    assert final(raw)["stop_reason"] == "max_tokens"


def test_thoughts_text_and_calls_are_blocks_one_after_the_other() -> None:
    raw = stream(
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning": ", well"}),
        chunk({"content": "so"}),
        chunk(call(0, "", "c1", "f")),
        chunk(call(0, '{"a"')),
        chunk(call(0, ": 1}")),
        chunk(call(1, "{}", "c2", "g")),
        chunk({}, "tool_calls"),
    )
    held = checked(raw)
    assert [d["delta"] for d in held if d["type"] == "content_block_delta" and d["index"] == 2] == [
        {"type": "input_json_delta", "partial_json": '{"a"'},
        {"type": "input_json_delta", "partial_json": ": 1}"},
    ]
    assert final(raw)["content"] == [
        {"type": "thinking", "thinking": "hm, well", "signature": ""},
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
    ]
    assert final(raw)["stop_reason"] == "tool_use"


def test_thoughts_that_are_not_to_be_shown_are_not() -> None:
    body = {"thinking": {"type": "adaptive", "display": "omitted"}}
    raw = stream(chunk({"reasoning_content": "hm"}), chunk({"content": "so"}, "stop"), body=body)
    assert [block["type"] for block in final(raw)["content"]] == ["text"]


def test_refusal_is_told_as_one() -> None:
    raw = stream(chunk({"refusal": "I will "}), chunk({"refusal": "not."}, "stop"))
    checked(raw)
    told = final(raw)
    assert (told["content"], told["stop_reason"]) == ([{"type": "text", "text": "I will not."}], "refusal")


def test_stop_and_tier_that_the_provider_names_are_told() -> None:
    ended = {**chunk({"content": "a"}), "service_tier": "default"}
    ended["choices"][0] |= {"finish_reason": "stop", "stop_reason": "END"}
    held = checked(stream(ended, chunk(), body={"stop_sequences": ["END"]}))
    assert held[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    assert held[-2]["usage"]["service_tier"] == "standard"


def test_mixed_pieces_of_calls_are_put_in_order() -> None:
    raw = stream(
        chunk(call(0, '{"a":', "c1", "f")),
        chunk(call(1, '{"b":', "c2", "g")),
        chunk({"content": "beside"}),
        chunk(call(0, "{}")),
        chunk(call(1, "2}")),
        chunk(call(0, "}")),
        chunk({}, "tool_calls"),
    )
    checked(raw)
    assert final(raw)["content"] == [
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": {}}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {"b": 2}},
        {"type": "text", "text": "beside"},
    ]


def test_calls_of_one_index_are_told_apart_by_their_ids() -> None:
    raw = stream(
        chunk(call(0, '{"a": 1}', "c1", "f")), chunk(call(0, '{"a": 2}', "c2", "f")), chunk(call(0, " ", "c2"))
    )
    checked(raw)
    assert [(b["id"], b["input"]) for b in final(raw)["content"]] == [("c1", {"a": 1}), ("c2", {"a": 2})]


def test_whole_calls_of_one_index_without_ids_are_told_apart() -> None:
    raw = stream(
        chunk(call(0, '{"a": 1', None, "f")),
        chunk(call(0, "}", None, "f")),
        chunk(call(0, " ", None, "f")),
        chunk(call(0, '{"a": 2}', None, "f")),
    )
    checked(raw)
    assert [(b["id"], b["input"]) for b in final(raw)["content"]] == [("toolu_1_0", {"a": 1}), ("toolu_1_1", {"a": 2})]


def test_calls_without_ids_get_some() -> None:
    raw = stream(chunk(call(0, {"a": 1}, None, "f")), chunk(call(1, "", None, "g")))
    checked(raw)
    assert [b["id"] for b in final(raw)["content"]] == ["toolu_1_0", "toolu_1_1"]


def test_arguments_that_never_end_keep_the_others_waiting_and_lose_nothing() -> None:
    raw = stream(
        chunk(call(0, '{"a": [1', "c1", "f")), chunk(call(1, "{}", "c2", "g")), chunk(call(1, " ")), chunk({}, "length")
    )
    checked(raw)
    assert [b["input"] for b in final(raw)["content"]] == [{"a": [1]}, {}]
    assert "".join(d["delta"]["partial_json"] for d in documents(raw) if d["type"] == "content_block_delta") == (
        '{"a": [1{} '
    )


@pytest.mark.parametrize(("tries", "waits"), [(99, False), (100, True)])
def test_arguments_that_seem_to_end_again_and_again_wait_for_the_end(tries: int, waits: bool) -> None:
    made = events()
    raw = made.chunk(chunk(call(0, '{"a": "', "c1", "f"))) + made.chunk(chunk(call(1, "{}", "c2", "g")))
    raw += b"".join(made.chunk(chunk(call(0, "}"))) for _ in range(tries))
    last = made.chunk(chunk(call(0, '"}')))
    assert [d["type"] for d in documents(last)].count("content_block_start") == (not waits)
    raw += last + made.end(None)
    checked(raw)
    assert [b["input"] for b in final(raw)["content"]] == [{"a": "}" * tries}, {}]


def test_more_arguments_for_a_call_that_was_complete_are_an_error() -> None:
    made = events()
    made.chunk(chunk(call(0, "{}", "c1", "f")))
    made.chunk(chunk(call(1, "{", "c2", "g")))
    assert made.chunk(chunk(call(0, " "))) == b""
    with pytest.raises(ApiError) as caught:
        made.chunk(chunk(call(0, '{"b": 2}')))
    assert (caught.value.problem.status, caught.value.problem.code) == (502, "provider_malformed_answer")


def test_broken_stream_ends_with_its_error_and_nothing_else() -> None:
    made = events()
    made.chunk(chunk({"content": "a"}))
    (held,) = documents(made.broke(PROBLEM))
    assert held == {
        "type": "error",
        "error": {
            "type": "api_error",
            "message": "minimax broke off its answer.",
            "param": None,
            "code": "provider_stream_truncated",
            "fault": "provider",
        },
    }


# --- any split -------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INPUTS = st.dictionaries(TEXTS, st.integers() | TEXTS | st.lists(st.booleans(), max_size=2), max_size=3)


def split(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def told(draw: st.DrawFn) -> tuple[Json, list[Json]]:
    """A message, and chunks that say it: thoughts, text, calls whose pieces may come mixed."""
    thoughts, content = draw(TEXTS), draw(TEXTS)
    inputs = [json.dumps(held, ensure_ascii=False) for held in draw(st.lists(INPUTS, max_size=3))]
    chunks = [chunk({"reasoning_content": piece}) for piece in split(draw, thoughts)]
    chunks += [chunk({"content": piece}) for piece in split(draw, content)]
    waiting = [(n, [(n, piece) for piece in split(draw, text)]) for n, text in enumerate(inputs)]
    chunks += [chunk(call(n, "", f"c{n}", f"f{n}")) for n, _ in waiting] if draw(st.booleans()) else []
    queues = [pieces for _, pieces in waiting]
    while any(queues):
        queue = draw(st.sampled_from([pieces for pieces in queues if pieces]))
        index, piece = queue.pop(0)
        chunks.append(chunk(call(index, piece, f"c{index}", f"f{index}")))
    calls = [{"id": f"c{n}", "function": {"name": f"f{n}", "arguments": text}} for n, text in enumerate(inputs)]
    message = {"content": content, "reasoning_content": thoughts, "tool_calls": calls}
    return message, [*chunks, chunk({}, "tool_calls" if calls else "stop")]


@settings(deadline=None)
@given(told())
def test_any_split_gives_the_message_of_the_plain_answer(case: tuple[Json, list[Json]]) -> None:
    message, chunks = case
    raw = stream(*chunks)
    checked(raw)
    finish = chunks[-1]["choices"][0]["finish_reason"]
    whole = {"model": "m", "choices": [{"message": message, "finish_reason": finish}], "usage": USAGE}
    plain = answer(whole, {}, answer_id="1", created=0)
    streamed = final(raw)
    by_id = {block.get("id", block["type"]): block for block in streamed["content"]}
    assert [by_id[block.get("id", block["type"])] for block in plain["content"]] == plain["content"]  # type: ignore[attr-defined]
    assert len(by_id) == len(streamed["content"])
    assert streamed.pop("stop_details") is None  # the SDK's own
    assert {**streamed, "content": []} == {**plain, "content": []}


# --- the real SDK over a port ----------------------------------------------------------------------------------------


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as running:
        yield running


@pytest.fixture
async def client(upstream: RawUpstream) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=upstream.url, auth_token="wg_live_x", max_retries=0) as made:
        yield made


ASKED: Any = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


def serve(upstream: RawUpstream, raw: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n"
    upstream.answer = head + raw


async def test_sdk_reads_a_plain_answer(upstream: RawUpstream, client: anthropic.AsyncAnthropic) -> None:
    message = {
        "content": "so",
        "reasoning_content": "hm",
        "tool_calls": [call(0, '{"a": 1}', "c1", "f")["tool_calls"][0]],
    }
    whole = {"model": "m", "choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    upstream.plain(json.dumps(answer(whole, ASKED, answer_id="1", created=0)))
    read = await client.messages.create(**ASKED)
    assert [block.type for block in read.content] == ["thinking", "text", "tool_use"]
    assert (read.content[2].input, read.stop_reason, read.usage.input_tokens) == ({"a": 1}, "tool_use", 6)
    assert b"\r\nauthorization: bearer wg_live_x\r\n" in upstream.requests[0].lower()
    Message.model_validate(read.to_dict())


async def test_sdk_accumulates_a_stream_with_pings_in_it(
    upstream: RawUpstream, client: anthropic.AsyncAnthropic
) -> None:
    made = events()
    pieces = [{"reasoning_content": "hm"}, {"content": "he"}, {"content": "llo"}, call(0, '{"a": 1}', "c1", "f")]
    raw = KEEP_ALIVE.join(made.chunk(chunk(piece)) for piece in pieces)
    serve(upstream, KEEP_ALIVE + raw + made.chunk(chunk({}, "tool_calls")) + made.end(USAGE))
    async with client.messages.stream(**ASKED) as read:
        texts = [text async for text in read.text_stream]
        message = await read.get_final_message()
    assert texts == ["he", "llo"]
    assert [block.to_dict() for block in message.content] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "hello"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
    ]
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (6, 4, 5)
    assert message.stop_reason == "tool_use"


async def test_sdk_raises_the_error_in_a_stream_after_what_was_said(
    upstream: RawUpstream, client: anthropic.AsyncAnthropic
) -> None:
    made = events()
    serve(upstream, made.chunk(chunk({"content": "he"})) + made.broke(PROBLEM))
    heard = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        async with client.messages.stream(**ASKED) as read:
            async for text in read.text_stream:
                heard.append(text)
    assert heard == ["he"]
    assert (caught.value.type, caught.value.api_message) == ("api_error", "minimax broke off its answer.")


CLASSES = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    405: anthropic.APIStatusError,
    408: anthropic.RequestTimeoutError,
    409: anthropic.ConflictError,
    413: anthropic.ContentTooLargeError,
    415: anthropic.APIStatusError,
    424: anthropic.APIStatusError,
    429: anthropic.RateLimitError,
    431: anthropic.RequestHeaderFieldsTooLargeError,
    500: anthropic.InternalServerError,
    501: anthropic.HTTPNotImplementedError,
    502: anthropic.InternalServerError,
    503: anthropic.ServiceUnavailableError,
    504: anthropic.GatewayTimeoutError,
    505: anthropic.InternalServerError,
}


@pytest.mark.parametrize("status", TYPE_OF_STATUS)
async def test_sdk_raises_its_class_for_each_status(
    status: int, upstream: RawUpstream, client: anthropic.AsyncAnthropic
) -> None:
    problem = Problem(status, "a_code", "A sentence.", Fault.GATEWAY)
    headers = "request-id: req_1\r\n"
    upstream.plain(problem_body(problem, "req_1"), f"{status} X", headers)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(**ASKED)
    assert type(caught.value) is CLASSES[status]
    assert (caught.value.type, caught.value.api_message) == (TYPE_OF_STATUS[status], "A sentence.")
    assert caught.value.request_id == "req_1"
