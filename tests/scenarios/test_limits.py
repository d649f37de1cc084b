"""Limits over HTTP: the operator sets a tenant's and a token's, and a refusal says whose it was."""

import itertools
from typing import Any

import httpx
import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway
from tests.scenarios.control import Control
from tests.scenarios.truth import CHAT

ASK = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello."}]}
PLANNED = ["requests_per_minute", "tokens_per_minute", "concurrency"]
_numbers = itertools.count()


@pytest.fixture
def slug(control: Control) -> str:
    """A tenant of the test's own, and a token that is called as it is."""
    name = f"limited-{next(_numbers)}"
    assert control.admin("POST", "/admin/tenants", {"slug": name, "plan": "team"}).status_code == 201
    control.tokens[name] = control.admin("POST", "/admin/tokens", {"tenant": name, "scopes": ["inference"]}).json()[
        "token"
    ]
    return name


def put(control: Control, slug: str, which: str, body: dict[str, Any], token: str = "") -> httpx.Response:
    query = f"?token={token}" if token else ""
    return control.admin("PUT", f"/admin/tenants/{slug}/limits/{which}{query}", body)


def listed(control: Control, slug: str) -> list[tuple[str, str, int]]:
    rows = control.everything(f"/admin/tenants/{slug}/limits", 2)
    return [(one["whose"], one["limit"], one["amount"]) for one in rows]


def test_operator_sets_lists_and_removes(control: Control, slug: str) -> None:
    token = control.tokens[slug].split("_")[2]
    planned = listed(control, slug)
    assert [each[:2] for each in planned] == [("plan", name) for name in PLANNED]
    assert put(control, slug, "concurrency", {"amount": 7}).json() == {
        **{"object": "limit", "whose": "tenant", "token": None, "limit": "concurrency", "amount": 7},
    }
    own = put(control, slug, "requests_per_minute", {"amount": 60}, token).json()
    assert (own["whose"], own["token"], own["amount"]) == ("token", token, 60)
    assert listed(control, slug) == [
        *planned[:2],
        ("tenant", "concurrency", 7),
        ("token", "requests_per_minute", 60),
    ]
    path = f"/admin/tenants/{slug}/limits/concurrency"
    assert control.admin("DELETE", path).json()["removed"] is True
    again = control.admin("DELETE", path)
    assert (again.status_code, again.json()["error"]["code"]) == (404, "limit_unknown")
    noted = control.everything(f"/admin/audit?tenant={slug}&action=limit.set", 50)
    assert {(row["target"], row["outcome"]) for row in noted} == {
        (target, outcome) for target in ("concurrency", f"requests_per_minute {token}") for outcome in ("begun", "done")
    }


@pytest.mark.parametrize(
    ("which", "body", "token", "status", "code"),
    [
        ("requests", {"amount": 1}, "", 404, "limit_unknown"),
        ("concurrency", {"amount": 0}, "", 400, "invalid_request"),
        ("concurrency", {"amount": "5"}, "", 400, "invalid_request"),
        ("concurrency", {"amount": 10**10 + 1}, "", 400, "invalid_request"),
        ("concurrency", {}, "", 400, "invalid_request"),
        ("concurrency", {"amount": 1}, "AAAAAAAAAAAA", 400, "limit_refused"),
        ("concurrency", {"amount": 1}, "short", 400, "invalid_request"),
    ],
)
def test_what_is_no_limit_is_refused(
    control: Control, slug: str, which: str, body: dict[str, Any], token: str, status: int, code: str
) -> None:
    answer = put(control, slug, which, body, token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert [each[0] for each in listed(control, slug)] == ["plan"] * 3


def test_refusal_says_whose_limit_it_was(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    """The plan's are out of reach; the token's refuses first, then the tenant's, for which another token asks too."""
    first = gateway.tenant("acme", keys={"MINIMAX_API_KEY": "sk-sandbox-a"})
    made = gateway.cli("token", "create", "acme", "--json")
    second = httpx.Response(200, content=made.stdout).json()["token"]
    assert gateway.get("/v1/models", first).status_code == 200, "its keys and limits are remembered"
    for more in (("--requests-per-minute", "4"), ("--requests-per-minute", "2", "--token", first)):
        done = gateway.cli("limit", "set", "acme", *more)
        assert done.returncode == 0, done.stderr

    def limit(answer: httpx.Response) -> dict[str, Any]:
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded"), answer.text
        about: dict[str, Any] = answer.json()["error"]["limit"]
        return about | {"said": answer.json()["error"]["message"].split(".")[0]}

    answers = [gateway.post(CHAT, first, ASK) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert limit(answers[2]) == {
        **{"kind": "requests", "whose": "token", "plan": "team", "amount": 2, "remaining": 0},
        "said": "The limit of this token allows 2 requests a minute",
    }
    answers = [gateway.post(CHAT, second, ASK) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert [answers[1].headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining")] == ["4", "0"]
    about = limit(answers[2])
    assert (about["whose"], about["amount"]) == ("tenant", 4)
    assert about["said"] == "The limit of this tenant allows 4 requests a minute"


@pytest.mark.parametrize("path", ["/v1/route", "/v1/messages/count_tokens"])
def test_what_calls_no_model_is_a_request_all_the_same(
    gateway: RunningGateway, sandbox: SandboxServer, path: str
) -> None:
    token = gateway.tenant("acme", keys={"MINIMAX_API_KEY": "sk-sandbox-a"})
    done = gateway.cli("limit", "set", "acme", "--requests-per-minute", "2", "--concurrency", "1")
    assert done.returncode == 0, done.stderr
    answers = [gateway.post(path, token, ASK) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429], answers[-1].text
    assert int(answers[2].headers["retry-after-ms"]) > 0
    assert gateway.post(CHAT, token, ASK).status_code == 429
