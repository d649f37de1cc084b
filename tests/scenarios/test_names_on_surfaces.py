"""What chat refuses as a library's name, every other surface refuses too, by that name and before anything is sent."""

import importlib
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import fronts
from gateway.errors import ApiError
from gateway.litellm_door import import_litellm
from tests.scenarios.surfaces import CLAUDE, EMBEDDING, GROQ, OPENAI, Stage, stage
from tests.scenarios.test_names_of_libraries import banned

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": OPENAI, **HELLO}),
    "chat in the shape of responses": ("/v1/chat/completions", {"model": OPENAI, "input": "Hello"}),
    "completions": ("/v1/completions", {"model": OPENAI, "prompt": "Hello"}),
    "embeddings": ("/v1/embeddings", {"model": EMBEDDING, "input": "Hello"}),
    "responses": ("/v1/responses", {"model": GROQ, "input": "Hello"}),
    "messages": ("/v1/messages", {"model": CLAUDE, "max_tokens": 9, **HELLO}),
    "count_tokens": ("/v1/messages/count_tokens", {"model": CLAUDE, **HELLO}),
}
FRONTS = {
    "chat": fronts.CHAT_FRONT,
    "chat in the shape of responses": fronts.CHAT_FRONT,
    "completions": fronts.COMPLETIONS_FRONT,
    "embeddings": fronts.EMBEDDINGS_FRONT,
    "responses": fronts.RESPONSES_FRONT,
    "messages": fronts.MESSAGES_FRONT,
    "count_tokens": fronts.COUNT_FRONT,
}
SOME = ("api_key", "api_base", "extra_headers", "extra_body", "mock_response", "callbacks", "litellm_params")


def refused_as(surface: str, name: str, value: object) -> str | None:
    """The field that a surface's reader refuses as a library's."""
    _, body = BODIES[surface]
    try:
        FRONTS[surface].read(json.dumps({**body, name: value}).encode(), {"headers": [], "type": "http"})
    except ApiError as error:
        problem = error.problem
        return problem.param if problem.code == "unsupported_parameter" and "is for a library" in str(error) else None
    return None


@pytest.mark.parametrize("surface", BODIES)
def test_every_surface_refuses_what_chat_refuses(surface: str) -> None:
    names = banned() | set(SOME) | set(inspect.signature(import_litellm().acompletion).parameters)
    names |= set(importlib.import_module("litellm.types.utils").all_litellm_params)
    of_libraries = {name for name in names if refused_as("chat", name, "x") == name}
    assert len(of_libraries) > 90 and set(SOME) <= of_libraries
    own = FRONTS[surface].surface.own_names
    assert [name for name in sorted(of_libraries - own) if refused_as(surface, name, "x") != name] == []
    assert [name for name in sorted(own) if refused_as(surface, name, "x") is not None] == []
    assert refused_as(surface, "y" * 257, 1) == "y" * 64 + "..."


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("gw")) as running:
        yield running


@pytest.mark.parametrize("surface", BODIES)
def test_nothing_is_sent_and_the_error_has_the_shape_of_the_path(scene: Stage, surface: str) -> None:
    path, body = BODIES[surface]
    token = scene.token()
    for name in SOME:
        reply = scene.post(path, token, {**body, name: "https://x.example"})
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", name)
        assert (reply.json().get("type") == "error") is ("messages" in path) and not scene.asked()
