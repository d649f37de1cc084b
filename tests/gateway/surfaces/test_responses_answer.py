"""A chat completion as an answer of the Responses API, held against the SDK's own types."""

from typing import Any

import orjson
import pytest
from openai.types.responses import Response
from pydantic import TypeAdapter

from gateway.errors import bad_request
from gateway.events import TokenUsage
from gateway.surfaces.responses_answer import answer, problem_body, usage_of
from tests.gateway.surfaces.spoken import USAGE, completion

STRICT = TypeAdapter(Response)
# What OpenAI's API document requires to be there, be it as null.
REQUIRED = (
    *("id", "object", "created_at", "error", "incomplete_details", "instructions", "model", "tools", "output"),
    *("parallel_tool_calls", "metadata", "tool_choice", "temperature", "top_p"),
)
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
    {"id": "", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]


def answered(message: dict[str, Any], body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = answer(completion(message, **more), body or {"input": "hello"}, answer_id="resp_a", created=7)
    STRICT.validate_python(made)
    assert made.keys() >= set(REQUIRED)
    assert orjson.dumps(made)
    return made


def test_a_text() -> None:
    made = answered({"content": "hi", "refusal": None, "tool_calls": None})
    part = {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}
    assert made["output"] == [
        {"id": "msg_a_0", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    ]
    assert (made["id"], made["object"], made["created_at"], made["model"]) == ("resp_a", "response", 7, "m")
    assert (made["status"], made["incomplete_details"], made["error"]) == ("completed", None, None)
    assert made["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 30,
    }


def test_what_was_asked_for_is_repeated_as_it_holds() -> None:
    body = {
        "input": "hello",
        "instructions": "be brief",
        "temperature": 0.5,
        "top_p": None,
        "metadata": {"a": "b"},
        "max_output_tokens": 50,
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_object"}},
        "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g", "strict": True}],
        "tool_choice": {"type": "function", "name": "f"},
        "store": None,
        "user": "u",
    }
    made = answered({"content": "hi"}, body)
    assert {name: made[name] for name in body if name not in ("input", "tools", "store")} == {
        name: value for name, value in body.items() if name not in ("input", "tools", "store")
    }
    assert made["tools"] == [
        {"type": "function", "name": "f", "parameters": None, "strict": False},
        {"type": "function", "name": "g", "parameters": None, "strict": True},
    ]
    assert made["store"] is False
    assert made["background"] is False


def test_what_was_not_asked_for_has_openais_defaults_or_null() -> None:
    made = answered({"content": "hi"})
    assert (made["tool_choice"], made["tools"], made["parallel_tool_calls"]) == ("auto", [], True)
    assert (made["temperature"], made["top_p"], made["metadata"]) == (None, None, {})
    assert (made["text"], made["truncation"]) == ({"format": {"type": "text"}}, "disabled")


def test_reasoning_text_and_calls_in_this_order() -> None:
    made = answered({"content": "I look.", "reasoning_content": "hm", "tool_calls": CALLS}, finish="tool_calls")
    assert [item["type"] for item in made["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert made["output"][0] == {
        "id": "rs_a_0",
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "status": "completed",
    }
    assert made["output"][2] == {
        "id": "fc_a_2",
        "type": "function_call",
        "status": "completed",
        "call_id": "c1",
        "name": "f",
        "arguments": '{"a": 1}',
    }
    assert made["output"][3]["call_id"] == "call_a_3", "a call without an id gets one"
    assert made["status"] == "completed"


@pytest.mark.parametrize("name", ["summary", "generate_summary"])
def test_reasoning_is_the_summary_for_who_asks_for_one(name: str) -> None:
    made = answered({"content": "hi", "reasoning": "hm"}, {"input": "q", "reasoning": {name: "auto"}})
    assert made["output"][0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert "content" not in made["output"][0]


def test_content_in_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "h"},
        {"type": "text", "text": "i"},
        {"type": "other"},
    ]
    made = answered({"content": parts})
    assert made["output"][0]["content"][0]["text"] == "hm"
    assert made["output"][1]["content"][0]["text"] == "hi"


def test_a_refusal() -> None:
    made = answered({"content": None, "refusal": "no"})
    assert made["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]


def test_citations_are_told_flat() -> None:
    cited = {"start_index": 0, "end_index": 2, "title": "t", "url": "https://x.example"}
    annotations = [{"type": "url_citation", "url_citation": cited}, {"type": "unknown"}]
    made = answered({"content": "hi", "annotations": annotations})
    assert made["output"][0]["content"][0]["annotations"] == [{"type": "url_citation", **cited}]


def test_logprobs_have_bytes_always() -> None:
    entry = {"token": "é", "logprob": -0.1, "bytes": None}
    top = {"token": "e", "logprob": -2.0, "bytes": [101]}
    made = answered({"content": "é"}, logprobs={"content": [entry | {"top_logprobs": [top]}], "refusal": None})
    assert made["output"][0]["content"][0]["logprobs"] == [
        {"token": "é", "logprob": -0.1, "bytes": [195, 169], "top_logprobs": [top]}
    ]


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("function_call", "completed", None),
        (None, "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_it_ended(finish: str | None, status: str, details: object) -> None:
    made = answered({"content": "hi", "reasoning": "hm"}, finish=finish)
    assert (made["status"], made["incomplete_details"]) == (status, details)
    assert [item["status"] for item in made["output"]] == ["completed", status]


def test_an_unknown_end_is_passed_on_and_is_no_success() -> None:
    made = answer(completion({"content": None}, "insufficient_mana"), {}, answer_id="resp_a", created=7)
    assert (made["status"], made["incomplete_details"]) == ("incomplete", {"reason": "insufficient_mana"})
    assert made["output"] == []


def test_a_completion_of_which_little_is_there() -> None:
    made = answer({"choices": [], "service_tier": "flex"}, {"input": "q"}, answer_id="resp_a", created=7)
    STRICT.validate_python(made)
    assert (made["output"], made["usage"], made["service_tier"]) == ([], None, "flex")
    made = answer({"choices": [{"message": None}], "usage": {"prompt_tokens": 3}}, {}, answer_id="resp_a", created=7)
    STRICT.validate_python(made)
    assert made["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }


def test_hosted_tools_are_repeated_as_they_came() -> None:
    made = answered({"content": "hi"}, {"input": "q", "tools": [{"type": "web_search"}]})
    assert made["tools"] == [{"type": "web_search"}]


def test_the_counts_of_a_native_answer() -> None:
    native = {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 30,
    }
    assert usage_of(native, "flex") == TokenUsage(
        20, 10, cached_input_tokens=5, cache_write_tokens=2, reasoning_tokens=4, service_tier="flex"
    )
    assert usage_of({"input_tokens": 1, "output_tokens": 2}) == TokenUsage(1, 2)
    assert usage_of({}) is None
    assert usage_of({"input_tokens": 10**13, "output_tokens": 1}) is None


def test_counts_said_in_both_ways_are_the_same() -> None:
    made = answered({"content": "hi"})
    counted = usage_of(made["usage"])
    assert counted is not None
    assert (counted.input_tokens, counted.output_tokens) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])


def test_an_error_is_told_as_everywhere() -> None:
    problem = bad_request("no", param="input").problem
    assert orjson.loads(problem_body(problem))["error"]["param"] == "input"
