"""A broken stream says so: an error in the stream, no invented end, no `[DONE]`, and no second voice."""

import json
import socket
import time
from typing import Any

import httpx
import openai
import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, eventually, sandbox_config

ASK = [{"role": "user", "content": "Tell me something in several words, please."}]
MODELS = {
    "minimax/MiniMax-M2": "MINIMAX_API_KEY",
    "anthropic/claude-haiku-4-5": "ANTHROPIC_API_KEY",
    "google/gemini-2.5-flash": "GOOGLE_API_KEY",
}


def events(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


def stream(gateway: RunningGateway, token: str, model: str, **more: object) -> httpx.Response:
    return gateway.post("/v1/chat/completions", token, {"model": model, "messages": ASK, "stream": True} | more)


@pytest.mark.parametrize("model", MODELS)
def test_stream_ends_with_one_finish_and_done_when_nothing_breaks(gateway: RunningGateway, model: str) -> None:
    token = gateway.tenant("acme", "team", {MODELS[model]: "sk-sandbox-a"})
    answer = stream(gateway, token, model)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = events(answer.text)
    chunks = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"][0]["finish_reason"]] == ["stop"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1 and all(c.get("usage") is None for c in chunks)
    assert gateway.settled("wardgate_tokens_total") > 0, "usage is counted though the caller did not ask for it"


@pytest.mark.parametrize("model", list(MODELS)[1:])
@pytest.mark.parametrize("wanted", [False, True])
def test_usage_is_null_in_all_chunks_but_the_last_of_a_translated_wire(
    gateway: RunningGateway, model: str, wanted: bool
) -> None:
    token = gateway.tenant("acme", "team", {MODELS[model]: "sk-sandbox-a"})
    answer = stream(gateway, token, model, stream_options={"include_usage": wanted})
    *chunks, last = [json.loads(line) for line in events(answer.text)[:-1]]
    assert len(chunks) > 2 and all(("usage" in chunk) is wanted for chunk in chunks)
    assert all(chunk.get("usage") is None and chunk["choices"] for chunk in chunks)
    assert (last["choices"] == [] and last["usage"]["total_tokens"] > 0) if wanted else "usage" not in last


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("behaviour", ["cut-after=2; cut=rst", "cut-after=2; cut=fin", "malformed-after=2", "no-done"])
def test_broken_stream_ends_in_an_error_event_without_an_invented_end(
    gateway: RunningGateway, sandbox: SandboxServer, model: str, behaviour: str
) -> None:
    token = gateway.tenant("acme", "team", {MODELS[model]: "sk-sandbox-a"})
    sandbox.script(behaviour)
    started = time.monotonic()
    answer = stream(gateway, token, model)
    assert time.monotonic() - started < 20
    lines = events(answer.text)
    assert "[DONE]" not in lines
    last = json.loads(lines[-1])
    assert last["error"]["fault"] == "provider" and last["error"]["code"].startswith("provider_")
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks and not any(c["choices"][0]["finish_reason"] for c in chunks)
    assert len(sandbox.requests()) == 1, "nobody else may speak after the first byte"
    assert gateway.settled("wardgate_requests_total", outcome="cut", fault="provider") == 1


def test_openai_sdk_raises_when_the_stream_breaks(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    client = gateway.client(gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"}))
    sandbox.script("cut-after=2")
    pieces = []
    with pytest.raises(openai.APIError):
        for chunk in client.chat.completions.create(model="minimax/MiniMax-M2", messages=ASK, stream=True):  # type: ignore[arg-type]
            pieces.append(chunk)
    assert pieces


def test_idle_stream_is_ended_with_an_error_when_the_provider_falls_silent(
    tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxServer
) -> None:
    limits = "[limits]\nidle_timeout_s = 0.5\n"
    with RunningGateway(tmp_path_factory.mktemp("gw"), sandbox_config(sandbox.url, limits)) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
        sandbox.script("silent-after=2")
        lines = events(stream(gateway, token, "minimax/MiniMax-M2").text)
    assert json.loads(lines[-1])["error"]["code"] == "provider_timeout" and "[DONE]" not in lines


def test_usage_is_not_invented_when_the_provider_counts_none(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    for streamed in (False, True):
        sandbox.script("no-usage")
        body = {"model": "minimax/MiniMax-M2", "messages": ASK, "stream": streamed}
        answer = gateway.post("/v1/chat/completions", token, body)
        assert answer.status_code == 200 and '"usage"' not in answer.text
        said = {name: answer.headers.get(f"x-wardgate-{name}") for name in ("cost-usd", "estimated")}
        assert (said["cost-usd"] is None, said["estimated"]) == (streamed, None if streamed else "usage")
    assert gateway.settled("wardgate_tokens_total") == 0


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    received = b""
    while wanted not in received and (part := connection.recv(65536)):
        received += part
    return received


@pytest.mark.parametrize("streamed", [True, False])
def test_upstream_is_left_within_a_second_when_the_client_leaves(
    gateway: RunningGateway, sandbox: SandboxServer, streamed: bool
) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    sandbox.script("silent-after=1" if streamed else "silence")
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "minimax/MiniMax-M2", "messages": ASK, "stream": streamed}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(head.encode() + body)
        if streamed:
            assert b"data:" in read_until(connection, b"data:")
        else:
            eventually(lambda: len(sandbox.requests()) == 1)
    left = time.monotonic()
    eventually(lambda: sandbox.requests()[0].client_left)
    assert time.monotonic() - left < 1.5
    assert gateway.settled("wardgate_requests_total", outcome="client_left") == 1


TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("model", MODELS)
def test_tool_call_fragments_keep_their_shape_on_every_wire(gateway: RunningGateway, model: str) -> None:
    client = gateway.client(gateway.tenant("acme", "team", {MODELS[model]: "sk-sandbox-a"}))
    chosen = {"type": "function", "function": {"name": "lookup"}}
    asked: dict[str, Any] = {"model": model, "messages": ASK, "tools": [TOOL], "tool_choice": chosen}
    plain = client.chat.completions.create(**asked)
    call = plain.choices[0].message.tool_calls[0]
    assert call.function.name == "lookup" and isinstance(json.loads(call.function.arguments), dict)
    name, arguments = "", ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        for piece in chunk.choices[0].delta.tool_calls or []:
            assert piece.index == 0
            name += piece.function.name or ""
            arguments += piece.function.arguments or ""
    assert name == "lookup" and json.loads(arguments) == json.loads(call.function.arguments)


@pytest.mark.parametrize("model", ["anthropic/claude-haiku-4-5", "google/gemini-2.5-flash"])
def test_parameter_that_a_translated_wire_does_not_take_is_refused_and_not_dropped(
    gateway: RunningGateway, sandbox: SandboxServer, model: str
) -> None:
    token = gateway.tenant("acme", "team", {MODELS[model]: "sk-sandbox-a"})
    body = {"model": model, "messages": ASK, "metadata": {"a": "b"}}
    answer = gateway.post("/v1/chat/completions", token, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_parameter") and "metadata" in error["message"]
    assert not sandbox.requests()


def test_every_allowed_parameter_reaches_an_openai_wire_provider_unchanged(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    token = gateway.tenant("acme", "team", {"OPENAI_API_KEY": "sk-sandbox-a"})
    messages = [{"role": "developer", "content": "Be short."}, *ASK]
    sent = {
        "metadata": {"k": "v"},
        "user": "u1",
        "verbosity": "low",
        "reasoning_effort": "low",
        "seed": 7,
        "store": False,
        "logit_bias": {"1": 2},
        "temperature": 0.25,
        "top_k": 5,
        "prompt_cache_key": "c",
        "service_tier": "auto",
    }
    answer = gateway.post("/v1/chat/completions", token, {"model": "openai/gpt-5", "messages": messages, **sent})
    assert answer.status_code == 200, answer.text
    (request,) = sandbox.requests()
    assert request.body == {"model": "gpt-5", "messages": messages, **sent} | (
        {"stream": False} if "stream" in request.body else {}
    )
    names = {name.lower() for name in dict(request.headers)}
    assert not any(name.startswith(("x-stainless", "cookie", "x-wardgate", "openai-")) for name in names)
