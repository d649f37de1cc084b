"""A Messages request as a chat completion: each row of the vectors, and what holds for any request."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chat_request import read_chat_request
from gateway.errors import ApiError
from gateway.surfaces.messages_native import native_headers, unsigned_thought
from gateway.surfaces.messages_request import LACKING, count_body, to_chat
from gateway.translation import untranslatable

VECTORS = tomllib.loads((Path(__file__).parents[2] / "vectors" / "messages.toml").read_text("utf-8"))
ASKED = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
CHAT = {"model": "m", "max_completion_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
Row = dict[str, Any]


def rows(kind: str) -> list[Any]:
    return [pytest.param(row, id=row["situation"]) for row in VECTORS[kind]]


def body_of(row: Row) -> dict[str, object]:
    return {**ASKED, **json.loads(row["body"])}


def chat_of(row: Row) -> dict[str, object]:
    held = {**CHAT, **json.loads(row["chat"])}
    return {name: value for name, value in held.items() if value is not None}


def accepted(chat: object) -> None:
    """The chat request passes the checks of any caller's."""
    read_chat_request(json.dumps(chat).encode())


@pytest.mark.parametrize("row", rows("carried"))
def test_request_is_carried_whole(row: Row) -> None:
    translation = to_chat(body_of(row))
    assert translation.body == chat_of(row)
    assert translation.lacking == ()
    accepted(translation.body)


@pytest.mark.parametrize("row", rows("lacking"))
def test_what_chat_lacks_is_named_by_the_callers_field(row: Row) -> None:
    translation = to_chat(body_of(row))
    assert [refused.param for refused in translation.lacking] == row["params"]
    for refused in translation.lacking:
        assert refused.sentence.startswith(f"Chat completions cannot carry this request: `{refused.param}` ")
        assert "; " in refused.sentence
        assert refused.sentence.endswith(".")
    assert translation.body == chat_of(row)
    accepted(translation.body)


@pytest.mark.parametrize("row", rows("malformed"))
def test_malformed_field_is_refused_by_name(row: Row) -> None:
    with pytest.raises(ApiError) as caught:
        to_chat(body_of(row))
    assert caught.value.problem.status == 400
    assert caught.value.problem.param == row["param"]
    assert f"`{row['param']}`" in caught.value.problem.message


@pytest.mark.parametrize("name", LACKING)
def test_field_of_anthropic_alone_is_named_with_its_reason(name: str) -> None:
    lacking = to_chat({**ASKED, name: {"a": 1}}).lacking
    assert [(refused.param, LACKING[name] in refused.sentence) for refused in lacking] == [(name, True)]


def test_long_name_is_cut_in_the_sentence() -> None:
    (refused,) = to_chat({**ASKED, "x" * 70_000: 1}).lacking
    assert refused.param == "x" * 64 + "..."


def test_request_is_not_changed() -> None:
    body = {**ASKED, "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "citations": None}]}]}
    before = json.dumps(body)
    to_chat(body)
    assert json.dumps(body) == before


def test_counted_request_needs_no_limit() -> None:
    body = {"model": "m", "messages": ASKED["messages"], "system": "s"}
    assert count_body(body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
    }


def test_native_headers_travel_untouched_and_no_others() -> None:
    sent = [
        (b"authorization", b"Bearer wg_live_x"),
        (b"anthropic-beta", b"a-2025-01-01,b-2026-01-01"),
        (b"x-api-key", b"wg_live_x"),
        (b"anthropic-beta", b"c"),
        (b"anthropic-version", b"2026-10-21"),
        (b"anthropic-dangerous-direct-browser-access", b"true"),
    ]
    assert native_headers(sent) == [sent[1], sent[3], sent[4]]


def test_native_headers_name_a_version_where_the_caller_does_not() -> None:
    assert native_headers([(b"anthropic-beta", b"a")]) == [
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"a"),
    ]


def said(*blocks: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [*blocks]}]}


def test_thought_without_a_signature_keeps_a_request_from_anthropic() -> None:
    refused = unsigned_thought(said({"type": "text", "text": "a"}, {"type": "thinking", "signature": ""}))
    assert refused is not None
    assert refused.param == "messages[1].content[1]"
    assert refused.sentence.startswith("`messages[1].content[1]` is a thought ")


@pytest.mark.parametrize(
    "body", [said({"type": "thinking", "signature": "Eq=="}, "x"), {"messages": ["x", {}]}, {"messages": "x"}]
)
def test_other_requests_may_go_to_anthropic(body: dict[str, object]) -> None:
    assert unsigned_thought(body) is None


CLAUDE_CODE = {
    "model": "auto",
    "max_tokens": 32000,
    "stream": True,
    "metadata": {"user_id": "user_" + "0123456789abcdef" * 4 + "_account__session_1"},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "system": [
        {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "The folder is empty.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "tools": [
        {"name": name, "description": "d", "input_schema": {"type": "object", "properties": {}}, **more}
        for name, more in (("Bash", {}), ("mcp__files__read", {"eager_input_streaming": True}))
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "<env/>"}, {"type": "text", "text": "list"}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": "Bash", "input": {"command": "ls"}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": "exit 1",
                    "is_error": True,
                    "cache_control": {"type": "ephemeral"},
                }
            ],
        },
    ],
}


def test_what_claude_code_sends_is_carried_whole() -> None:
    translation = to_chat(CLAUDE_CODE)
    assert translation.lacking == ()
    assert set(translation.body) == {
        "model", "messages", "max_completion_tokens", "stream", "user", "reasoning_effort", "tools"
    }  # fmt: skip
    accepted(translation.body)


@pytest.mark.parametrize("wire", ["anthropic", "gemini"])
def test_conversation_with_tools_is_carried_on_to_translated_wires(wire: str) -> None:
    plain = {**CLAUDE_CODE, "system": "You are an agent."}
    for name in ("metadata", "output_config"):
        del plain[name]
    request = read_chat_request(json.dumps(to_chat(plain).body).encode())
    assert untranslatable(request, wire, "gemini-2.5-flash") is None


# --- any request -----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "x"])
SOURCES = st.fixed_dictionaries(
    {"type": st.sampled_from(["base64", "url", "text", "content", "file"])},
    optional={"data": st.text(max_size=3), "media_type": st.just("image/png"), "url": st.just("u"), "content": JSON},
)
BLOCKS = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "text": st.text(max_size=5),
        "source": SOURCES,
        "id": st.just("t"),
        "name": st.just("f"),
        "input": st.dictionaries(st.text(max_size=3), JSON, max_size=2),
        "tool_use_id": st.just("t"),
        "content": st.text(max_size=5) | st.lists(st.fixed_dictionaries({"type": TYPES, "text": st.text(max_size=3)})),
        "is_error": st.booleans(),
        "thinking": st.text(max_size=5),
        "signature": st.sampled_from(["", "s"]),
        "cache_control": JSON,
    },
)
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=5) | st.lists(BLOCKS)}
)
NAMES = st.sampled_from(
    [*LACKING, "system", "tools", "tool_choice", "thinking", "output_config", "metadata", "speed", "service_tier", "x"]
)


@settings(deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=4), st.dictionaries(NAMES, JSON, max_size=3))
def test_any_request_is_taken_as_chat_or_refused_by_name(turns: list[Any], fields: dict[str, object]) -> None:
    try:
        translation = to_chat({**ASKED, **fields, "messages": turns})
    except ApiError as refusal:
        assert refusal.problem.status == 400
        assert refusal.problem.param
        return
    accepted(translation.body)
    told = json.dumps(translation.body, ensure_ascii=False)
    carried = [block for turn in turns if isinstance(turn["content"], list) for block in turn["content"]]
    for block in carried:  # a text is never lost
        if block["type"] == "text":
            assert json.dumps(block["text"], ensure_ascii=False) in told
