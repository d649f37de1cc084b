"""`wardgate plan` and what `tenant add` says to do first: exit codes for pipelines, JSON for scripts."""

import json
from pathlib import Path

import pytest

from tests.gateway.test_cli import Cli

STARTER = """
[plans.starter]
above = "free"
managed_models = ["gpt-4o-mini"]
byok = true
byok_models = ["minimax/*"]
requests_per_minute = 10
tokens_per_minute = 40000
concurrency = 2
managed_budget_usd_per_month = "5"
min_quality = 0
default_model = "minimax/MiniMax-M2"
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def config(cli: Cli, text: str) -> None:
    (cli.folder / "wardgate.toml").write_text(text)


def test_lint_passes_the_shipped_plans_and_strict_stops_at_their_retired_models(cli: Cli) -> None:
    findings = json.loads(cli("plan", "lint", "--json"))
    assert {each["severity"] for each in findings} == {"warning"}
    assert json.loads(cli("plan", "lint", "--strict", "--json", code=3)) == findings
    assert any("gemini-1.5-pro" in each["finding"] for each in findings)


def test_lint_stops_at_a_plan_that_has_less_than_one_below_it_unless_it_says_so(cli: Cli) -> None:
    config(cli, STARTER)
    told = cli("plan", "lint", code=3)
    assert "less than plan 'free' below it" in told and "requests_per_minute" in told
    config(cli, STARTER + "narrower_than_lower = true\n")
    cli("plan", "lint")
    names = [row["name"] for row in json.loads(cli("plan", "list", "--json"))]
    assert names.index("starter") == names.index("free") + 1


def test_row_that_is_not_complete_is_refused_by_lint_as_by_the_start(cli: Cli) -> None:
    config(cli, "[plans.starter]\nbyok = true\n")
    assert "'starter'" in cli("plan", "lint", code=1)


def test_simulation_says_what_would_be_lost_and_exits_3(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    cli("key", "set", "acme", "MINIMAX_2_7_API_KEY", stdin="sk-very-secret-value-123")
    record = json.loads(cli("plan", "simulate", "acme", "--plan", "free", "--json", code=3))
    assert (record["tenant"], record["before"], record["after"], record["loses"]) == ("acme", "team", "free", True)
    assert "minimax/MiniMax-M2" in record["own_keys"]["lost"] and record["own_keys"]["gained"] == []
    assert {"field": "byok", "before": True, "after": False, "effect": "lost"} in record["limits"]
    money = next(one for one in record["limits"] if one["field"] == "managed_budget_usd_per_month")
    assert (money["before"], money["after"]) == ("1000", "5")
    told = cli("plan", "simulate", "acme", "--plan", "free", code=3)
    assert "acme is on plan team; on free it would lose something." in told
    assert "- minimax/MiniMax-M2, " in told and "cannot be used" in told
    assert json.loads(cli("tenant", "show", "acme", "--json"))["plan"] == "team"  # nothing was changed
    won = cli("plan", "simulate", "acme", "--plan", "enterprise")
    assert "it would lose nothing" in won and "models with the operator's keys: 0 gained" in won
    assert "[managed] tenant is not set, so nothing is lent: " in won and " for anthropic, " in won
    assert 'did you mean "team"' in cli("plan", "simulate", "acme", "--plan", "teem", code=1)
    assert "acne" in cli("plan", "simulate", "acne", "--plan", "team", code=1)


def test_simulation_counts_no_model_that_the_operator_has_no_key_for(cli: Cli) -> None:
    cli("tenant", "add", "house", "--plan", "enterprise")
    cli("key", "set", "house", "OPENAI_API_KEY", stdin="sk-operators-own-value-1")
    cli("tenant", "add", "acme", "--plan", "free")
    config(cli, '[managed]\ntenant = "house"\n')
    record = json.loads(cli("plan", "simulate", "acme", "--plan", "enterprise", "--json", code=3))
    gained = record["managed_keys"]["gained"]
    assert "openai/gpt-4o" in gained and {one.partition("/")[0] for one in gained} == {"openai"}
    default = record["default_model"]  # openai/gpt-4o-mini, with the operator's key; then minimax/MiniMax-M2, with none
    assert (default["usable_before"], default["usable_after"]) == (True, False)
    unlent = record["not_lent"]
    assert unlent["reason"] == "no_operator_key" and "openai" not in unlent["providers"]
    assert any(one.startswith("anthropic/") for one in unlent["models"]) and "anthropic" in unlent["providers"]
    told = cli("plan", "simulate", "acme", "--plan", "enterprise", code=3)
    assert "house has no usable key for them: " in told and "+ openai/" in told


@pytest.mark.parametrize(
    ("options", "name", "model"),
    [
        (("--plan", "team"), "MINIMAX_API_KEY", "minimax/MiniMax-M2"),
        (("--plan", "team", "--default-model", "openai/gpt-4o"), "OPENAI_API_KEY", "openai/gpt-4o"),
        (("--plan", "team", "--default-model", "minimax_2_7/MiniMax-M2"), "MINIMAX_API_KEY", "minimax_2_7/MiniMax-M2"),
        (("--plan", "team", "--default-model", "auto"), "MINIMAX_API_KEY", "auto"),
        (("--plan", "free"), None, None),
        (("--plan", "open"), None, None),
    ],
)
def test_new_tenant_is_told_which_key_to_store_first(
    cli: Cli, options: tuple[str, ...], name: str | None, model: str | None
) -> None:
    config(cli, STARTER.replace("starter", "open").replace("minimax/MiniMax-M2", "auto"))
    told = cli("tenant", "add", "acme", *options)
    added = json.loads(cli("tenant", "add", "beta", *options, "--json"))
    if name is None:
        assert "Store a key" not in told and added["first_key"] is None
        return
    assert f"Store a key as {name} to use {model}: printf %s VALUE | wardgate key set acme {name}" in told
    assert (added["first_key"]["setting_key"], added["first_key"]["model"]) == (name, model)
