"""What no provider is sent on any surface: names that libraries listen to, all that LiteLLM knows, and spellings that
readers of JSON disagree about. And the limits that are sent are those that were judged."""

import importlib
import inspect
import json

import pytest

from gateway import fronts
from gateway.errors import ApiError
from gateway.litellm_door import import_litellm
from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import CLAUDE, DEEPSEEK, EMBEDDING, OPENAI, Stage
from tests.scenarios.test_names_of_libraries import banned

HELLO = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": OPENAI, "messages": HELLO},
    "/v1/completions": {"model": OPENAI, "prompt": "Hello"},
    "/v1/embeddings": {"model": EMBEDDING, "input": "Hello"},
    "/v1/responses": {"model": OPENAI, "input": "Hello"},
    "/v1/messages": {"model": CLAUDE, "messages": HELLO, "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": CLAUDE, "messages": HELLO},
}
CHAT_OF_RESPONSES: dict[str, object] = {"model": OPENAI, "input": "Hello"}
READ: list[tuple[fronts.Front, dict[str, object]]] = [
    (fronts.CHAT_FRONT, BODIES["/v1/chat/completions"]),
    (fronts.CHAT_FRONT, CHAT_OF_RESPONSES),
    (fronts.COMPLETIONS_FRONT, BODIES["/v1/completions"]),
    (fronts.EMBEDDINGS_FRONT, BODIES["/v1/embeddings"]),
    (fronts.RESPONSES_FRONT, BODIES["/v1/responses"]),
    (fronts.MESSAGES_FRONT, BODIES["/v1/messages"]),
    (fronts.COUNT_FRONT, BODIES["/v1/messages/count_tokens"]),
]
LIBRARIES = ("api_key", "api_base", "base_url", "extra_headers", "callbacks", "fallbacks", "mock_response", "timeout")
SOME = ("api_key", "api_base", "extra_headers", "extra_body", "mock_response", "callbacks", "litellm_params")
SPELLINGS = (
    "Model",
    "MAX_TOKENS",
    "max_to\N{KELVIN SIGN}ens",
    "\N{LATIN SMALL LETTER LONG S}tream",
    "Input",
    "Messages",
)


@pytest.mark.parametrize("path", BODIES)
def test_names_that_nobody_may_read_are_refused_by_name(scene: Stage, token: str, path: str) -> None:
    for name in LIBRARIES + SPELLINGS:
        answer = scene.post(path, token, BODIES[path] | {name: "http://127.0.0.1:9/"})
        error = answer.json()["error"]
        assert answer.status_code == 400 and name in error["message"], (name, answer.text)
    assert scene.asked() == []


@pytest.mark.parametrize(
    "limits", ['"max_tokens":5,"max_completion_tokens":null', '"max_completion_tokens":5,"max_tokens":null']
)
def test_null_beside_a_limit_takes_it_away_from_nobody(scene: Stage, token: str, limits: str) -> None:
    scene.at["deepseek"].plain(told.CHAT_PLAIN)
    raw = f'{{"model":"{DEEPSEEK}","messages":{json.dumps(HELLO)},{limits}}}'
    assert scene.post("/v1/chat/completions", token, raw.encode()).status_code == 200
    assert scene.sent("deepseek").json()["max_tokens"] == 5


def test_answer_that_nobody_could_fetch_is_not_asked_for(scene: Stage, token: str) -> None:
    answer = scene.post("/v1/responses", token, BODIES["/v1/responses"] | {"background": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "background")
    assert scene.asked() == []


def refused_as(front: fronts.Front, body: dict[str, object], name: str, value: object) -> str | None:
    """The field that a surface's reader refuses as a library's."""
    try:
        front.read(json.dumps({**body, name: value}).encode(), {"headers": [], "type": "http"})
    except ApiError as error:
        problem = error.problem
        return problem.param if problem.code == "unsupported_parameter" and "is for a library" in str(error) else None
    return None


@pytest.mark.parametrize(("front", "body"), READ)
def test_every_surface_refuses_what_chat_refuses(front: fronts.Front, body: dict[str, object]) -> None:
    chat = READ[0]
    names = banned() | set(SOME) | set(inspect.signature(import_litellm().acompletion).parameters)
    names |= set(importlib.import_module("litellm.types.utils").all_litellm_params)
    of_libraries = {name for name in names if refused_as(*chat, name, "x") == name}
    assert len(of_libraries) > 90 and set(SOME) <= of_libraries
    assert [name for name in sorted(of_libraries) if refused_as(front, body, name, "x") != name] == []
    assert refused_as(front, body, "y" * 257, 1) == "y" * 64 + "..."
