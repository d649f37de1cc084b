"""What a translated wire carries: the rules as rows, and each accepted row sent through LiteLLM to the sandbox."""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.chat_request import ChatRequest, read_chat_request
from gateway.errors import ApiError
from gateway.finish_reasons import finish_reason
from gateway.litellm_door import without_empty_content
from gateway.sandbox.server import SandboxServer
from gateway.translation import untranslatable
from gateway.translation_rules import RULES, asks_nothing

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
VECTORS = tomllib.loads((Path(__file__).parents[1] / "vectors" / "translation.toml").read_text("utf-8"))
MODELS = {"anthropic": "claude-haiku-4-5", "gemini": "gemini-2.5-flash"}
BASES = {"anthropic": "", "gemini": "/v1beta"}
Row = dict[str, Any]


def rows(kind: str) -> list[Row]:
    """A row for each wire that a vector names."""
    return [
        {**row, "wire": wire, "model": row.get("model") or MODELS.get(wire, "m")}
        for row in VECTORS[kind]
        for wire in row.get("wires", MODELS)
    ]


def named(row: Row) -> str:
    return f"{row['wire']}: {row['situation']}"


def request_of(row: Row) -> ChatRequest:
    body = json.loads(row["body"].replace("@PNG@", PNG))
    return read_chat_request(
        json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hello"}], **body}).encode()
    )


@pytest.mark.parametrize("row", rows("accepted"), ids=named)
def test_a_request_is_taken_when_its_wire_carries_all_of_it(row: Row) -> None:
    assert untranslatable(request_of(row), row["wire"], row["model"]) is None


@pytest.mark.parametrize("row", rows("refused"), ids=named)
def test_a_request_is_refused_by_name_when_its_wire_would_lose_some_of_it(row: Row) -> None:
    refused = untranslatable(request_of(row), row["wire"], row["model"])
    assert refused is not None
    assert refused.param == row["param"]
    assert f"`{row['param']}`" in refused.sentence
    assert row.get("helps", "; ") in refused.sentence


def test_every_parameter_that_is_carried_has_an_accepted_row() -> None:
    for wire, rules in RULES.items():
        sent = {name for row in rows("accepted") if row["wire"] == wire for name in request_of(row).parameters}
        assert set(rules.parameters) <= sent, wire


def test_the_model_is_read_from_the_request_when_it_is_not_given() -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "frequency_penalty": 0.5}
    asked = {
        model: read_chat_request(json.dumps({"model": model, **body}).encode())
        for model in ("auto", "google/gemini-2.5-pro")
    }
    assert untranslatable(asked["google/gemini-2.5-pro"], "gemini") is None
    assert untranslatable(asked["auto"], "gemini") is not None


def test_a_body_with_junk_anywhere_is_answered_and_never_an_exception() -> None:
    tried = 0
    for row in rows("accepted"):
        for body in with_junk(json.loads(row["body"].replace("@PNG@", PNG))):
            if not isinstance(body, dict):
                continue
            text = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hello"}], **body})
            try:
                request = read_chat_request(text.encode())
            except ApiError:
                continue
            untranslatable(request, row["wire"], row["model"])
            tried += 1
    assert tried > 1000


def with_junk(value: Any) -> Iterator[Any]:
    """The value with each node in turn replaced by what does not belong there."""
    yield from (None, 5, "", "x", [], [None], {}, {"type": {}}, {"type": [{}]}, [[{}]])
    for key in value if isinstance(value, dict) else []:
        yield from ({**value, key: junk} for junk in with_junk(value[key]))
    for index in range(len(value)) if isinstance(value, list) else []:
        yield from ([*value[:index], junk, *value[index + 1 :]] for junk in with_junk(value[index]))


@pytest.mark.slow
def test_all_of_an_accepted_request_and_nothing_else_arrives_upstream(sandbox: SandboxServer) -> None:
    sent = [{**row, "request": request_of(row)} for row in rows("accepted")]
    lines = [
        {
            "prefix": row["wire"],
            "model": row["model"],
            "base": sandbox.url + BASES[row["wire"]],
            "body": {
                "messages": sent_by(row["request"]),
                **{k: v for k, v in row["request"].parameters.items() if not asks_nothing(k, v)},
            },
        }
        for row in sent
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.gateway.translated"],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {named(row): error for row, error in zip(sent, told["errors"], strict=True) if error} == {}
    assert told["opened"] == [sandbox.url.removeprefix("http://")]
    arrived = sandbox.requests()
    assert len(arrived) == len(sent)
    wrong = {named(row): wrong for row, one in zip(sent, arrived, strict=True) if (wrong := differences(row, one.body))}
    assert wrong == {}


def differences(row: Row, upstream: Any) -> list[str]:
    """What was lost and what was added on the way."""
    request: ChatRequest = row["request"]
    said, heard = Counter(said_in(sent_by(request))), Counter(heard_in(upstream))
    if row["wire"] == "gemini":
        heard.pop("skip_thought_signature_validator", None)
    found = [f"lost {text!r}" for text in said - heard] + [f"added {text!r}" for text in heard - said]
    found += lost_of_tools(request.parameters.get("tools"), upstream)
    carried = upstream | upstream.get("generationConfig", {}) if row["wire"] == "gemini" else upstream
    wanted = json.loads(row.get("sends", "{}"))
    found += [] if holds(carried, wanted) else [f"not sent {wanted}: {carried}"]
    schema = (request.parameters.get("response_format") or {}).get("json_schema", {}).get("schema")  # type: ignore[attr-defined]
    return found + ([] if schema is None or schema in objects(upstream) else [f"changed {schema}"])


def sent_by(request: ChatRequest) -> list[dict[str, object]]:
    """The messages as they go to LiteLLM."""
    return [without_empty_content(message) for message in request.messages]


def said_in(messages: list[dict[str, object]]) -> Iterator[str]:
    """The texts, data and arguments of a conversation in OpenAI's shape."""
    for message in messages:
        for key in ("content", "reasoning_content"):
            yield from said_by(message.get(key))
        yield from leaves(message.get("cache_control", {}))
        for call in message.get("tool_calls") or []:  # type: ignore[attr-defined]
            yield from leaves(json.loads(call["function"]["arguments"]))
            yield from leaves(call.get("cache_control", {}))


def said_by(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else []:
        inner = part[part["type"]]
        if isinstance(inner, str):
            yield inner
        else:
            yield (inner.get("url") or inner.get("file_data") or inner.get("data")).rpartition(",")[2]
        yield from leaves(part.get("cache_control", {}))


STRUCTURE = {"role", "type", "media_type", "mime_type", "id", "tool_use_id", "name", "thoughtSignature"}


def heard_in(upstream: Any) -> Iterator[str]:
    """The same of what arrived, from wherever the wire holds them."""
    for field in ("system", "messages", "system_instruction", "contents"):
        yield from leaves(upstream.get(field, []), STRUCTURE)
    for mark in objects({key: upstream.get(key) for key in ("system", "messages")}):
        if isinstance(mark, dict) and isinstance(mark.get("cache_control"), dict):
            yield mark["cache_control"]["type"]


def leaves(value: Any, skipped: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    if isinstance(value, str):
        yield value
    for key, held in value.items() if isinstance(value, dict) else []:
        if key not in skipped:
            yield from leaves(held, skipped)
    for held in value if isinstance(value, list) else []:
        yield from leaves(held, skipped)


def objects(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for held in value.values() if isinstance(value, dict) else value:
            yield from objects(held)


def lost_of_tools(tools: Any, upstream: Any) -> list[str]:
    """A tool arrives with its name, description, parameters and mark, and no tool arrives that was not sent."""
    arrived = [one for one in upstream.get("tools", []) if "web_search" not in str(one) and "googleSearch" not in one]
    declared = [f for one in arrived for f in one.get("function_declarations", [one])]
    found = [] if len(declared) == len(tools or []) else [f"tools {declared}"]
    for tool, there in zip(tools or [], declared, strict=False):
        function = tool["function"]
        found += [f"lost {key}" for key in ("name", "description") if function.get(key) != there.get(key)]
        schema = there.get("input_schema", there.get("parameters"))
        asked = {key: value for key, value in (function.get("parameters") or {}).items() if key != "$schema"}
        if asked and asked != schema:
            found.append(f"changed {asked} into {schema}")
        found += ["lost a mark"] if tool.get("cache_control") != there.get("cache_control") else []
    return found


def holds(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(key in there and holds(there[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(there, list) and len(there) == len(wanted) and all(map(holds, there, wanted))
    return bool(there == wanted)


@pytest.mark.parametrize(
    ("prefix", "word", "reason"),
    [
        ("anthropic", "end_turn", "stop"),
        ("anthropic", "stop_sequence", "stop"),
        ("anthropic", "max_tokens", "length"),
        ("anthropic", "model_context_window_exceeded", "length"),
        ("anthropic", "tool_use", "tool_calls"),
        ("anthropic", "refusal", "content_filter"),
        ("anthropic", "pause_turn", "pause_turn"),
        ("gemini", "STOP", "stop"),
        ("gemini", "MAX_TOKENS", "length"),
        ("gemini", "SAFETY", "content_filter"),
        ("gemini", "RECITATION", "content_filter"),
        ("gemini", "BLOCKLIST", "content_filter"),
        ("gemini", "PROHIBITED_CONTENT", "content_filter"),
        ("gemini", "SPII", "content_filter"),
        ("gemini", "IMAGE_SAFETY", "content_filter"),
        ("gemini", "MALFORMED_FUNCTION_CALL", "malformed_function_call"),
        ("cohere_chat", "COMPLETE", "stop"),
        ("cohere_chat", "STOP_SEQUENCE", "stop"),
        ("cohere_chat", "MAX_TOKENS", "length"),
        ("cohere_chat", "TOOL_CALL", "tool_calls"),
        ("cohere_chat", "TIMEOUT", "timeout"),
        ("another", "Odd", "Odd"),
    ],
)
def test_a_finish_reason_is_openais_word_or_the_wires_own(prefix: str, word: str, reason: str) -> None:
    assert finish_reason(word, prefix) == reason
