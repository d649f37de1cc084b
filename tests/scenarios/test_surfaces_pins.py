"""What a Responses request refers to is kept by one provider: found again, or asked for, and never guessed."""

import json

import pytest

from gateway.fronts import RESPONSES_FRONT
from gateway.pins import Pin, Pins
from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import GROQ, OPENAI, Stage, named

PLAIN = told.RESPONSE_PLAIN
EVENTS = named(*told.RESPONSE_BEGUN, told.RESPONSE_DELTA, told.RESPONSE_ENDED)


def both(scene: Stage, content: bytes, *, streamed: bool = False) -> None:
    for name in ("openai", "groq"):
        if streamed:
            told.stream(scene.at[name], content)
        else:
            scene.at[name].plain(content)


def ask(
    scene: Stage, token: str, model: str, *, streamed: bool = False, **more: object
) -> tuple[int, dict[str, object]]:
    """The status, and the error if there is one."""
    answer = scene.post("/v1/responses", token, {"model": model, "input": "Hello", "stream": streamed, **more})
    return answer.status_code, {} if answer.status_code == 200 else answer.json()["error"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("first", "provider"), [(OPENAI, "openai"), (GROQ, "groq")])
@pytest.mark.parametrize("then", ["auto", "auto:best", "auto:cheapest"])
def test_auto_is_the_model_that_made_the_response(
    scene: Stage, streamed: bool, first: str, provider: str, then: str
) -> None:
    token = scene.token("openai", "groq")
    both(scene, EVENTS if streamed else PLAIN, streamed=streamed)
    assert ask(scene, token, first, streamed=streamed)[0] == 200
    scene.clear()
    both(scene, PLAIN)
    assert ask(scene, token, then, previous_response_id="resp_9")[0] == 200
    sent = scene.sent(provider).json()
    assert (scene.asked(), sent["model"]) == ([provider], first.partition("/")[2])
    assert sent["previous_response_id"] == "resp_9" and "provider" not in sent


def test_other_model_of_the_same_provider_may_go_on_and_another_provider_may_not(scene: Stage) -> None:
    token = scene.token("openai", "groq")
    both(scene, PLAIN)
    assert ask(scene, token, OPENAI)[0] == 200
    assert ask(scene, token, "openai/gpt-5-nano", previous_response_id="resp_9")[0] == 200
    scene.clear()
    status, error = ask(scene, token, GROQ, previous_response_id="resp_9")
    assert status in (400, 404) and not scene.asked()
    assert "provider.only" in str(error["message"])


def test_provider_that_the_caller_does_not_want_is_not_asked_for_what_it_keeps(scene: Stage) -> None:
    token = scene.token("openai", "groq")
    both(scene, PLAIN)
    assert ask(scene, token, OPENAI)[0] == 200
    scene.clear()
    both(scene, PLAIN)
    for only in (["groq"], ["groq", "deepseek"]):
        status, error = ask(scene, token, "auto", previous_response_id="resp_9", provider={"only": only})
        assert (status, error["param"]) == (400, "previous_response_id") and "openai keeps" in str(error["message"])
    assert not scene.asked()
    for only in (["openai"], ["groq", "openai"]):
        assert ask(scene, token, "auto", previous_response_id="resp_9", provider={"only": only})[0] == 200
    assert scene.asked() == ["openai"] * 2


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("previous_response_id", "resp_other", "previous_response_unknown"),
        ("conversation", "conv_other", "conversation_unknown"),
        ("conversation", {"id": "conv_other"}, "conversation_unknown"),
    ],
)
def test_unknown_reference_is_refused_where_more_than_one_provider_could_be_meant(
    scene: Stage, field: str, value: object, code: str
) -> None:
    token = scene.token("openai", "groq")
    status, error = ask(scene, token, "auto", streamed=False, **{field: value})
    assert (status, error["code"], error["param"], error["fault"]) == (400, code, field, "caller")
    assert "groq, openai" in str(error["message"]) and "provider/model" in str(error["message"])
    assert not scene.asked()


@pytest.mark.parametrize("named_by", [{"model": OPENAI}, {"model": "auto", "provider": {"only": ["openai"]}}])
def test_unknown_reference_goes_to_the_provider_that_is_named(scene: Stage, named_by: dict[str, object]) -> None:
    both(scene, PLAIN)
    body = {"input": "Hello", "previous_response_id": "resp_other", **named_by}
    assert scene.post("/v1/responses", scene.token("openai", "groq"), body).status_code == 200
    assert scene.asked() == ["openai"]


def test_unknown_reference_goes_to_the_only_provider_that_could_be_meant(scene: Stage) -> None:
    both(scene, PLAIN)
    token = scene.token("openai", "deepseek", "anthropic")
    assert ask(scene, token, "auto", previous_response_id="resp_other")[0] == 200
    assert scene.asked() == ["openai"]


def test_other_tenant_learns_nothing_of_it(scene: Stage) -> None:
    both(scene, PLAIN)
    assert ask(scene, scene.token("openai", "groq"), OPENAI)[0] == 200
    status, error = ask(scene, scene.token("openai", "groq"), "auto", previous_response_id="resp_9")
    assert (status, error["code"]) == (400, "previous_response_unknown")


def test_conversation_of_an_answer_is_remembered(scene: Stage) -> None:
    token = scene.token("openai", "groq")
    both(scene, PLAIN.replace(b'"x_own"', b'"conversation":{"id":"conv_7"},"x_own"'))
    assert ask(scene, token, GROQ)[0] == 200
    scene.clear()
    both(scene, PLAIN)
    assert ask(scene, token, "auto", conversation={"id": "conv_7"})[0] == 200
    assert scene.asked() == ["groq"]


REFERENCES: dict[str, dict[str, object]] = {
    "response": {"previous_response_id": "resp_9"},
    "conversation": {"conversation": "conv_7"},
    "item": {"input": [{"type": "item_reference", "id": "msg_1"}]},
    "sealed": {"input": [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}]},
}


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_goes_to_nobody_else_when_its_provider_fails(scene: Stage, name: str) -> None:
    token = scene.token("openai", "groq", "deepseek")
    body: dict[str, object] = {"input": "Hello", "models": [OPENAI, "openai/gpt-5-nano"], **REFERENCES[name]}
    answer = scene.post("/v1/responses", token, body)
    assert scene.asked() == ["openai"]
    assert answer.status_code == 502 and answer.json()["error"]["stopped_by"] == "provider_state"


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_is_refused_by_name_where_nobody_speaks_the_surface(scene: Stage, name: str) -> None:
    body = {"model": "auto", "input": "Hello", **REFERENCES[name]}
    answer = scene.post("/v1/responses", scene.token("deepseek", "anthropic"), body)
    field = next(iter(REFERENCES[name]))
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "unsupported_parameter", answer.text
    assert field in answer.json()["error"]["message"] and not scene.asked()


# --- the memory itself -----------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    def asked(name: str) -> Pin | None:
        body = json.dumps({"model": "auto", "input": "a", "previous_response_id": name}).encode()
        return pins.of("t", RESPONSES_FRONT.read(body, {"headers": []}))

    pins, pin = Pins(most=2), Pin("openai", "m")
    for name in ("resp_1", "resp_2", "resp_1", "resp_3"):
        pins.learn("t", json.dumps({"id": name}).encode(), pin, stream=False)
    assert [asked(name) for name in ("resp_1", "resp_2", "resp_3")] == [pin, None, pin]


@pytest.mark.parametrize("said", [b"", b"[]", b"{", b'{"id": 5}', b'{"id": ""}', b'{"id": "' + b"x" * 300 + b'"}'])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_no_answer_teaches_nothing(said: bytes, streamed: bool) -> None:
    pins = Pins()
    pins.learn("t", b"data: " + said + b"\n\n" if streamed else said, Pin("openai", "m"), stream=streamed)
    assert not pins._known
