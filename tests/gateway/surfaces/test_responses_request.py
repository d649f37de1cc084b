"""A Responses request as chat completions: nothing is dropped without a word. The rules are rows of responses.toml."""

import json
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from gateway.chat_request import read_chat_request
from gateway.errors import ApiError
from gateway.surfaces.responses_request import looks_like_responses, mixed_to_chat, to_chat
from gateway.surfaces.translation import Translation

ROWS = tomllib.loads(Path("tests/vectors/responses.toml").read_text(encoding="utf-8"))["row"]
HELLO = [{"role": "user", "content": "hello"}]


def body_of(row: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(row["body"])
    return body if "input" in body or "messages" in body else {"input": "hello", **body}


def translated(row: dict[str, Any]) -> Translation:
    return (mixed_to_chat if row.get("endpoint") == "chat" else to_chat)(body_of(row))


def rows(kind: str, *, present: bool = True) -> list[Any]:
    return [pytest.param(row, id=row["situation"]) for row in ROWS if (kind in row) is present]


@pytest.mark.parametrize("row", rows("wrong", present=False))
def test_each_field_is_carried_or_named(row: dict[str, Any]) -> None:
    translation = translated(row)
    chat = dict(translation.body)
    assert chat.pop("messages") == (json.loads(row["messages"]) if "messages" in row else HELLO)
    assert chat == json.loads(row.get("chat", "{}"))
    assert [refused.param for refused in translation.lacking] == row.get("lacking", [])


@pytest.mark.parametrize("row", rows("wrong"))
def test_a_wrong_type_is_the_callers_mistake_by_the_callers_name(row: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as raised:
        translated(row)
    assert raised.value.problem.status == 400
    assert raised.value.problem.param == row["wrong"]
    assert f"`{row['wrong']}`" in raised.value.problem.message


@pytest.mark.parametrize("row", rows("wrong", present=False))
def test_what_is_made_passes_the_checks_of_a_callers_chat_request(row: dict[str, Any]) -> None:
    chat = translated(row).body
    known = {name: value for name, value in chat.items() if name != "text"}  # a chat caller's own unknown field
    read_chat_request(orjson.dumps({"model": "m", **known}))


@pytest.mark.parametrize("row", rows("lacking"))
def test_each_sentence_names_the_field_and_what_would_help(row: dict[str, Any]) -> None:
    for refused in translated(row).lacking:
        assert refused.sentence.startswith(f"chat completions cannot carry this request: `{refused.param}` ")
        posted_here = row.get("endpoint") == "chat"
        end = "post it to /v1/responses." if posted_here else "ask for a provider that speaks the Responses API."
        assert refused.sentence.endswith(f", or {end}")


def test_the_body_is_not_changed() -> None:
    for row in (each for each in ROWS if "wrong" not in each):
        body = body_of(row)
        before = json.dumps(body)
        (mixed_to_chat if row.get("endpoint") == "chat" else to_chat)(body)
        assert json.dumps(body) == before


@pytest.mark.parametrize("name", sorted({*ResponseCreateParamsBase.__annotations__, "stream"}))
def test_every_field_of_the_sdk_is_decided_on_purpose(name: str) -> None:
    """Whatever it holds, it is never merely something unknown."""
    values: tuple[object, ...] = ("x", [{}], {"x": 1})
    for value in values:
        try:
            lacking = to_chat({"input": "hello", name: value}).lacking
        except ApiError:
            continue
        assert not [refused for refused in lacking if refused.param == name and "is not known" in refused.sentence]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"input": "hello"}, True),
        ({"input": [{"role": "user", "content": "x"}], "messages": None}, True),
        ({"messages": HELLO}, False),
        ({"messages": HELLO, "input": "hello"}, False),
        ({}, False),
        ({"messages": HELLO, "tools": [{"type": "function", "name": "f"}]}, True),
        ({"messages": HELLO, "tools": [{"type": "custom", "name": "f"}]}, True),
        ({"messages": HELLO, "tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ({"messages": HELLO, "tools": [{"type": "custom", "custom": {"name": "f"}}, "x", 1]}, False),
        ({"messages": HELLO, "tools": "x"}, False),
        ({"messages": HELLO, "tool_choice": {"type": "function", "name": "f"}}, True),
        ({"messages": HELLO, "tool_choice": {"type": "function", "function": {"name": "f"}}}, False),
        ({"messages": HELLO, "tool_choice": "auto"}, False),
    ],
)
def test_a_body_for_the_other_endpoint_is_recognised(body: dict[str, Any], expected: bool) -> None:
    assert looks_like_responses(body) is expected
