"""Chat completions as Messages answers, usage both ways, errors, and what a native answer says of itself."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import ErrorResponse, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import TYPE_OF_STATUS as CHAT_TYPES
from gateway.errors import Problem
from gateway.events import TokenUsage
from gateway.surfaces.messages_answer import answer, read_arguments, usage_object, usage_of
from gateway.surfaces.messages_problem import TYPE_OF_STATUS, problem_body
from gateway.surfaces.messages_reader import MessagesReader
from gateway.surfaces.messages_request import to_chat
from router.reasons import Fault

VECTORS = tomllib.loads((Path(__file__).parents[2] / "vectors" / "messages.toml").read_text("utf-8"))
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
Row = dict[str, Any]


def rows(kind: str) -> list[Any]:
    return [pytest.param(row, id=row["situation"]) for row in VECTORS[kind]]


def completion(choice: object, **fields: object) -> dict[str, object]:
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE, **fields}


def said(message: dict[str, object]) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return answer(completion(choice), {}, answer_id="1", created=0)


@pytest.mark.parametrize("row", rows("answers"))
def test_choice_becomes_a_message(row: Row) -> None:
    body = {"model": "asked", **json.loads(row.get("body", "{}"))}
    message = answer(completion(json.loads(row["choice"])), body, answer_id="1", created=1700000000)
    assert message["content"] == json.loads(row["content"])
    assert message["stop_reason"] == row.get("stop_reason")
    assert message["stop_sequence"] == row.get("stop_sequence")
    assert {name: message[name] for name in ("id", "type", "role", "model")} == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
    }
    if row.get("stop_reason") != "insufficient_system_resource":  # a word that the SDK's types do not know
        Message.model_validate(message, strict=True)


def test_model_is_the_one_that_was_asked_for_when_the_answer_names_none() -> None:
    message = answer({"choices": []}, {"model": "asked"}, answer_id="msg_7", created=0)
    assert (message["id"], message["model"], message["content"]) == ("msg_7", "asked", [])


def test_tier_of_the_answer_is_in_its_usage() -> None:
    message = answer(completion({}, service_tier="priority"), {}, answer_id="1", created=0)
    assert isinstance(message["usage"], dict)
    assert message["usage"]["service_tier"] == "priority"


@pytest.mark.parametrize("row", rows("told"))
def test_usage_is_told_as_anthropic_counts(row: Row) -> None:
    assert usage_object(json.loads(row["usage"]), row.get("tier")) == json.loads(row["is"])


@pytest.mark.parametrize("row", rows("native"))
def test_native_usage_is_counted_as_it_is_charged(row: Row) -> None:
    counted = TokenUsage(**row["is"]) if "is" in row else None
    assert usage_of(json.loads(row["usage"]), row.get("tier")) == counted


COUNTS = st.integers(0, 10**6)


@settings(deadline=None)
@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_no_token_is_lost_between_the_two_ways_to_count(new: int, read: int, short: int, hour: int, out: int) -> None:
    counted = TokenUsage(new + read + short + hour, out, read, 0, short + hour, hour)
    details = {
        "cached_tokens": read,
        "cache_write_tokens": short + hour,
        "cache_creation_token_details": {"ephemeral_1h_input_tokens": hour},
    }
    chat = {"prompt_tokens": counted.input_tokens, "completion_tokens": out, "prompt_tokens_details": details}
    assert usage_of(usage_object(chat)) == counted


# --- there and back --------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(TEXTS, VALUES, max_size=3)


@settings(deadline=None)
@given(TEXTS | st.none(), TEXTS | st.none(), st.lists(ARGUMENTS, max_size=3))
def test_message_comes_back_as_it_was_when_it_is_sent_again(
    content: str | None, thoughts: str | None, inputs: list[dict[str, object]]
) -> None:
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": json.dumps(held)}}
        for n, held in enumerate(inputs)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    message |= {"reasoning_content": thoughts} if thoughts else {}
    message |= {"tool_calls": calls} if calls else {}
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "ok"} for call in calls]
    turns = [{"role": "assistant", "content": said(message)["content"]}, {"role": "user", "content": results or "go"}]
    again = to_chat({"model": "m", "max_tokens": 1, "messages": turns})
    assert again.lacking == ()
    messages = again.body["messages"]
    assert isinstance(messages, list)
    told = messages[0]
    for call, held in zip(told.get("tool_calls", []), inputs, strict=True):
        assert json.loads(call["function"].pop("arguments")) == held
    for call in calls:
        del call["function"]["arguments"]  # type: ignore[attr-defined]
    assert told == {**message, "content": content or (None if calls else "")}
    assert [result["tool_call_id"] for result in messages[1:] if result["role"] == "tool"] == [c["id"] for c in calls]


@settings(deadline=None)
@given(st.text(max_size=30) | ARGUMENTS.map(json.dumps))
def test_arguments_are_read_whole_or_not_at_all(text: str) -> None:
    (block,) = said({"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": text}}]})["content"]
    read = read_arguments(text)
    assert block["input"] == (read if read is not None else {"INVALID_JSON": text} if text.strip() else {})


def test_arguments_nested_beyond_reason_are_kept_as_text() -> None:
    assert read_arguments('{"a":' * 100_000) is None


# --- errors ----------------------------------------------------------------------------------------------------------


def test_every_status_of_ours_has_anthropics_word() -> None:
    assert TYPE_OF_STATUS.keys() == CHAT_TYPES.keys()


@pytest.mark.parametrize("status", TYPE_OF_STATUS)
def test_problem_is_told_in_anthropics_shape_with_our_fields_beside(status: int) -> None:
    problem = Problem(status, "a_code", "A sentence.", Fault.TENANT_KEY, param="model", extra={"upstream_status": 500})
    body = json.loads(problem_body(problem, "req_1"))
    assert body == {
        "type": "error",
        "error": {
            "type": TYPE_OF_STATUS[status],
            "message": "A sentence.",
            "param": "model",
            "code": "a_code",
            "fault": "tenant_key",
            "upstream_status": 500,
        },
        "request_id": "req_1",
    }
    if body["error"]["type"] not in ("conflict_error", "request_too_large"):  # words that the SDK has no object for
        ErrorResponse.model_validate(body)


def test_account_without_credit_is_a_billing_error() -> None:
    problem = Problem(429, "insufficient_quota", "No credit.", Fault.TENANT_KEY)
    body = json.loads(problem_body(problem))
    assert (body["error"]["type"], body["error"]["code"]) == ("billing_error", "insufficient_quota")
    assert body["request_id"] is None


# --- what a native answer says ---------------------------------------------------------------------------------------


def test_native_stream_is_read_event_by_event() -> None:
    reader = MessagesReader()
    usage = {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 1, "service_tier": "standard"}
    reader.note("message_start", {"type": "message_start", "message": {"stop_reason": None, "usage": usage}})
    reader.note("ping", {"type": "ping"})
    assert (reader.started, reader.ended, reader.usage, reader.service_tier) == (False, False, usage, "standard")
    reader.note("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}})
    reader.note("an_event_of_later", {"type": "an_event_of_later", "message": {"usage": {"input_tokens": 99}}})
    totals = {"output_tokens": 7, "input_tokens": None}
    reader.note("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": totals})
    assert (reader.stop_reason, reader.usage) == ("end_turn", {**usage, "output_tokens": 7})
    before = reader.ended
    reader.note("message_stop", {})
    assert (before, reader.ended) == (False, True)
    assert reader.error is None


@pytest.mark.parametrize(
    ("name", "document", "error"),
    [
        ("error", {"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, "overloaded_error"),
        ("", {"type": "error", "error": {"type": "api_error", "message": "x"}}, "api_error"),
        ("error", {"type": "api_error", "message": "bare"}, "api_error"),
    ],
)
def test_native_error_is_seen_and_is_no_beginning(name: str, document: dict[str, Any], error: str) -> None:
    reader = MessagesReader()
    reader.note(name, document)
    assert reader.error is not None
    assert reader.error["type"] == error
    assert (reader.started, reader.ended) == (False, False)


@pytest.mark.parametrize(
    ("kind", "started"),
    [
        ("message_start", False),
        ("ping", False),
        ("an_event_of_later", False),
        ("content_block_start", True),
        ("content_block_delta", True),
        ("content_block_stop", True),
        ("message_delta", True),
        ("message_stop", True),
    ],
)
def test_answer_begins_with_its_first_content(kind: str, started: bool) -> None:
    reader = MessagesReader()
    reader.note(kind, {"type": kind})
    assert reader.started is started


def test_native_events_without_their_parts_say_nothing() -> None:
    reader = MessagesReader()
    reader.note("message_start", {"type": "message_start", "message": None})
    reader.note("message_delta", {"type": "message_delta", "delta": None, "usage": None})
    assert reader == MessagesReader(started=True)


def test_native_plain_answer_is_read_at_once() -> None:
    reader = MessagesReader()
    usage = {"input_tokens": 1, "output_tokens": 2, "service_tier": "priority"}
    reader.note_answer({"type": "message", "stop_reason": "refusal", "usage": usage})
    assert reader == MessagesReader(usage, True, None, True, "priority", "refusal")


def test_native_plain_answer_may_be_an_error_or_no_message() -> None:
    failed, odd = MessagesReader(), MessagesReader()
    failed.note_answer({"error": {"message": "x"}})
    odd.note_answer({"hello": 1})
    assert failed == MessagesReader(error={"message": "x"})
    assert odd == MessagesReader()
