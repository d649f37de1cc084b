"""What no provider is sent on any surface: names that libraries listen to, and spellings that readers of JSON disagree
about. And the limits that are sent are those that were judged."""

import json
from collections.abc import Iterator

import pytest

from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import CLAUDE, DEEPSEEK, EMBEDDING, OPENAI, Stage, stage

HELLO = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": OPENAI, "messages": HELLO},
    "/v1/completions": {"model": OPENAI, "prompt": "Hello"},
    "/v1/embeddings": {"model": EMBEDDING, "input": "Hello"},
    "/v1/responses": {"model": OPENAI, "input": "Hello"},
    "/v1/messages": {"model": CLAUDE, "messages": HELLO, "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": CLAUDE, "messages": HELLO},
}
LIBRARIES = ("api_key", "api_base", "base_url", "extra_headers", "callbacks", "fallbacks", "mock_response", "timeout")
SPELLINGS = (
    "Model",
    "MAX_TOKENS",
    "max_to\N{KELVIN SIGN}ens",
    "\N{LATIN SMALL LETTER LONG S}tream",
    "Input",
    "Messages",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("gw")) as running:
        yield running


@pytest.fixture
def scene(shared: Stage) -> Stage:
    shared.clear()
    return shared


@pytest.fixture(scope="module")
def token(shared: Stage) -> str:
    return shared.token()


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
