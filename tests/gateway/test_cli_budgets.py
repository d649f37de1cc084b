"""`wardgate budget` as scripts and people use it."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.commands import Commands
from tests.gateway.test_cli import Cli

MONTH, DAY = ("--period", "month"), ("--period", "day")
MANAGED, OWN = ("--spend", "managed"), ("--spend", "byok")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands(tmp_path, monkeypatch)
    made("tenant", "add", "acme", "--plan", "team", "--id", "acme")
    return made


def budgets(cli: Commands, slug: str = "acme") -> list[dict[str, Any]]:
    listed = cli.json("budget", "list", slug)
    assert isinstance(listed, list)
    return listed


def spend(cli: Commands, key: str, spent: int, held: int, *, day: bool = False) -> None:
    """As if so much was spent and held in the present period."""
    today = datetime.now(UTC).date()
    starts = today if day else today.replace(day=1)
    values = (key, starts.isoformat(), spent, held)
    with closing(sqlite3.connect(cli.folder / "w.db")) as database, database:
        database.execute("DELETE FROM wardgate_budget_use WHERE budget_key = ?", (key,))
        database.execute("INSERT INTO wardgate_budget_use VALUES (?, ?, ?, ?, 0, NULL)", values)


def test_operator_sets_lists_and_removes_budgets(cli: Commands) -> None:
    token = cli.json("token", "create", "acme")
    assert isinstance(token, dict)
    first = cli.json("budget", "set", "acme", "49.90", *MONTH, *MANAGED)
    assert isinstance(first, dict)
    facts = [first[name] for name in ("whose", "token", "spend", "period", "hard", "amount_usd", "left_usd")]
    assert facts == ["tenant", None, "managed", "month", True, "49.9", "49.9"]
    again = cli.json("budget", "set", "acme", "50", *MONTH, *MANAGED, "--soft")
    assert isinstance(again, dict) and (again["amount_usd"], again["hard"]) == ("50", False)
    own = cli.json("budget", "set", "acme", "0.000000001", *DAY, *OWN, "--token", token["token"])
    assert isinstance(own, dict) and (own["whose"], own["token"], own["hard"]) == ("token", token["id"], False)

    listed = budgets(cli)
    assert [(one["whose"], one["spend"], one["period"], one["amount_usd"]) for one in listed] == [
        ("plan", "managed", "month", listed[0]["amount_usd"]),
        ("tenant", "managed", "month", "50"),
        ("token", "byok", "day", "0.000000001"),
    ]
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(listed[2]["resets_at"]) - today in (timedelta(0), timedelta(days=1))

    removed = cli.json("budget", "remove", "acme", *MONTH, *MANAGED)
    assert isinstance(removed, dict) and (removed["removed"], removed["amount_usd"]) == (True, "50")
    assert [one["whose"] for one in budgets(cli)] == ["plan", "token"]
    assert "no managed budget for a month" in cli("budget", "remove", "acme", *MONTH, *MANAGED, code=1)


def test_what_is_spent_held_and_left_is_told(cli: Commands) -> None:
    cli("budget", "set", "acme", "10", *MONTH, *MANAGED)
    cli("budget", "set", "acme", "1", *DAY, *OWN)
    spend(cli, "plan:acme:managed:month", 1_500_000_001, 0)
    spend(cli, "tenant:acme:managed:month", 1_500_000_001, 2_000_000_000)
    spend(cli, "tenant:acme:byok:day", 1_250_000_000, 0, day=True)
    plan, own_day, month = sorted(budgets(cli), key=lambda one: (one["whose"], one["period"]))
    names = ("spent_usd", "held_usd", "left_usd")
    assert [month[name] for name in names] == ["1.500000001", "2", "6.499999999"]
    assert [own_day[name] for name in names] == ["1.25", "0", "0"]
    assert plan["spent_usd"] == "1.500000001" and plan["hard"] is True
    told = cli("budget", "list", "acme")
    assert "1.500000001" in told and "6.499999999" in told and "soft" in told and "resets" in told


def test_installed_script_says_of_an_amount_that_is_none_what_would_be_one(tmp_path: Path) -> None:
    said = Cli(tmp_path)("budget", "set", "acme", "5 euro", *DAY, *OWN, code=1)
    assert said == "wardgate: an amount is dollars, like \"49.90\", with at most nine decimals, not '5 euro'\n"


def test_sentences_for_people_and_the_record(cli: Commands) -> None:
    said = cli("budget", "set", "acme", "5", *DAY, *OWN, "--hard")
    assert said == "The hard budget of acme, 5 USD a day for the tenant's own keys, is set.\n"
    cli("budget", "remove", "acme", *DAY, *OWN)
    listed = cli.json("audit", "list")
    assert isinstance(listed, list)
    noted = [(one["action"], one["target"], one["outcome"]) for one in listed if one["action"].startswith("budget.")]
    assert sorted(noted) == [
        ("budget.remove", "byok day", "begun"),
        ("budget.remove", "byok day", "done"),
        ("budget.set", "byok day", "begun"),
        ("budget.set", "byok day", "done"),
    ]
    assert next(one["detail"] for one in listed if one["detail"])["amount_usd"] == "5"


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (("acme", "lots", *MONTH, *MANAGED), 1, 'dollars, like "49.90"'),
        (("acme", "-1", *MONTH, *MANAGED), 2, "never negative"),
        (("acme", *MONTH, *MANAGED, "-.5"), 2, "never negative"),
        (("acme", "1", *MONTH, *MANAGED, "--hard", "--soft"), 2, "either hard or soft"),
        (("acme", "0.0000000001", *MONTH, *MANAGED), 1, "nine decimals"),
        (("acme", "1000000001", *MONTH, *MANAGED), 1, "1,000,000,000"),
        (("acme", "1", "--period", "week", *MANAGED), 2, "'day', 'month'"),
        (("acme", "1", *MONTH), 2, "--spend"),
        (("acme", "1", *MONTH, *MANAGED, "--token", "AAAAAAAAAAAA"), 1, "has no token 'AAAAAAAAAAAA'"),
        (("acne", "1", *MONTH, *MANAGED), 1, "acme"),
    ],
)
def test_what_is_no_budget_is_refused(cli: Commands, arguments: tuple[str, ...], code: int, hint: str) -> None:
    assert hint in cli("budget", "set", *arguments, code=code)
    assert [one["whose"] for one in budgets(cli)] == ["plan"]


def test_budget_stays_hard_or_soft_until_it_is_said(cli: Commands) -> None:
    def hard(*arguments: str) -> object:
        found = cli.json("budget", "set", "acme", *arguments)
        assert isinstance(found, dict)
        return found["hard"]

    own, managed = (*DAY, *OWN), (*DAY, *MANAGED)
    assert [hard("1", *own), hard("1", *managed)] == [False, True], "as new ones are"
    assert [hard("1", *own, "--hard"), hard("2", *own), hard("2", *own, "--soft")] == [True, True, False]
    assert [hard("1", *managed, "--soft"), hard("2", *managed), hard("2", *managed, "--hard")] == [False, False, True]


def test_removing_names_what_that_token_has(cli: Commands) -> None:
    token = cli.json("token", "create", "acme")
    assert isinstance(token, dict)
    cli("budget", "set", "acme", "1", *DAY, *OWN)
    cli("limit", "set", "acme", "--concurrency", "3")
    for wanted in (("budget", "remove", "acme", *DAY, *OWN), ("limit", "remove", "acme", "--concurrency")):
        unknown = cli(*wanted, "--token", "AAAAAAAAAAAA", code=1)
        assert "has no token 'AAAAAAAAAAAA'; `wardgate token list` shows them" in unknown
        assert "it has" not in unknown
    none = cli("budget", "remove", "acme", *DAY, *OWN, "--token", token["id"], code=1)
    assert f"the token '{token['id']}' of tenant 'acme' has no byok budget for a day; it has: none" in none
    cli("budget", "set", "acme", "1", *MONTH, *OWN, "--token", token["id"])
    other = cli("budget", "remove", "acme", *DAY, *OWN, "--token", token["id"], code=1)
    assert other.rstrip().endswith("it has: byok for a month")
