"""A 400 names the caller's own field on every surface, also where chat knows it under another name; in `param`, and in
the message as far as that names the field."""

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.events import Endpoint
from gateway.surfaces.own_fields import NAMES, own_name
from tests.scenarios.surfaces import CLAUDE, DEEPSEEK, EMBEDDING, Stage, stage

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "additionalProperties": False}
IMAGE = "https://images.example/a.png"
HUGE = 10**7
FAR = "word " * 600_000
Case = tuple[str, dict[str, Any], str]
CASES: dict[str, Case] = {
    "responses: an image by URL": (
        "/v1/responses",
        {"model": CLAUDE, "input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}]},
        "input",
    ),
    "responses: a schema that Claude's wire does not carry": (
        "/v1/responses",
        {
            "model": CLAUDE,
            "input": "a",
            "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
        },
        "text.format",
    ),
    "responses: an effort that Claude's wire does not carry": (
        "/v1/responses",
        {"model": CLAUDE, "input": "a", "reasoning": {"effort": "minimal"}},
        "reasoning.effort",
    ),
    "responses: a limit that is too large": (
        "/v1/responses",
        {"model": "auto", "input": "a", "max_output_tokens": HUGE},
        "max_output_tokens",
    ),
    "responses: an input that is too long": ("/v1/responses", {"model": CLAUDE, "input": FAR}, "input"),
    "messages: a limit that is too large": (
        "/v1/messages",
        {"model": "auto", "messages": [{"role": "user", "content": "a"}], "max_tokens": HUGE},
        "max_tokens",
    ),
    "chat: a limit under either name": (
        "/v1/chat/completions",
        {"model": "auto", "messages": [{"role": "user", "content": "a"}], "max_completion_tokens": HUGE},
        "max_completion_tokens",
    ),
    "chat: a schema": (
        "/v1/chat/completions",
        {
            "model": CLAUDE,
            "messages": [{"role": "user", "content": "a"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
        },
        "response_format",
    ),
    "completions: a prompt that is too long": ("/v1/completions", {"model": CLAUDE, "prompt": FAR}, "prompt"),
    "completions: what its wire does not carry": (
        "/v1/completions",
        {"model": CLAUDE, "prompt": "a", "seed": 1},
        "seed",
    ),
    "embeddings: an input that is too long": ("/v1/embeddings", {"model": EMBEDDING, "input": FAR}, "input"),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("gw")) as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_param_is_the_callers_own_field(scene: Stage, name: str) -> None:
    path, body, param = CASES[name]
    reply = scene.post(path, scene.token(), body)
    error = reply.json()["error"]
    assert reply.status_code == 400 and error["param"] == param, error
    assert "`messages" not in error["message"] or "messages" in body


def test_a_name_that_a_provider_says_is_translated_too(scene: Stage) -> None:
    scene.at["deepseek"].plain(
        '{"error": {"message": "too hot", "type": "invalid_request_error", "param": "max_tokens"}}', "400 Bad Request"
    )
    body = {"model": DEEPSEEK, "input": "a", "max_output_tokens": 9}
    error = scene.post("/v1/responses", scene.token("deepseek"), body).json()["error"]
    assert (error["code"], error["param"]) == ("provider_rejected_request", "max_output_tokens")


@pytest.mark.parametrize("endpoint", NAMES)
def test_a_field_that_the_body_has_keeps_its_name(endpoint: Endpoint) -> None:
    for chats, own in NAMES[endpoint].items():
        assert own_name(f"{chats}[0].x", endpoint, {chats: 1}) == f"{chats}[0].x"
        assert [own_name(chats, endpoint, {name.partition(".")[0]: 1}) for name in own] == list(own)
        assert own_name(chats, endpoint, {}) == chats
    assert own_name("x_unknown", endpoint, {}) == "x_unknown"
