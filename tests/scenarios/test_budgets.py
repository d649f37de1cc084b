"""Budgets over HTTP: the operator sets them, the tenant sees what is left of those that its token is under."""

import itertools
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, eventually
from tests.scenarios.control import Control

CHAT = "/v1/chat/completions"
ASK = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello."}]}
_numbers = itertools.count()


@pytest.fixture
def slug(control: Control) -> str:
    """A tenant of the test's own, with two tokens that are called as it is, and `NAME second`."""
    name = f"spends-{next(_numbers)}"
    assert control.admin("POST", "/admin/tenants", {"slug": name, "plan": "team"}).status_code == 201
    for who in (name, f"{name} second"):
        made = control.admin("POST", "/admin/tokens", {"tenant": name, "scopes": ["inference"]})
        control.tokens[who] = made.json()["token"]
    return name


def id_of(control: Control, who: str) -> str:
    return control.tokens[who].split("_")[2]


def put(control: Control, slug: str, which: str, body: dict[str, Any], token: str = "") -> httpx.Response:
    query = f"?token={token}" if token else ""
    return control.admin("PUT", f"/admin/tenants/{slug}/budgets/{which}{query}", body)


def listed(control: Control, slug: str) -> list[dict[str, Any]]:
    return control.everything(f"/admin/tenants/{slug}/budgets", 2)


def test_operator_sets_lists_and_removes(control: Control, slug: str) -> None:
    token = id_of(control, slug)
    first = put(control, slug, "managed/month", {"amount_usd": "49.90"}).json()
    assert first | {"starts": "", "resets_at": ""} == {
        **{"object": "budget", "whose": "tenant", "token": None, "spend": "managed", "period": "month", "hard": True},
        **{"amount_usd": "49.9", "spent_usd": "0", "held_usd": "0", "left_usd": "49.9", "starts": "", "resets_at": ""},
    }
    assert put(control, slug, "managed/month", {"amount_usd": "50", "hard": False}).json()["hard"] is False
    own = put(control, slug, "byok/day", {"amount_usd": "0.000000001"}, token).json()
    assert (own["whose"], own["token"], own["hard"], own["left_usd"]) == ("token", token, False, "0.000000001")
    assert datetime.fromisoformat(own["resets_at"]) > datetime.now(UTC)
    found = [(one["whose"], one["spend"], one["period"]) for one in listed(control, slug)]
    assert found == [("plan", "managed", "month"), ("tenant", "managed", "month"), ("token", "byok", "day")]

    path = f"/admin/tenants/{slug}/budgets/managed/month"
    assert control.admin("DELETE", path).json()["removed"] is True
    again = control.admin("DELETE", path)
    assert (again.status_code, again.json()["error"]["code"]) == (404, "budget_unknown")
    assert [one["whose"] for one in listed(control, slug)] == ["plan", "token"]
    noted = control.everything(f"/admin/audit?tenant={slug}&action=budget.set", 50)
    assert {(row["target"], row["outcome"]) for row in noted} == {
        (target, outcome) for target in ("managed month", f"byok day {token}") for outcome in ("begun", "done")
    }


def test_idempotency_key_sets_once(control: Control, slug: str) -> None:
    path = f"/admin/tenants/{slug}/budgets/byok/month"
    first = control.admin("PUT", path, {"amount_usd": "1"}, idempotency_key=slug)
    put(control, slug, "byok/month", {"amount_usd": "2"})
    again = control.admin("PUT", path, {"amount_usd": "1"}, idempotency_key=slug)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    assert [one["amount_usd"] for one in listed(control, slug)][1:] == ["2"]


@pytest.mark.parametrize(
    ("which", "body", "token", "status", "code"),
    [
        ("managed/week", {"amount_usd": "1"}, "", 404, "budget_unknown"),
        ("plan/month", {"amount_usd": "1"}, "", 404, "budget_unknown"),
        ("managed/day", {"amount_usd": 1.5}, "", 400, "invalid_request"),
        ("managed/day", {"amount_usd": "-1"}, "", 400, "invalid_request"),
        ("managed/day", {"amount_usd": "0.1234567891"}, "", 400, "invalid_request"),
        ("managed/day", {"amount_usd": "9999999999"}, "", 400, "budget_refused"),
        ("managed/day", {"amount_usd": "1", "hard": "yes"}, "", 400, "invalid_request"),
        ("managed/day", {"amount_usd": "1"}, "AAAAAAAAAAAA", 400, "budget_refused"),
        ("managed/day", {"amount_usd": "1"}, "short", 400, "invalid_request"),
    ],
)
def test_what_is_no_budget_is_refused(
    control: Control, slug: str, which: str, body: dict[str, Any], token: str, status: int, code: str
) -> None:
    answer = put(control, slug, which, body, token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert [one["whose"] for one in listed(control, slug)] == ["plan"]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("budgets/managed/day", {"amount_usd": 1.5}, 'amount_usd: it must be text in quotes, such as "49.90"'),
        ("budgets/managed/day", {"amount_usd": 50}, 'amount_usd: it must be text in quotes, such as "49.90"'),
        ("budgets/managed/day", {"amount_usd": "1", "hard": "yes"}, "hard: it must be true or false, without quotes"),
        ("limits/concurrency", {"amount": "5"}, "amount: it must be a whole number without quotes, such as 600"),
        ("limits/concurrency", {"amount": 5.5}, "amount: it must be a whole number without quotes, such as 600"),
    ],
)
def test_amount_of_the_other_kind_is_refused_with_the_form_that_is_wanted(
    control: Control, path: str, body: dict[str, Any], told: str
) -> None:
    answer = control.admin("PUT", f"/admin/tenants/beta/{path}", body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, told), answer.text


def test_tenant_sees_the_budgets_that_its_token_is_under(control: Control, slug: str) -> None:
    put(control, slug, "managed/day", {"amount_usd": "7"})
    put(control, slug, "byok/month", {"amount_usd": "3"}, id_of(control, slug))
    put(control, slug, "byok/month", {"amount_usd": "4"}, id_of(control, f"{slug} second"))
    put(control, "beta", "managed/day", {"amount_usd": "123"})
    plan = listed(control, slug)[0]["amount_usd"]
    for who, own in ((slug, "3"), (f"{slug} second", "4")):
        for path in ("/v1/budgets", "/budgets/"):
            answer = control.ask(who, "GET", path)
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            assert [one["amount_usd"] for one in answer.json()["data"]] == [plan, "7", own]
    named = control.ask(slug, "GET", f"/v1/budgets?token={id_of(control, slug)}")
    assert (named.status_code, named.json()["error"]["code"]) == (400, "invalid_request")
    refused = {who: control.ask(who, "GET", "/v1/budgets").status_code for who in (None, "reader", "admin")}
    assert refused == {None: 401, "reader": 403, "admin": 403}
    assert control.ask(slug, "POST", "/v1/budgets", {}).status_code == 405
    control.admin("DELETE", "/admin/tenants/beta/budgets/managed/day")


def test_what_calls_cost_is_spent_of_both_budgets(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    """A tenant's own key, and budgets of the tenant and of the token: what the answers said they cost is spent."""
    token = gateway.tenant("acme", keys={"MINIMAX_2_7_API_KEY": "sk-sandbox-minimax"})
    for more in ((), ("--token", token)):
        done = gateway.cli("budget", "set", "acme", "2", "--period", "month", "--spend", "byok", "--hard", *more)
        assert done.returncode == 0, done.stderr
    cost = sum(Decimal(gateway.post(CHAT, token, ASK).headers["x-wardgate-cost-usd"]) for _ in range(3))

    def budgets() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = gateway.get("/v1/budgets", token).json()["data"]
        return [one for one in found if one["spend"] == "byok"]

    assert cost > 0
    eventually(lambda: {Decimal(one["spent_usd"]) for one in budgets()} == {cost})
    for one in budgets():
        parts = [Decimal(one[f"{name}_usd"]) for name in ("spent", "held", "left")]
        assert sum(parts) == 2 and parts[2] > 0
    assert [one["whose"] for one in budgets()] == ["tenant", "token"]


def test_rotated_token_and_its_successor_spend_one_budget(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    old = gateway.tenant("acme", keys={"MINIMAX_2_7_API_KEY": "sk-sandbox-minimax"})
    which = ("acme", "{}", "--period", "day", "--spend", "byok", "--hard", "--token")

    def set_now(amount: str, token: str) -> None:
        done = gateway.cli("budget", "set", *(each.format(amount) for each in which), token)
        assert done.returncode == 0, done.stderr

    def stands(token: str) -> tuple[Decimal, Decimal]:
        (own,) = (one for one in gateway.get("/v1/budgets", token).json()["data"] if one["whose"] == "token")
        return Decimal(own["amount_usd"]), Decimal(own["spent_usd"])

    set_now("2", old)
    cost = Decimal(gateway.post(CHAT, old, ASK).headers["x-wardgate-cost-usd"])
    new = json.loads(gateway.cli("token", "rotate", old, "--overlap-hours", "1", "--json").stdout)["token"]
    cost += sum(Decimal(gateway.post(CHAT, each, ASK).headers["x-wardgate-cost-usd"]) for each in (new, old))
    eventually(lambda: stands(new) == stands(old) == (Decimal(2), cost))

    set_now(str(cost), new)
    for each in (new, old):
        refused = gateway.post(CHAT, each, ASK)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
