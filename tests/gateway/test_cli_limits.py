"""`wardgate limit` as scripts and people use it."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.commands import Commands


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands(tmp_path, monkeypatch)
    made("tenant", "add", "acme", "--plan", "team", "--id", "acme")
    return made


def limits(cli: Commands) -> list[tuple[Any, ...]]:
    listed = cli.json("limit", "list", "acme")
    assert isinstance(listed, list)
    return [(one["whose"], one["limit"], one["amount"]) for one in listed]


def test_operator_sets_lists_and_removes_limits(cli: Commands) -> None:
    token = cli.json("token", "create", "acme")
    assert isinstance(token, dict)
    planned = limits(cli)
    assert [each[:2] for each in planned] == [
        ("plan", name) for name in ("requests_per_minute", "tokens_per_minute", "concurrency")
    ]
    made = cli.json("limit", "set", "acme", "--requests-per-minute", "600", "--concurrency", "7")
    assert made == [
        {"whose": "tenant", "token": None, "limit": "concurrency", "amount": 7},
        {"whose": "tenant", "token": None, "limit": "requests_per_minute", "amount": 600},
    ]
    own = cli.json("limit", "set", "acme", "--tokens-per-minute", "90000", "--token", token["token"])
    assert own == [{"whose": "token", "token": token["id"], "limit": "tokens_per_minute", "amount": 90_000}]
    assert limits(cli) == [
        planned[1],
        ("tenant", "requests_per_minute", 600),
        ("tenant", "concurrency", 7),
        ("token", "tokens_per_minute", 90_000),
    ]
    told = cli("limit", "list", "acme")
    assert "90,000" in told and token["id"] in told and "whose" in told

    assert cli("limit", "remove", "acme", "--concurrency") == "acme has no longer: concurrency 7.\n"
    assert "of its own; it has: requests_per_minute" in cli("limit", "remove", "acme", "--concurrency", code=1)
    removed = cli.json("limit", "remove", "acme", "--token", token["id"])
    assert isinstance(removed, list) and removed[0]["removed"] is True
    cli("limit", "remove", "acme")
    assert limits(cli) == planned


def test_sentences_for_people_and_the_record(cli: Commands) -> None:
    said = cli("limit", "set", "acme", "--concurrency", "7", "--tokens-per-minute", "1000")
    assert said == "acme has: concurrency 7, tokens_per_minute 1,000.\n"
    cli("limit", "remove", "acme")
    listed = cli.json("audit", "list")
    assert isinstance(listed, list)
    noted = {(one["action"], one["target"], one["outcome"]) for one in listed if one["action"].startswith("limit.")}
    assert noted == {
        (action, target, outcome)
        for action, target in (("limit.set", "tokens_per_minute concurrency"), ("limit.remove", ""))
        for outcome in ("begun", "done")
    }
    assert {"concurrency": 7, "tokens_per_minute": 1_000} in [one["detail"] for one in listed]


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (("acme",), 1, "none is given"),
        (("acme", "--concurrency", "0"), 1, "from 1 to"),
        (("acme", "--concurrency", "many"), 2, "--concurrency"),
        (("acme", "--concurrency", "1", "--token", "AAAAAAAAAAAA"), 1, "has no token 'AAAAAAAAAAAA'"),
        (("acne", "--concurrency", "1"), 1, "acme"),
    ],
)
def test_what_is_no_limit_is_refused(cli: Commands, arguments: tuple[str, ...], code: int, hint: str) -> None:
    assert hint in cli("limit", "set", *arguments, code=code)
    assert {each[0] for each in limits(cli)} == {"plan"}
