"""Text completions from a provider that only chats, over real HTTP and with OpenAI's SDK: plain, streamed, broken,
refused by name, and after a provider that speaks them has failed."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import CLAUDE, OPENAI, Rotation, Stage, named

PATH = "/v1/completions"
STREAM = named(*told.MESSAGE_BEGUN, *told.MESSAGE_DELTA, *told.MESSAGE_ENDED)


@pytest.fixture(scope="module")
def rotation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotation]:
    stages = Rotation(tmp_path_factory, every=12)
    yield stages
    stages.close()


@pytest.fixture
def scene(rotation: Rotation) -> Stage:
    return rotation.next()


def ask(scene: Stage, **more: Any) -> Any:
    return scene.post(PATH, scene.token("anthropic"), {"model": CLAUDE, "prompt": "Once", **more})


def test_plain_answer_is_a_text_completion(scene: Stage) -> None:
    scene.at["anthropic"].plain(told.MESSAGE_PLAIN)
    reply = ask(scene, max_tokens=9, temperature=0.5, stop=["x"], n=1, best_of=1, echo=False, suffix="", user=None)
    body = reply.json()
    assert reply.status_code == 200, reply.text
    assert body.pop("id").startswith("cmpl-") and body.pop("created") > 1_700_000_000
    usage = body.pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (11, 7)
    choice = {"text": "Hi é", "index": 0, "logprobs": None, "finish_reason": "stop"}
    assert body == {"object": "text_completion", "model": "exact", "choices": [choice]}
    sent: Any = scene.sent("anthropic").json()
    assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Once"}]}]
    assert (sent["max_tokens"], sent["temperature"], sent["stop_sequences"]) == (9, 0.5, ["x"])
    assert reply.headers["x-wardgate-cost-usd"] == "0.0000424"


@pytest.mark.parametrize("wants", [False, True])
def test_openai_sdk_reads_the_stream(scene: Stage, wants: bool) -> None:
    told.stream(scene.at["anthropic"], STREAM)
    options: Any = {"stream_options": {"include_usage": True}} if wants else {}
    with scene.gateway.client(scene.token("anthropic")) as client:
        stream = client.completions.create(model=CLAUDE, prompt=["Once"], stream=True, max_tokens=9, **options)
        chunks = list(stream)
    pieces = [chunk for chunk in chunks if chunk.choices]
    assert "".join(chunk.choices[0].text for chunk in pieces) == "Hi"
    assert [chunk.choices[0].finish_reason for chunk in pieces] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.object for chunk in chunks} == {"text_completion"}
    last = chunks[-1].usage
    assert (last is not None and last.completion_tokens == 7 and not chunks[-1].choices) is wants
    assert all(("usage" in chunk.model_fields_set) is wants and chunk.usage is None for chunk in pieces)


def test_stream_ends_with_the_mark_alone(scene: Stage) -> None:
    told.stream(scene.at["anthropic"], STREAM)
    reply = ask(scene, stream=True, max_tokens=9)
    assert reply.content.endswith(b"data: [DONE]\n\n") and reply.content.count(b"[DONE]") == 1


def test_broken_stream_says_so_and_has_no_end(scene: Stage) -> None:
    told.stream(scene.at["anthropic"], named(*told.MESSAGE_BEGUN, *told.MESSAGE_DELTA))
    reply = ask(scene, stream=True, max_tokens=9)
    last = json.loads(reply.content.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
    assert last["error"]["code"] == "provider_stream_truncated" and b"[DONE]" not in reply.content
    told.stream(scene.at["anthropic"], named(*told.MESSAGE_BEGUN, *told.MESSAGE_DELTA))
    with scene.gateway.client(scene.token("anthropic")) as client, pytest.raises(openai.APIError):
        list(client.completions.create(model=CLAUDE, prompt="Once", stream=True, max_tokens=9))


LACKS: dict[str, Any] = {
    "echo": True,
    "best_of": 2,
    "suffix": "end",
    "logprobs": 0,
    "prompt": ["a", "b"],
    "x_unknown": 1,
    "temperature": "hot",
    "stream_options": {"include_obfuscation": True},
}
MORE = [("prompt", [1, 2, 3]), ("prompt", [[1], [2]]), ("prompt", ""), ("logprobs", 5), ("best_of", True)]


@pytest.mark.parametrize(("name", "value"), [*LACKS.items(), *MORE])
def test_what_chat_cannot_carry_is_refused_by_name(scene: Stage, name: str, value: Any) -> None:
    reply = ask(scene, **{name: value}, stream=True)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "unsupported_parameter"), error
    assert error["param"].partition(".")[0] == name and f"`{name}" in error["message"] and not scene.asked()


def test_a_provider_that_speaks_completions_is_followed_by_one_that_chats(scene: Stage) -> None:
    scene.at["openai"].plain('{"error": {"message": "down"}}', "500 Internal Server Error")
    scene.at["anthropic"].plain(told.MESSAGE_PLAIN)
    body = {"model": OPENAI, "models": [CLAUDE], "prompt": "Once", "max_tokens": 9}
    reply = scene.post(PATH, scene.token("openai", "anthropic"), body)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["object"], reply.headers["x-wardgate-provider"]) == ("text_completion", "anthropic")
    scene.clear()
    scene.at["openai"].plain(told.COMPLETION_PLAIN)
    reply = scene.post(PATH, scene.token("openai", "anthropic"), body | {"suffix": "x", "logprobs": "odd"})
    assert reply.content == told.COMPLETION_PLAIN and scene.asked() == ["openai"]
