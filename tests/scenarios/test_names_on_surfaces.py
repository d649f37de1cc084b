"""What chat refuses as a library's name every other surface refuses too, of all the names that LiteLLM knows."""

import importlib
import inspect
import json
from typing import Any

import pytest

from gateway import fronts
from gateway.errors import ApiError
from gateway.litellm_door import import_litellm
from tests.scenarios.surfaces import CLAUDE, EMBEDDING, GROQ, OPENAI
from tests.scenarios.test_names_of_libraries import banned

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": OPENAI, **HELLO},
    "chat in the shape of responses": {"model": OPENAI, "input": "Hello"},
    "completions": {"model": OPENAI, "prompt": "Hello"},
    "embeddings": {"model": EMBEDDING, "input": "Hello"},
    "responses": {"model": GROQ, "input": "Hello"},
    "messages": {"model": CLAUDE, "max_tokens": 9, **HELLO},
    "count_tokens": {"model": CLAUDE, **HELLO},
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
    try:
        FRONTS[surface].read(json.dumps({**BODIES[surface], name: value}).encode(), {"headers": [], "type": "http"})
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
    assert [name for name in sorted(of_libraries) if refused_as(surface, name, "x") != name] == []
    assert refused_as(surface, "y" * 257, 1) == "y" * 64 + "..."
