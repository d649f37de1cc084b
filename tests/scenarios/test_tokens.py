"""What a token may do, seen from outside: scopes, models, addresses, seals."""

import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from keystore.keystore import Keystore, NewToken
from tests.harness import RunningGateway

HELLO: dict[str, Any] = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}


def token(gateway: RunningGateway, **rights: Any) -> str:
    """A token of the tenant acme, which holds a key for MiniMax."""

    async def work(keystore: Keystore) -> NewToken:
        tenant = await keystore.tenants.get("acme")
        return await keystore.tokens.create(tenant, **rights)

    gateway.tenant("acme", keys={"MINIMAX_API_KEY": "sk-sandbox-acme"})
    return gateway.operate(work).token


@pytest.mark.parametrize(
    ("rights", "status", "code"),
    [
        ({}, 200, None),
        ({"scopes": ["inference", "keys:read"]}, 200, None),
        ({"scopes": ["keys:read"]}, 403, "scope_required"),
        ({"allowed_models": ["MiniMax-M2"]}, 200, None),
        ({"allowed_models": ["minimax/*"]}, 200, None),
        ({"allowed_models": ["gpt-4o"]}, 403, "token_model_not_allowed"),
        ({"allowed_addresses": ["127.0.0.1"]}, 200, None),
        ({"allowed_addresses": ["10.0.0.0/8", "127.0.0.0/8"]}, 200, None),
        ({"allowed_addresses": ["10.0.0.0/8", "::1"]}, 403, "address_not_allowed"),
    ],
)
def test_token_does_what_it_is_for(
    gateway: RunningGateway, rights: dict[str, list[str]], status: int, code: str | None
) -> None:
    answer = gateway.post("/v1/chat/completions", token(gateway, **rights), HELLO)
    assert (answer.status_code, answer.json().get("error", {}).get("code")) == (status, code)


def test_models_and_route_know_the_tokens_models(gateway: RunningGateway) -> None:
    mine = token(gateway, allowed_models=["MiniMax-M2"])
    listed = [model["id"] for model in gateway.get("/v1/models", mine).json()["data"]]
    assert listed == ["minimax/MiniMax-M2"]
    decision = gateway.post("/v1/route", mine, {**HELLO, "model": "auto"}).json()
    assert {candidate["model"] for candidate in decision["ranked"]} == {"MiniMax-M2"}
    assert "model_not_in_token" in {one["reason"] for one in decision["rejected"]}


WRITES: dict[str, Callable[[str], str]] = {
    "more scopes": lambda _: "UPDATE wardgate_tokens SET scopes = 'inference keys:write'",
    "no seal": lambda _: "UPDATE wardgate_tokens SET mac = NULL",
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_spoiled_row_is_answered_like_an_unknown_token(gateway: RunningGateway, write: Callable[[str], str]) -> None:
    mine = token(gateway)
    unknown = gateway.post("/v1/chat/completions", "wg_live_nothing", HELLO)
    with sqlite3.connect(gateway.folder / "wardgate.db") as connection:
        connection.execute(write(mine))
    connection.close()
    answer = gateway.post("/v1/chat/completions", mine, HELLO)
    assert (answer.status_code, answer.content) == (401, unknown.content)


def test_rotated_token_and_its_successor_are_both_answered(gateway: RunningGateway) -> None:
    mine = token(gateway)
    rotate: Callable[[Keystore], Awaitable[NewToken]] = lambda keystore: _rotate(keystore, mine)  # noqa: E731
    new = gateway.operate(rotate)
    for each in (mine, new.token):
        assert gateway.post("/v1/chat/completions", each, HELLO).status_code == 200


async def _rotate(keystore: Keystore, text: str) -> NewToken:
    return await keystore.tokens.rotate(text.split("_")[2], overlap=timedelta(hours=1))
