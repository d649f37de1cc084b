"""The operator's keys: lent where the plan has such models, never instead of a tenant's own, and held to a budget."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config import ConfigError, parse_config
from gateway.rules import load_rules, unserved
from gateway.sandbox.server import SandboxServer
from gateway.settings import Settings
from keystore.keystore import Keystore
from tests.harness import RunningGateway, eventually, sandbox_config

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
MINI: dict[str, Any] = {"model": "openai/gpt-4o-mini", "messages": HELLO, "max_tokens": 50}
OPERATORS, OWN = "sk-sandbox-operators-own-1", "sk-sandbox-tenants-own-22"
MANAGED = '[managed]\ntenant = "house"\n'


@contextmanager
def lends(folder: Path, sandbox: SandboxServer, more: str = "") -> Iterator[RunningGateway]:
    """A gateway whose operator has a key of OpenAI to lend; `more` follows in its configuration."""
    RunningGateway(folder, sandbox_config(sandbox.url)).tenant("house", "enterprise", {"OPENAI_API_KEY": OPERATORS})
    with RunningGateway(folder, sandbox_config(sandbox.url, MANAGED + more)) as running:
        yield running


@pytest.fixture
def lending(tmp_path: Path, sandbox: SandboxServer) -> Iterator[RunningGateway]:
    with lends(tmp_path, sandbox) as running:
        yield running


def who(sandbox: SandboxServer) -> str:
    return sandbox.app.journal.requests()[-1].key_tail


def test_plan_without_own_keys_is_lent_the_operators(lending: RunningGateway, sandbox: SandboxServer) -> None:
    token = lending.tenant("acme", "free")
    answer = lending.post(CHAT, token, MINI)
    assert (answer.status_code, answer.headers["x-wardgate-key"]) == (200, "managed:canonical")
    assert OPERATORS.endswith(who(sandbox))
    listed = httpx.get(f"{lending.url}/v1/models", headers={"authorization": f"Bearer {token}"}).json()
    assert "openai/gpt-4o-mini" in {one["id"] for one in listed["data"]}
    other = lending.post(CHAT, token, MINI | {"model": "openai/gpt-4o"})
    assert (other.status_code, other.json()["error"]["code"]) == (403, "plan_model_not_allowed")
    usage: Any = {}

    def told() -> bool:
        nonlocal usage
        asked = httpx.get(f"{lending.url}/v1/usage?by=key_source", headers={"authorization": f"Bearer {token}"})
        usage = {row["key_source"]: row for row in asked.json()["rows"]}
        return "managed" in usage

    eventually(told)
    assert usage["managed"]["requests"] == 1 and usage["managed"]["cost_usd"] == answer.headers["x-wardgate-cost-usd"]


def test_own_key_comes_first_and_is_never_stood_in_for(lending: RunningGateway, sandbox: SandboxServer) -> None:
    own = lending.tenant("own", "pro", {"OPENAI_API_KEY": OWN})
    answer = lending.post(CHAT, own, MINI)
    assert answer.headers["x-wardgate-key"] == "byok:canonical" and OWN.endswith(who(sandbox))
    rejected = lending.post(CHAT, own, MINI | {"messages": [{"role": "user", "content": "[sandbox: status=401] Hi"}]})
    assert rejected.status_code in (401, 403, 424) and len(sandbox.app.journal.requests()) == 2
    lent = lending.tenant("lent", "pro")
    assert lending.post(CHAT, lent, MINI).headers["x-wardgate-key"] == "managed:canonical"


def test_trouble_with_a_lent_key_is_the_operators_to_mend(lending: RunningGateway, sandbox: SandboxServer) -> None:
    """A tenant of a plan without own keys is not told to store one, at the first answer nor while the key is ill."""
    token = lending.tenant("acme", "free")
    for fault, code, told in (
        ("status=429; code=insufficient_quota", "insufficient_quota", "operator's account"),
        ("status=401", "provider_key_rejected", "operator's key"),
        (None, "provider_key_rejected", "operator's key"),
    ):
        if fault is not None:
            sandbox.script(fault)
        answer = lending.post(CHAT, token, MINI)
        error = answer.json()["error"]
        assert (error["code"], error["fault"]) == (code, "gateway"), error
        assert told in error["message"] and "wardgate key set" not in error["message"]
        assert answer.headers["x-should-retry"] == "false"
    assert len(sandbox.app.journal.requests()) == 2
    asked = {"model": MINI["model"], "messages": HELLO}
    assert "tell the operator" in lending.post("/v1/route", token, asked).json()["fix"]


def test_nobody_is_lent_anything_where_nobody_lends(gateway: RunningGateway) -> None:
    refused = gateway.post(CHAT, gateway.tenant("acme", "free"), MINI)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "operator_key_missing")


SHAPES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 50},
    "/v1/responses": {"input": "Hello"},
}


def test_key_that_the_operator_lacks_is_not_the_tenants_to_store(tmp_path: Path, sandbox: SandboxServer) -> None:
    """A model of the plan, of a provider for which the operator holds nothing."""
    plan = '[plans.free]\nmanaged_models = ["gpt-4o-mini", "minimax/MiniMax-M2"]\n'
    with lends(tmp_path, sandbox, plan) as running:
        token = running.tenant("acme", "free", {"MINIMAX_API_KEY": OWN})  # which this plan does not take
        for path, body in SHAPES.items():
            answer = running.post(path, token, body | {"model": "minimax/MiniMax-M2"})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["fault"]) == (403, "operator_key_missing", "plan"), error
            assert "the operator has no usable key for minimax" in error["message"]
            assert answer.headers["x-should-retry"] == "false"
            made = f"/v1/requests/{answer.headers['x-wardgate-request-id']}"
            eventually(lambda made=made: running.get(made, token).status_code == 200)  # type: ignore[misc]
            rejected = running.get(made, token).json()["decision"]["rejected"]
            assert {one["reason"] for one in rejected} == {"no_operator_key"}
        told = running.post("/v1/route", token, {"model": "minimax/MiniMax-M2", "messages": HELLO}).json()
        assert (
            told["fix"].startswith("tell the operator") and "wardgate key set OPERATOR MINIMAX_API_KEY" in told["fix"]
        )
        assert running.settled("wardgate_route_rejections_total", reason="no_operator_key") == len(SHAPES)
        assert not sandbox.app.journal.requests()


def test_plans_budget_holds_what_the_operator_spends(tmp_path: Path, sandbox: SandboxServer) -> None:
    """A cent a month: calls that may cost a third of a cent each."""
    plan = '[plans.free]\nmanaged_budget_usd_per_month = "0.01"\n'
    with lends(tmp_path, sandbox, plan) as running:
        token = running.tenant("acme", "free")
        dear = MINI | {"max_tokens": 15_000}
        answers = [running.post(CHAT, token, dear) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 200]  # settled to the little that they cost
        refused = running.post(CHAT, token, MINI | {"max_tokens": 16_384, "n": 2})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["fault"]) == (429, "insufficient_quota", "plan")
        assert "has too little left" in error["message"], "and is not used up"
        assert refused.headers["x-should-retry"] == "false" and error["budget"]["whose"] == "plan"
        assert "The plan's budget of 0.01 USD a month for the operator's keys" in error["message"]


@pytest.mark.parametrize("more", [{"web_search_options": {}}, {"search_parameters": {"mode": "on"}}])
def test_what_nobody_can_price_is_not_bought_with_the_operators_keys(
    more: dict[str, Any], lending: RunningGateway, sandbox: SandboxServer
) -> None:
    """Searches are in no budget, so that one field would open the operator's purse to a tenant."""
    refused = lending.post(CHAT, lending.tenant("acme", "enterprise"), MINI | {"model": "openai/gpt-4o"} | more)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unpriced")
    assert "searches" in refused.json()["error"]["message"] and not sandbox.app.journal.requests()
    own = lending.tenant("own", "pro", {"OPENAI_API_KEY": OWN})
    assert lending.post(CHAT, own, MINI | {"model": "openai/gpt-4o"} | more).status_code == 200


SEARCHES = MINI | {"model": "openai/gpt-4o-search-preview"}


def test_model_that_searches_unasked_is_not_bought_with_the_operators_keys(
    lending: RunningGateway, sandbox: SandboxServer
) -> None:
    """Each of its calls costs a fee beside the tokens, which nobody counts; with its own key the tenant's cost is not
    known."""
    refused = lending.post(CHAT, lending.tenant("acme", "enterprise"), SEARCHES)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (403, "unpriced") and not sandbox.app.journal.requests()
    assert "searches unasked" in error["message"]
    own = lending.tenant("own", "pro", {"OPENAI_API_KEY": OWN})
    answer = lending.post(CHAT, own, SEARCHES)
    assert answer.status_code == 200 and "x-wardgate-cost-usd" not in answer.headers

    def unpriced() -> bool:
        rows = lending.get("/v1/usage?by=model", own).json()["rows"]
        return [(row["cost_usd"], row["unpriced_requests"]) for row in rows] == [(None, 1)]

    eventually(unpriced)


def test_fee_of_a_search_that_the_operator_tells_is_held_and_charged(tmp_path: Path, sandbox: SandboxServer) -> None:
    prices = '[models."openai/gpt-4o-search-preview".prices]\ninput = "2.5"\noutput = "10"\nrequest = "0.025"\n'
    with lends(tmp_path, sandbox, prices) as running:
        token = running.tenant("acme", "enterprise")
        answer = running.post(CHAT, token, SEARCHES)
        assert answer.status_code == 200, answer.text
        cost = Decimal(answer.headers["x-wardgate-cost-usd"])
        assert Decimal("0.025") < cost < Decimal("0.026")
        made = f"/v1/requests/{answer.headers['x-wardgate-request-id']}"
        eventually(lambda: running.get(made, token).json().get("receipt") is not None)
        lines = {one["class"]: one["cost_nano"] for one in running.get(made, token).json()["receipt"]["lines"]}
        assert lines["request"] == 25_000_000


@pytest.mark.parametrize(
    ("models", "status", "code"),
    [
        (["openai/gpt-4o-mini", SEARCHES["model"]], 429, "insufficient_quota"),
        ([SEARCHES["model"], "openai/gpt-4o-mini"], 403, "unpriced"),
    ],
)
def test_first_of_several_that_no_budget_takes_says_why(
    models: list[str], status: int, code: str, tmp_path: Path, sandbox: SandboxServer
) -> None:
    """Else a spent budget would be told as a missing price, which nobody can wait for."""
    with lends(tmp_path, sandbox, '[plans.enterprise]\nmanaged_budget_usd_per_month = "0.000001"\n') as running:
        asked = {"models": models, "messages": HELLO, "max_tokens": 1000}
        refused = running.post(CHAT, running.tenant("acme", "enterprise"), asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code), refused.text
    assert not sandbox.app.journal.requests()


def test_who_is_passed_over_for_a_budget_is_told_wherever_the_answer_is(lending: RunningGateway) -> None:
    own = {"MINIMAX_API_KEY": OWN}
    token = lending.tenant("acme", "enterprise", own)

    async def bind(keystore: Keystore) -> None:
        await keystore.budgets.set(await keystore.tenants.get("acme"), "day", "byok", Decimal(0), hard=True)

    lending.operate(bind)
    models = ["minimax/MiniMax-M2", "openai/gpt-4o-mini"]
    both = {"models": models, "messages": HELLO, "max_tokens": 20}
    answer = lending.post(CHAT, token, both)
    assert (answer.status_code, answer.headers["x-wardgate-key"]) == (200, "managed:canonical"), answer.text
    told = ["minimax/MiniMax-M2 (insufficient_quota)"]
    assert answer.headers["x-wardgate-passed-over"] == told[0] and answer.headers["x-wardgate-attempts"] == "1"
    (line,) = lending.logs.records("fallback")
    assert (line["from_provider"], line["to_provider"], line["reason"]) == ("minimax", "openai", "insufficient_quota")
    labels = {"from_provider": "minimax", "to_provider": "openai", "reason": "insufficient_quota"}
    assert lending.settled("wardgate_fallbacks_total", **labels) == 1
    assert lending.metric("wardgate_budget_refusals_total", why="spent") == 0
    record = f"/v1/requests/{answer.headers['x-wardgate-request-id']}"
    eventually(lambda: lending.get(record, token).status_code == 200)
    assert lending.get(record, token).json()["passed_over"] == told
    shown = lending.cli("explain", "--request", answer.headers["x-wardgate-request-id"])
    assert f"Passed over, since a budget did not allow it: {told[0]}." in shown.stdout, shown
    refused = lending.post(CHAT, token, both | {"models": models[:1]})
    assert refused.status_code == 429 and "x-wardgate-passed-over" not in refused.headers
    assert lending.settled("wardgate_budget_refusals_total", why="spent") == 1


def test_use_of_a_lent_key_is_the_operators(lending: RunningGateway) -> None:
    token = lending.tenant("acme", "free")
    assert lending.post(CHAT, token, MINI).status_code == 200

    async def used(keystore: Keystore) -> set[str]:
        return {tenant.slug for tenant in await keystore.tenants.list() if await keystore.use.of(tenant.id)}

    eventually(lambda: lending.operate(used) != set())
    assert lending.operate(used) == {"house"}


@pytest.mark.parametrize(
    ("table", "says"),
    [({"tenants": "x"}, 'did you mean "tenant"'), ({"tenant": ""}, "slug"), ({"tenant": 3}, "slug")],
)
def test_what_managed_cannot_be_is_said(table: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config({"managed": table})


def test_operator_that_is_not_there_stops_the_start(tmp_path: Path, sandbox: SandboxServer) -> None:
    with (
        pytest.raises(ConfigError, match="wardgate tenant add house"),
        RunningGateway(tmp_path, sandbox_config(sandbox.url, MANAGED)),
    ):
        pass


def test_budget_of_a_call_that_failed_is_not_held_for_the_next(lending: RunningGateway, sandbox: SandboxServer) -> None:
    """The operator's model fails, the tenant's own answers: the plan's budget covers nothing of it."""
    token = lending.tenant("acme", "pro", {"ANTHROPIC_API_KEY": OWN})
    sandbox.script("status=500")
    models = {"models": ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"], "max_tokens": 1}
    answer = lending.post(CHAT, token, {"messages": HELLO, **models})
    assert (answer.status_code, answer.headers["x-wardgate-attempts"]) == (200, "2"), answer.text
    assert answer.headers["x-wardgate-key"] == "byok:canonical"
    lines = [line for file in (lending.folder / "journal").glob("*.jsonl") for line in file.read_bytes().splitlines()]
    (ended,) = [line for line in lines if b'"settled"' in line]
    assert b'"key_source":"byok"' in ended and b"plan:" not in ended


def test_plan_without_keys_of_tenants_is_served_where_the_operator_lends_its_own() -> None:
    rules = load_rules(Settings(config=None))
    assert "are not lent" in (unserved("free", rules) or "")
    assert unserved("free", replace(rules, operator="house")) is None
