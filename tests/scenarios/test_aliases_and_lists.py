"""Models by other names, in lists and under preferences, over real HTTP with a real SDK."""

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, sandbox_config

ASK: Any = [{"role": "user", "content": "Hello"}]
KEYS = {"MINIMAX_API_KEY": "sk-sandbox-m", "DEEPSEEK_API_KEY": "sk-sandbox-d", "OPENAI_API_KEY": "sk-sandbox-o"}
FAST = '\n[models.smart]\nmodels = ["openai/gpt-4o", "minimax/MiniMax-M2"]\n'


def ranked(gateway: RunningGateway, token: str, **body: Any) -> list[str]:
    answer = gateway.post("/v1/route", token, {"messages": ASK, **body})
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["ranked"]]


def test_operators_alias_is_a_model(sandbox: SandboxServer, tmp_path: Path) -> None:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url) + FAST) as aliased:
        token = aliased.tenant("acme", "team", KEYS)
        client = openai.OpenAI(base_url=f"{aliased.url}/v1", api_key=token, max_retries=0)
        raw = client.chat.completions.with_raw_response.create(model="smart", messages=ASK)
        assert raw.headers["x-wardgate-provider"] == "openai"
        sandbox.script("status=500", match={"model": "gpt-4o"})
        raw = client.chat.completions.with_raw_response.create(model="smart", messages=ASK)
        assert (raw.headers["x-wardgate-provider"], raw.headers["x-wardgate-attempts"]) == ("minimax", "2")
        told = aliased.post("/v1/route", token, {"model": "smart", "messages": ASK}).json()
        assert (told["model"], told["asked"], told["aliases"]) == (
            "smart",
            "openai/gpt-4o, minimax/MiniMax-M2",
            ["smart"],
        )


def test_tenants_alias_is_its_own(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    other = gateway.tenant("beta", "team", KEYS)

    async def work(keystore: Any) -> str:
        tenant = await keystore.tenants.get("acme")
        made: str = (await keystore.tokens.create(tenant, scopes=["inference", "keys:read", "keys:write"])).token
        return made

    both = gateway.operate(work)
    answer = httpx.put(
        f"{gateway.url}/v1/aliases/mine",
        json={"models": ["deepseek/deepseek-chat-v3.2", "minimax/MiniMax-M2"]},
        headers={"authorization": f"Bearer {both}"},
    )
    assert answer.status_code == 200, answer.text
    assert ranked(gateway, token, model="mine")[-1] == "minimax/MiniMax-M2"
    refused = gateway.post("/v1/chat/completions", other, {"model": "mine", "messages": ASK})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    looped = httpx.put(
        f"{gateway.url}/v1/aliases/mine", json={"models": ["mine"]}, headers={"authorization": f"Bearer {both}"}
    )
    assert (looped.status_code, looped.json()["error"]["code"]) == (400, "alias_refused")
    gone = httpx.delete(f"{gateway.url}/v1/aliases/mine", headers={"authorization": f"Bearer {both}"})
    assert gone.json()["data"] == []
    assert gateway.post("/v1/chat/completions", token, {"model": "mine", "messages": ASK}).status_code == 404


def test_models_are_tried_in_order(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=token, max_retries=0)
    sandbox.script("status=503", match={"model": "gpt-4o"})
    raw = client.chat.completions.with_raw_response.create(
        model="openai/gpt-4o", messages=ASK, extra_body={"models": ["minimax/MiniMax-M2"]}
    )
    assert (raw.headers["x-wardgate-provider"], raw.headers["x-wardgate-attempts"]) == ("minimax", "2")
    assert "models" not in sandbox.requests()[-1].body


def test_without_fallbacks_nobody_else_is_asked(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    sandbox.script("status=503", match={"model": "gpt-4o"})
    body = {"models": ["openai/gpt-4o", "minimax/MiniMax-M2"], "messages": ASK, "provider": {"allow_fallbacks": False}}
    answer = gateway.post("/v1/chat/completions", token, body)
    assert (answer.status_code, len(sandbox.requests())) == (502, 1)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "auto", "provider": {"onyl": ["openai"]}}, "provider.onyl"),
        ({"model": "auto", "provider": {"only": ["openai"], "ignore": ["openai"]}}, "provider.ignore"),
        ({"model": "auto", "provider": {"max_price": {"prompt": 1e-7}}}, "provider.max_price.prompt"),
        ({"model": "auto", "models": []}, "models"),
        ({"model": "auto", "models": "gpt-4o"}, "models"),
        ({"model": "auto", "models": [5]}, "models[0]"),
        ({"models": ["x" * 10_000]}, "models[0]"),
        ({"models": [f"m{n}" for n in range(21)]}, "models"),
        ({"model": "auto", "wardgate": {"quality": 5}}, "wardgate.quality"),
    ],
)
def test_nonsense_is_named(gateway: RunningGateway, body: dict[str, Any], param: str) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    error = gateway.post("/v1/chat/completions", token, {"messages": ASK, **body}).json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_what_is_dropped_is_told(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", {"ANTHROPIC_API_KEY": "sk-sandbox-a"})
    body = {"model": "anthropic/claude-haiku-4-5", "messages": ASK, "seed": 7}
    refused = gateway.post("/v1/chat/completions", token, body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_parameter")
    allowed = gateway.post("/v1/chat/completions", token, {**body, "provider": {"require_parameters": False}})
    assert allowed.status_code == 200, allowed.text
    assert allowed.headers["x-wardgate-dropped"] == "seed"
    assert "seed" not in sandbox.requests()[-1].body
    whole = gateway.post("/v1/chat/completions", token, {"model": "anthropic/claude-haiku-4-5", "messages": ASK})
    assert "x-wardgate-dropped" not in whole.headers


def test_next_request_is_reckoned_with_what_the_last_ones_used(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
    body = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello there. " * 50}]}
    before = gateway.post("/v1/route", token, body).json()
    for _ in range(5):
        assert gateway.post("/v1/chat/completions", token, body).status_code == 200
    after = gateway.post("/v1/route", token, body).json()
    assert before["needs"]["input_ratio_from_requests"] == 0 and after["needs"]["input_ratio_from_requests"] == 5
    assert [told["ranked"][0]["basis"]["output_from"] for told in (before, after)] == ["assumed", "habit"]
    assert after["ranked"][0]["expected_seconds"] is not None


def test_a_call_with_searches_has_no_known_cost(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
    body = {"model": "minimax/MiniMax-M2", "messages": ASK}
    assert "x-wardgate-cost-usd" in gateway.post("/v1/chat/completions", token, body).headers
    searched = gateway.post("/v1/chat/completions", token, {**body, "web_search_options": {}})
    assert searched.status_code == 200, searched.text
    assert "x-wardgate-cost-usd" not in searched.headers
