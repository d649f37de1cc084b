"""Who may use what: plans, missing keys, and that no missing key ever becomes the operator's."""

import json

import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway

HELLO = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize("plan", ["solo", "pro", "team", "enterprise"])
def test_tenant_is_served_with_its_own_key_when_its_plan_takes_own_keys(gateway: RunningGateway, plan: str) -> None:
    token = gateway.tenant("acme", plan, {"MINIMAX_API_KEY": "sk-sandbox-a"})
    answer = gateway.post("/v1/chat/completions", token, HELLO)
    assert (answer.status_code, answer.headers["x-wardgate-key"]) == (200, "byok:canonical")


@pytest.mark.parametrize("plan", ["trial", "free"])
def test_own_key_is_refused_with_the_plan_that_unlocks_it_when_the_plan_takes_none(
    gateway: RunningGateway, sandbox: SandboxServer, plan: str
) -> None:
    token = gateway.tenant("acme", plan, {"MINIMAX_API_KEY": "sk-sandbox-a"})
    answer = gateway.post("/v1/chat/completions", token, HELLO)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["fault"]) == (403, "plan_byok_not_allowed", "plan")
    assert plan in error["message"] and "solo" in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert not sandbox.requests()


def test_team_has_the_models_of_pro(gateway: RunningGateway) -> None:
    plans = {plan["name"]: plan for plan in json.loads(gateway.cli("plan", "list", "--json").stdout)}
    assert plans["team"]["managed_models"] == plans["pro"]["managed_models"]
    assert "gemini-1.5-pro" in plans["team"]["managed_models"]
    assert [name for name, plan in plans.items() if plan["byok"]] == ["solo", "pro", "team", "enterprise"]


def test_plan_change_is_in_force_with_the_next_request(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", "free", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    assert gateway.post("/v1/chat/completions", token, HELLO).status_code == 403
    assert gateway.cli("tenant", "set-plan", "acme", "team").returncode == 0
    assert gateway.post("/v1/chat/completions", token, HELLO).status_code == 200


def test_unknown_plan_is_refused_when_it_is_set(gateway: RunningGateway) -> None:
    gateway.tenant("acme", "team")
    for arguments in (("tenant", "add", "other", "--plan", "teem"), ("tenant", "set-plan", "acme", "teem")):
        done = gateway.cli(*arguments)
        assert done.returncode == 1
        assert "teem" in done.stderr and "team" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("model", ["minimax/MiniMax-M2", "minimax_2_7/MiniMax-M2", "MiniMax-M2", "auto", "default"])
def test_tenant_without_a_key_is_told_the_provider_and_both_names(
    gateway: RunningGateway, sandbox: SandboxServer, model: str
) -> None:
    token = gateway.tenant("acme", "team")
    answer = gateway.post("/v1/chat/completions", token, HELLO | {"model": model})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["fault"]) == (403, "provider_key_missing", "tenant_key")
    assert "minimax needs a key" in error["message"].lower()
    assert "MINIMAX_API_KEY" in error["message"] and "MINIMAX_2_7_API_KEY" in error["message"]
    assert error["reasons"]["no_credential"] >= 1
    assert gateway.settled("wardgate_route_rejections_total", reason="no_credential") >= 1
    assert gateway.settled("wardgate_key_resolutions_total", provider="minimax", via="missing") == 1
    assert not sandbox.requests()


def test_route_shows_the_reason_for_every_candidate_when_nothing_is_left(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", "team")
    body = gateway.post("/v1/route", token, HELLO | {"model": "auto"}).json()
    assert body["ranked"] == []
    assert body["rejected"] and all(item["reason"] and item["detail"] for item in body["rejected"])
    assert sum(body["counts"].values()) == len(body["rejected"])
    assert "minimax" in body["nearest_miss"].lower()


def test_models_of_minimax_are_candidates_exactly_when_minimax_is_held(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", "team", {"DEEPSEEK_API_KEY": "sk-sandbox-d"})
    assert {m["owned_by"] for m in gateway.get("/v1/models", token).json()["data"]} == {"deepseek"}

    gateway.set_key("acme", "MINIMAX_2_7_API_KEY", "sk-sandbox-m")

    listed = gateway.get("/v1/models", token).json()["data"]
    assert {m["owned_by"] for m in listed} == {"deepseek", "minimax"}
    ranked = gateway.post("/v1/route", token, HELLO | {"model": "auto"}).json()["ranked"]
    assert {m["provider"] for m in ranked} == {"deepseek", "minimax"}
    assert {m["id"] for m in ranked} <= {m["id"] for m in listed}


def test_ranking_goes_by_expected_cost_of_this_request(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", "team", {"DEEPSEEK_API_KEY": "sk-sandbox-d", "MINIMAX_API_KEY": "sk-sandbox-m"})
    ranked = gateway.post("/v1/route", token, HELLO | {"model": "auto"}).json()["ranked"]
    costs = [float(item["expected_cost_usd"]) for item in ranked]
    assert costs == sorted(costs) and costs[0] > 0


def test_operators_environment_is_never_used_for_a_tenant_without_a_key(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    # The harness starts gateways in this process: put canaries where LiteLLM would look, after the start's scrubbing.
    import os

    names = ("OPENAI_API_KEY", "MINIMAX_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY")
    os.environ.update(dict.fromkeys(names, "sk-sandbox-operator"))
    try:
        token = gateway.tenant("acme", "team")
        for model in ("minimax/MiniMax-M2", "anthropic/claude-haiku-4-5", "google/gemini-2.5-flash", "auto"):
            assert gateway.post("/v1/chat/completions", token, HELLO | {"model": model}).status_code == 403
        gateway.set_key("acme", "ANTHROPIC_API_KEY", "sk-sandbox-tenant")
        answer = gateway.post("/v1/chat/completions", token, HELLO | {"model": "anthropic/claude-haiku-4-5"})
        assert answer.status_code == 200, answer.text
    finally:
        for name in names:
            del os.environ[name]
    assert [request.key_tail for request in sandbox.requests()] == ["nant"]


def test_two_tenants_never_see_each_others_key(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    tokens = {
        slug: gateway.tenant(slug, "team", {"MINIMAX_API_KEY": f"sk-sandbox-{slug}"}) for slug in ("aaaa", "bbbb")
    }
    for slug in ("aaaa", "bbbb", "aaaa", "bbbb"):
        body = HELLO | {"user": slug}
        assert gateway.post("/v1/chat/completions", tokens[slug], body).status_code == 200
    seen = [(request.body["user"], request.key_tail) for request in sandbox.requests()]
    assert seen == [("aaaa", "aaaa"), ("bbbb", "bbbb")] * 2


def test_explain_prints_ranked_and_rejected_with_reasons(gateway: RunningGateway) -> None:
    gateway.tenant("acme", "team", {"MINIMAX_2_7_API_KEY": "sk-sandbox-m"})
    told = gateway.cli("explain", "--tenant", "acme", "--model", "auto")
    assert told.returncode == 0, told.stderr
    assert "minimax/MiniMax-M2" in told.stdout and "byok:former" in told.stdout and "no_credential" in told.stdout
    document = json.loads(gateway.cli("explain", "--tenant", "acme", "--model", "auto", "--json").stdout)
    assert document["ranked"][0]["provider"] == "minimax"
    assert document["ranked"][0]["key"]["setting_key"] == "MINIMAX_2_7_API_KEY"
    none = gateway.cli("explain", "--tenant", "acme", "--model", "openai/gpt-4o")
    assert none.returncode == 3 and "OPENAI_API_KEY" in none.stdout
