"""`Idempotency-Key` over the wire: the SDKs of OpenAI and Anthropic, both lanes, replays, streams and refusals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from tests.harness import RunningGateway, eventually, sandbox_config

KEYS = {f"{name}_API_KEY": f"sk-sandbox-{name.lower()}" for name in ("MINIMAX", "ANTHROPIC", "OPENAI")}
PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
MODELS = ("minimax/MiniMax-M2", "anthropic/claude-haiku-4-5")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer) -> Iterator[httpx.Client]:
    with RunningGateway(tmp_path_factory.mktemp("repeats"), sandbox_config(running_sandbox.url)) as gateway:
        token = gateway.tenant("acme", "team", KEYS)
        with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
            yield http


def body(path: str, model: str, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "Say the word"}]
    asked = (
        {"input": "Say the word", "store": False} if path == "/v1/responses" else {"messages": said, "max_tokens": 50}
    )
    return {"model": model, **asked, **more}


def ours(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-wardgate-")}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_repeat_is_answered_alike_and_asked_once(
    client: httpx.Client, sandbox: SandboxServer, path: str, model: str
) -> None:
    named = {"idempotency-key": f"{path}-{model}"}
    first, second = (client.post(path, json=body(path, model), headers=named) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200), first.text
    assert second.content == first.content
    assert ours(second) == ours(first) | {"x-wardgate-replayed": "true"}
    assert len(sandbox.requests()) == 1
    other = client.post(path, json=body(path, model, temperature=0.5), headers=named)
    assert other.status_code == 409 and "idempotency" in other.text.lower()
    again = client.post(path, json=body(path, model))
    assert again.status_code == 200 and "x-wardgate-replayed" not in again.headers


def test_stream_is_sent_once(client: httpx.Client, sandbox: SandboxServer) -> None:
    named = {"idempotency-key": "stream"}
    asked = body(PATHS[0], MODELS[0], stream=True)
    first, second = (client.post(PATHS[0], json=asked, headers=named) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 409)
    assert second.json()["error"]["code"] == "idempotency_stream_ended"
    assert second.headers["x-should-retry"] == "false"
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_refusal_by_the_provider_comes_back_byte_for_byte_and_a_failure_does_not(
    client: httpx.Client, sandbox: SandboxServer, path: str, model: str
) -> None:
    named = {"idempotency-key": f"refused-{path}-{model}"}
    sandbox.script("status=500", "status=400")
    failed, refused, again = (client.post(path, json=body(path, model), headers=named) for _ in range(3))
    assert (failed.status_code, refused.status_code, again.status_code) == (502, 400, 400)
    assert again.content == refused.content
    assert ours(again) == ours(refused) | {"x-wardgate-replayed": "true"}
    assert again.headers["x-should-retry"] == refused.headers["x-should-retry"] == "false"
    assert len(sandbox.requests()) == 2


def test_key_that_is_not_well_formed_is_refused(client: httpx.Client) -> None:
    answer = client.post(PATHS[0], json=body(PATHS[0], MODELS[0]), headers={"idempotency-key": "a b"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_idempotency_key")


def test_refusal_by_us_is_looked_at_anew(client: httpx.Client) -> None:
    answers = [
        client.post(PATHS[0], json=body(PATHS[0], "no/such-model"), headers={"idempotency-key": "m"}) for _ in range(2)
    ]
    assert [one.status_code for one in answers] == [404, 404]
    assert "x-wardgate-replayed" not in answers[1].headers


def test_sdk_repeats_by_header(client: httpx.Client, sandbox: SandboxServer) -> None:
    token = client.headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=client.base_url.join("/v1"), api_key=token) as sdk:
        answers = [
            sdk.chat.completions.create(
                model=MODELS[0],
                messages=[{"role": "user", "content": "Hello"}],
                extra_headers={"Idempotency-Key": "of-the-sdk"},
            )
            for _ in range(2)
        ]
    assert answers[0].id == answers[1].id
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize("path", PATHS)
def test_refusal_of_a_stream_is_no_stream_that_ended(client: httpx.Client, sandbox: SandboxServer, path: str) -> None:
    named, asked = {"idempotency-key": f"refused-stream-{path}"}, body(path, MODELS[0], stream=True)
    sandbox.script("status=400")
    refused, again = (client.post(path, json=asked, headers=named) for _ in range(2))
    assert (refused.status_code, again.status_code) == (400, 400), again.text
    assert again.content == refused.content and again.headers["x-wardgate-replayed"] == "true"
    assert len(sandbox.requests()) == 1


def test_token_is_not_told_what_it_may_not_ask(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def listing(keystore: Keystore) -> list[str]:
        acme, tokens = await keystore.tenants.get("acme"), keystore.tokens
        lists = ([MODELS[0], MODELS[1]], [MODELS[1], MODELS[0]], [MODELS[1]])
        return [(await tokens.create(acme, allowed_models=models)).token for models in lists]

    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        tokens = [gateway.tenant("acme", "team", KEYS), *gateway.operate(listing)]
        named = {"idempotency-key": "of-one-tenant"}
        answers = []
        for token in tokens:
            with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
                answers.append(http.post(PATHS[0], json=body(PATHS[0], MODELS[0]), headers=named))
    assert [one.status_code for one in answers] == [200, 200, 200, 403]
    assert answers[1].content == answers[2].content != answers[0].content
    assert len(sandbox.requests()) == 2


def test_answer_beyond_the_tenants_room_says_so_and_is_asked_again(tmp_path: Path, sandbox: SandboxServer) -> None:
    room = sandbox_config(sandbox.url, "[limits]\nanswers_kept_bytes = 1\n")
    with RunningGateway(tmp_path, room) as gateway:
        headers = {"authorization": f"Bearer {gateway.tenant('acme', 'team', KEYS)}", "idempotency-key": "large"}
        with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as http:
            answers = [http.post(path, json=body(path, MODELS[0])) for path in PATHS for _ in range(2)]
            stream = body(PATHS[0], MODELS[0], stream=True)
            assert http.post(PATHS[0], json=stream).status_code == 200
            eventually(lambda: http.post(PATHS[0], json=stream).status_code == 200)  # 409 while its end is written
    assert {one.headers.get("x-wardgate-idempotency") for one in answers} == {"not-kept"}
    assert {one.status_code for one in answers} == {200}
    assert len(sandbox.requests()) == 8


@pytest.mark.parametrize("path", PATHS)
def test_client_that_gave_up_gets_the_answer_when_it_comes_again(
    client: httpx.Client, sandbox: SandboxServer, path: str
) -> None:
    named, asked = {"idempotency-key": f"gave-up-{path}"}, body(path, MODELS[0])
    sandbox.script("delay=0.8")
    with pytest.raises(httpx.ReadTimeout):
        client.post(path, json=asked, headers=named, timeout=0.4)
    again = client.post(path, json=asked, headers=named)
    assert (again.status_code, again.headers["x-wardgate-replayed"]) == (200, "true")
    assert len(sandbox.requests()) == 1
    sandbox.script("delay=30")
    with pytest.raises(httpx.ReadTimeout):
        client.post(path, json=asked | {"stream": True}, headers=named | {"idempotency-key": f"{path}"}, timeout=0.4)
    assert client.post(path, json=asked | {"stream": True}, headers={"idempotency-key": f"{path}"}).status_code == 200
    assert len(sandbox.requests()) == 3, "a stream is not kept, and is broken off"
