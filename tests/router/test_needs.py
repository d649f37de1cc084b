"""What a body asks of a model."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.catalogue import Capability
from router.needs import read_needs

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("body", "capabilities"),
    [
        ({}, set()),
        ({"tools": []}, set()),
        ({"tools": [TOOL]}, {Capability.TOOLS}),
        ({"functions": [{"name": "f"}]}, {Capability.TOOLS}),
        ({"tools": [TOOL], "parallel_tool_calls": True}, {Capability.TOOLS, Capability.PARALLEL_TOOLS}),
        ({"tools": [TOOL], "parallel_tool_calls": False}, {Capability.TOOLS}),
        ({"parallel_tool_calls": True}, set()),
        ({"tool_choice": "auto"}, set()),
        ({"tool_choice": "none"}, set()),
        ({"tool_choice": "required"}, {Capability.TOOL_CHOICE}),
        ({"tool_choice": {"type": "function"}}, {Capability.TOOL_CHOICE}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": {"type": "json_object"}}, set()),
        ({"response_format": {"type": "json_schema"}}, {Capability.JSON_SCHEMA}),
        ({"response_format": "json_schema"}, set()),
        ({"modalities": ["text"]}, set()),
        ({"modalities": ["text", "audio"]}, {Capability.AUDIO_OUTPUT}),
        ({"modalities": "audio"}, set()),
        ({"reasoning_effort": "high"}, {Capability.REASONING}),
        ({"reasoning_effort": "none"}, set()),
        ({"reasoning_effort": None}, set()),
        ({"web_search_options": {}}, {Capability.WEB_SEARCH}),
        (user({"type": "text", "text": "hi"}), set()),
        (user({"type": "image_url", "image_url": {"url": "x"}}), {Capability.VISION}),
        (user({"type": "input_audio"}, {"type": "file"}), {Capability.AUDIO_INPUT, Capability.PDF_INPUT}),
        (user({"type": "video_url"}), {Capability.VIDEO_INPUT}),
        (user({"type": ["odd"]}, "odd", None), set()),
    ],
)
def test_abilities_are_read_from_the_body(body: dict[str, Any], capabilities: set[Capability]) -> None:
    assert read_needs(body).capabilities == capabilities


@pytest.mark.parametrize(
    ("asked", "fees"),
    [
        ({"messages": [], "tools": [TOOL], "temperature": 0}, False),
        ({"input": "Hi", "tools": [{"type": "web_search"}]}, True),
        ({"messages": [], "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, True),
        ({"input": "Hi", "tools": [TOOL, {"type": "code_interpreter", "container": {"type": "auto"}}]}, True),
        ({"messages": [], "search_parameters": {"mode": "auto"}}, True),
        ({"messages": [], "search_parameters": {}}, True),
        ({"messages": [], "enable_search": False}, False),
        (
            {"messages": [], "a_field_that_is_new": 1},
            False,
        ),  # a hard budget refuses it; a sum does not lose a call by it
    ],
)
def test_what_is_charged_apart_from_tokens_is_known_without_a_budget(asked: dict[str, Any], fees: bool) -> None:
    read = read_needs({"messages": []})
    found = read.with_fees(asked)
    assert found.beyond.charged is found.beyond.fees is fees and found.size is None
    assert (found is read) is not fees
    assert found.corrected(7).beyond.fees is fees


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, None),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "max_completion_tokens": None}, 10),
        ({"max_tokens": 0}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "10"}, None),
    ],
)
def test_the_limit_of_the_answer_is_the_newer_field_else_the_older(body: dict[str, Any], expected: int | None) -> None:
    assert read_needs(body).max_output_tokens == expected


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (None, False), ("yes", False)])
def test_a_stream_is_asked_for_by_true_alone(value: Any, expected: bool) -> None:
    assert read_needs({"stream": value}).stream is expected


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, 0),
        ({"messages": "hello"}, 0),
        ({"messages": ["hello", None]}, 0),
        ({"messages": [{"role": "user"}]}, 4),
        ({"messages": [{"role": "user", "content": "12345678"}]}, 4 + 2),
        ({"messages": [{"role": "user", "content": "123456789"}]}, 4 + 3),
        ({"messages": [{"role": "user", "content": "\u4f60\u597d"}]}, 4 + 2),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 4 + 1),
        ({"messages": [{"role": "user", "content": 7}]}, 4),
        (user({"type": "text", "text": "1234"}, {"type": "text", "text": "5678"}), 4 + 2),
        (user({"type": "text", "text": 5}), 4),
        (user({"type": "image_url", "image_url": {"url": "data:" + "x" * 100_000}}), 4 + 765),
        (user({"type": "file", "file": {"file_data": "x" * 100_000}}), 4 + 1500),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "12345678"}]}]}, 4 + 5),
        ({"tools": [{"a": 1, "b": True, "c": None}]}, 6),
    ],
)
def test_the_input_is_estimated_from_what_the_model_reads(body: dict[str, Any], tokens: int) -> None:
    assert read_needs(body).input_tokens == tokens


def test_tools_and_schemas_count_as_input() -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"description": "x" * 4000}}}
    assert read_needs({"response_format": schema}).input_tokens > 1000
    assert read_needs({"tools": [TOOL] * 100}).input_tokens > 1000


def test_the_depth_of_a_body_does_not_matter() -> None:
    deep: Any = "x" * 400
    for _ in range(50_000):
        deep = [deep]
    assert read_needs({"tools": deep}).input_tokens > 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["messages", "tools", "functions", "tool_choice", "response_format", "modalities", "reasoning_effort", "max_tokens"]
)


@given(st.dictionaries(FIELDS, JSON))
def test_no_body_raises(body: dict[str, Any]) -> None:
    assert read_needs(body).input_tokens >= 0


@given(st.text(max_size=200), st.text(max_size=50))
def test_a_longer_text_is_never_estimated_shorter(text: str, more: str) -> None:
    short, long = ({"messages": [{"content": each}]} for each in (text, text + more))
    assert read_needs(short).input_tokens <= read_needs(long).input_tokens


@pytest.mark.parametrize(
    ("tier", "service"),
    [("flex", "flex"), ("priority", "priority"), ("auto", "default"), ("default", "default"), ("x", "default")],
)
def test_service_tier_is_read(tier: str, service: str) -> None:
    assert read_needs({"messages": [], "service_tier": tier}).service.value == service
    assert read_needs({"messages": [], "service_tier": 5}).service.value == "default"
