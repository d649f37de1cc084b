"""Whatever is wrong with a request, the answer has OpenAI's error shape, a word as code, and a sentence that helps."""

import gzip
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import openai
import pytest

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from tests.harness import RunningGateway, sandbox_config

ASK = [{"role": "user", "content": "Hello"}]
GOOD = {"model": "minimax/MiniMax-M2", "messages": ASK}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer) -> Iterator[RunningGateway]:
    limits = "[limits]\nmax_body_bytes = 65536\nbody_timeout_s = 1\n"
    with RunningGateway(tmp_path_factory.mktemp("gw"), sandbox_config(running_sandbox.url, limits)) as running:
        yield running


@pytest.fixture(scope="module")
def token(gateway: RunningGateway) -> str:
    return gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})


def checked(answer: httpx.Response, status: int, code: str, fault: str = "caller") -> dict[str, object]:
    """The error object of an answer that is an error in the right shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] and answer.headers["x-should-retry"] in ("true", "false")
    assert answer.headers["x-wardgate-catalogue"] and answer.headers["x-wardgate-attempts"]
    error: dict[str, object] = answer.json()["error"]
    assert {"message", "type", "param", "code", "fault"} <= error.keys()
    assert (error["code"], error["fault"]) == (code, fault)
    assert isinstance(error["message"], str) and len(error["message"]) > 20
    assert error["param"] is None or (isinstance(error["param"], str) and error["param"] != "None")
    return error


def message(one: object) -> dict[str, object]:
    return {"model": "auto", "messages": [one]}


BODIES = {
    "empty": (b"", "invalid_json", None),
    "not JSON": (b"{", "invalid_json", None),
    "NaN": (b'{"model": "auto", "messages": [], "temperature": NaN}', "invalid_json", None),
    "a list": (b"[]", "invalid_json", None),
    "lone surrogate": (b'{"model": "\\ud800", "messages": []}', "invalid_json", None),
    "not UTF-8": (b'{"model": "\xff"}', "invalid_json", None),
    "compressed": (gzip.compress(b"{}"), "invalid_json", None),
    "function without content": (message({"role": "function", "name": "f"}), "invalid_request", "messages[0].content"),
    "deep": (b'{"model": "auto", "messages": ' + b"[" * 200 + b"]" * 200 + b"}", "invalid_json", None),
    "very deep": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid_json", None),
    "no model": ({"messages": ASK}, "invalid_request", "model"),
    "model of wrong type": ({"model": 4, "messages": ASK}, "invalid_request", "model"),
    "model too long": ({"model": "m" * 10_000, "messages": ASK}, "invalid_request", "model"),
    "blank model": ({"model": "  ", "messages": ASK}, "invalid_request", "model"),
    "no messages": ({"model": "auto"}, "invalid_request", "messages"),
    "empty messages": ({"model": "auto", "messages": []}, "invalid_request", "messages"),
    "messages of wrong type": ({"model": "auto", "messages": "hi"}, "invalid_request", "messages"),
    "message of wrong type": ({"model": "auto", "messages": ["hi"]}, "invalid_request", "messages[0]"),
    "unknown role": (message({"role": "boss", "content": "x"}), "invalid_request", "messages[0].role"),
    "no content": ({"model": "auto", "messages": [{"role": "user"}]}, "invalid_request", "messages[0].content"),
    "content of wrong type": (message({"role": "user", "content": 5}), "invalid_request", "messages[0].content"),
    "temperature of wrong type": (GOOD | {"temperature": "hot"}, "invalid_request", "temperature"),
    "true is no number": (GOOD | {"temperature": True}, "invalid_request", "temperature"),
    "stream of wrong type": (GOOD | {"stream": "yes"}, "invalid_request", "stream"),
    "two limits": (GOOD | {"max_tokens": 5, "max_completion_tokens": 5}, "invalid_request", "max_completion_tokens"),
    "a name twice": (b'{"model": "a", "model": "auto", "messages": []}', "invalid_json", None),
    "number too big": (GOOD | {"metadata": {"a": 2**64}}, "invalid_json", None),
    "no tokens": (GOOD | {"max_tokens": 0}, "invalid_request", "max_tokens"),
    "options without stream": (GOOD | {"stream_options": {"include_usage": True}}, "invalid_request", "stream_options"),
    "api_base": (GOOD | {"api_base": "http://127.0.0.1:1"}, "unsupported_parameter", "api_base"),
    "api_key": (GOOD | {"api_key": "x"}, "unsupported_parameter", "api_key"),
    "extra_headers": (GOOD | {"extra_headers": {"authorization": "x"}}, "unsupported_parameter", "extra_headers"),
    "price": (GOOD | {"input_cost_per_token": 0}, "unsupported_parameter", "input_cost_per_token"),
    "mock": (GOOD | {"mock_response": "hi"}, "unsupported_parameter", "mock_response"),
    "list of models": (GOOD | {"models": ["a", 5]}, "invalid_request", "models[1]"),
    "provider": (GOOD | {"provider": {"onyl": []}}, "invalid_request", "provider.onyl"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
def test_malformed_body_is_a_400_that_names_the_field(
    gateway: RunningGateway, token: str, path: str, name: str
) -> None:
    body, code, param = BODIES[name]
    error = checked(gateway.post(path, token, body), 400, code)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_typo_in_a_parameter_is_answered_with_the_nearest_one_where_it_cannot_travel(gateway: RunningGateway) -> None:
    token = gateway.tenant("typo", "team", {"ANTHROPIC_API_KEY": "sk-sandbox-a"})
    body = GOOD | {"model": "anthropic/claude-haiku-4-5", "temprature": 1}
    error = checked(gateway.post(CHAT, token, body), 400, "unsupported_parameter")
    assert "`temperature`" in str(error["message"])


def test_unknown_model_is_404_with_near_names(gateway: RunningGateway, token: str) -> None:
    error = checked(gateway.post(CHAT, token, GOOD | {"model": "minimax/MiniMax-M22"}), 404, "model_not_found")
    assert error["param"] == "model" and "MiniMax-M2" in str(error["message"])


def test_unknown_provider_is_404_with_near_names(gateway: RunningGateway, token: str) -> None:
    error = checked(gateway.post(CHAT, token, GOOD | {"model": "minimx/MiniMax-M2"}), 404, "model_not_found")
    assert "minimax" in str(error["message"])


@pytest.mark.parametrize(
    "model", ["auto:tastiest", "a b", "../../etc", "x\x00y", "müller/ß", "%", "'; DROP TABLE tenants"]
)
def test_odd_model_names_are_404_and_nothing_else(gateway: RunningGateway, token: str, model: str) -> None:
    checked(gateway.post(CHAT, token, GOOD | {"model": model}), 404, "model_not_found")


def test_oversized_body_is_413(gateway: RunningGateway, token: str) -> None:
    big = GOOD | {"messages": [{"role": "user", "content": "x" * 70_000}]}
    checked(gateway.post(CHAT, token, big), 413, "request_too_large")


def test_oversized_body_without_a_length_is_413(gateway: RunningGateway, token: str) -> None:
    def parts() -> "object":
        for _ in range(40):
            yield b" " * 4096

    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.post(gateway.url + CHAT, content=parts(), headers=headers)  # type: ignore[arg-type]
    checked(answer, 413, "request_too_large")


def test_half_sent_body_is_408_and_the_connection_is_closed(gateway: RunningGateway, token: str) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        head = f"POST /v1/route HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 50\r\n\r\n{{"
        connection.sendall(head.encode())
        answer = b""
        while part := connection.recv(65536):  # ends when the gateway closes
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"request_timeout"' in answer and b'"fault":"caller"' in answer


@pytest.mark.parametrize("path", [CHAT, "/chat/completions", "/v1/chat/completions/", "/chat/completions/"])
def test_every_spelling_of_the_path_answers_without_a_redirect(gateway: RunningGateway, token: str, path: str) -> None:
    assert gateway.post(path, token, GOOD).status_code == 200


def test_unsupported_method_is_405_and_unknown_path_404(gateway: RunningGateway, token: str) -> None:
    answer = gateway.get(CHAT, token)
    checked(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]
    checked(gateway.post("/v1/chat/complete", token, GOOD), 404, "unknown_path")
    checked(gateway.get("/v1/", token), 404, "unknown_path")


TOKENS = {
    "garbage": "hello",
    "sql": "' OR 1=1 --",
    "other prefix": "sk-proj-0123456789",
    "wrong checksum": "wg_live_" + "a" * 12 + "_" + "b" * 49,
    "very long": "wg_live_" + "a" * 5000,
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
def test_unknown_token_is_401_with_one_constant_body(gateway: RunningGateway, path: str, name: str) -> None:
    answer = gateway.post(path, TOKENS[name], GOOD)
    error = checked(answer, 401, "invalid_api_key")
    assert error["message"] == checked(gateway.post(path, "x", GOOD), 401, "invalid_api_key")["message"]
    assert TOKENS[name] not in answer.text


def test_missing_token_is_401_for_the_sdk(gateway: RunningGateway) -> None:
    checked(gateway.post(CHAT, None, GOOD), 401, "missing_api_key")
    checked(gateway.get("/v1/models"), 401, "missing_api_key")
    with pytest.raises(openai.AuthenticationError) as caught:
        gateway.client("nope").models.list()
    assert caught.value.code == "invalid_api_key"


def test_expired_and_revoked_tokens_are_told_apart_only_for_who_holds_them(gateway: RunningGateway) -> None:
    async def work(keystore: Keystore) -> tuple[str, str]:
        tenant = await keystore.tenants.add("shortlived", "team")
        soon = datetime.now(UTC) + timedelta(milliseconds=1)
        expired = await keystore.tokens.create(tenant, expires_at=soon)
        revoked = await keystore.tokens.create(tenant)
        await keystore.tokens.revoke(revoked.id)
        return expired.token, revoked.token

    expired, revoked = gateway.operate(work)
    checked(gateway.post(CHAT, expired, GOOD), 401, "token_expired")
    checked(gateway.post(CHAT, revoked, GOOD), 401, "token_revoked")
    # A right checksum with another secret says nothing about the token's state: here the checksum is wrong already.
    checked(gateway.post(CHAT, expired[:-8] + "x" * 8, GOOD), 401, "invalid_api_key")


def test_admin_token_is_no_tenant(gateway: RunningGateway) -> None:
    async def work(keystore: Keystore) -> str:
        return (await keystore.tokens.create(None, kind="admin")).token

    checked(gateway.post(CHAT, gateway.operate(work), GOOD), 403, "tenant_token_required")


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "Authorization"])
def test_token_is_accepted_in_the_headers_of_every_sdk(gateway: RunningGateway, token: str, name: str) -> None:
    value = f"bearer {token}" if name == "Authorization" else token
    assert httpx.get(f"{gateway.url}/v1/models", headers={name: value}).status_code == 200


def test_two_different_tokens_are_refused(gateway: RunningGateway, token: str) -> None:
    headers = {"authorization": f"Bearer {token}", "x-api-key": "other"}
    checked(httpx.get(f"{gateway.url}/v1/models", headers=headers), 401, "invalid_api_key")


def test_request_id_is_echoed_when_well_formed_and_minted_otherwise(gateway: RunningGateway, token: str) -> None:
    def ask(sent: str) -> str:
        headers = {"authorization": f"Bearer {token}", "x-request-id": sent}
        return httpx.get(f"{gateway.url}/v1/models", headers=headers).headers["x-request-id"]

    assert ask("my-id-1") == "my-id-1"
    assert re.fullmatch(r"req_[0-9a-f]{32}", ask("not well formed\t;"))
    assert re.fullmatch(r"req_[0-9a-f]{32}", ask("x" * 500))
    for key in ("sk-proj-CANARY1234", "id-1:AIzaSyCANARY12345", token):
        assert re.fullmatch(r"req_[0-9a-f]{32}", ask(key)), "what looks like a key is neither logged nor kept"
    assert "CANARY" not in gateway.logs.getvalue()


def test_models_lists_and_finds_ids_with_slashes(gateway: RunningGateway, token: str) -> None:
    client = gateway.client(token)
    ids = [model.id for model in client.models.list()]
    assert "minimax/MiniMax-M2" in ids and ids == sorted(ids)
    assert client.models.retrieve("minimax/MiniMax-M2").owned_by == "minimax"
    assert gateway.get("/v1/models/minimax%2FMiniMax-M2", token).json()["id"] == "minimax/MiniMax-M2"
    checked(gateway.get("/v1/models/openai/gpt-4o", token), 404, "model_not_found")
    checked(gateway.get("/v1/models/no/such", token), 404, "model_not_found")


def test_health_answers_without_a_token(gateway: RunningGateway) -> None:
    assert httpx.head(gateway.url + "/").status_code == 200
    assert httpx.get(gateway.url + "/livez").json()["status"] == "ok"
    assert httpx.get(gateway.url + "/readyz").json()["status"] == "ready"
    assert httpx.get(gateway.url + "/metrics").status_code == 404, "metrics have their own port"
    assert "wardgate_requests_total" in httpx.get(gateway.metrics_url + "/metrics").text


def test_secrets_of_a_body_are_in_no_log_line(gateway: RunningGateway, token: str) -> None:
    canary = "canary-4711-in-a-prompt"
    body = json.dumps(GOOD | {"messages": [{"role": "user", "content": canary}]})
    assert gateway.post(CHAT, token, body.encode()).status_code == 200
    gateway.post(CHAT, token, body.encode()[:-1])
    assert canary not in gateway.logs.getvalue() and token not in gateway.logs.getvalue()
