"""The plan table: what ships, what an operator may lay over it, what is refused, what lint finds."""

import subprocess
import sys
from decimal import Decimal
from itertools import pairwise

import pytest

from keystore.providers import load_registry
from router.catalogue import Offer
from router.entitlement import Entitlements
from router.errors import PlanError
from router.model_names import parse_name
from router.plans import Finding, Plan, Plans, Severity, check_known, lint, load_plans
from router.query import KeySource
from tests.router import world
from tests.router.vectors import Row, rows

SEEDS = (
    "gpt-4o gpt-4o-mini claude-3-5-sonnet claude-3-haiku deepseek-chat deepseek-v3.2 gemini-1.5-pro gemini-1.5-flash"
    " gemini-2.0-flash qwen-plus qwen-max"
)


def plan(name: str) -> Plan:
    found = load_plans().get(name)
    assert found is not None
    return found


def test_the_shipped_plans_are_complete_and_in_order() -> None:
    assert load_plans().names == ("trial", "free", "solo", "pro", "team", "enterprise")


@pytest.mark.parametrize("name", ["pro", "team"])
def test_pro_and_team_have_the_model_list_of_the_seeds(name: str) -> None:
    assert sorted(plan(name).managed_models) == sorted(SEEDS.split())


def test_own_keys_are_taken_from_solo_up() -> None:
    assert {each.name: each.byok for each in load_plans()} == {
        "trial": False,
        "free": False,
        "solo": True,
        "pro": True,
        "team": True,
        "enterprise": True,
    }


def test_enterprise_has_everything() -> None:
    assert plan("enterprise").managed_models == ("*",)
    assert plan("enterprise").byok_models == ("*",)


def test_every_plan_has_the_onboarding_default() -> None:
    assert {each.default_model for each in load_plans()} == {"minimax/MiniMax-M2"}


@pytest.mark.parametrize(
    "field", ["requests_per_minute", "tokens_per_minute", "concurrency", "managed_budget_usd_per_month"]
)
def test_no_plan_has_less_than_one_below_it(field: str) -> None:
    numbers = [getattr(each, field) for each in load_plans()]
    assert numbers == sorted(numbers)


def test_no_plan_loses_a_model_of_one_below_it() -> None:
    lists = [set(each.managed_models) for each in load_plans() if each.name != "enterprise"]
    assert all(lower <= higher for lower, higher in pairwise(lists))


@pytest.mark.parametrize("row", rows("plans", "good"))
def test_a_field_is_overridden_and_the_others_stay(row: Row) -> None:
    found = load_plans({row["name"]: row["row"]}).get(row["name"])
    assert found is not None
    assert str(getattr(found, row["field"])) == row["text"]
    changed = {name for name in Plan.__dataclass_fields__ if getattr(found, name) != getattr(plan(row["name"]), name)}
    assert changed == {row["field"]}


@pytest.mark.parametrize("row", rows("plans", "bad"))
def test_a_row_that_is_not_valid_is_refused_with_its_name_and_field(row: Row) -> None:
    with pytest.raises(PlanError) as caught:
        load_plans({row["name"]: row["row"]})
    for words in row["says"]:
        assert words in str(caught.value)


def test_a_budget_from_a_binary_float_has_the_digits_that_were_written() -> None:
    found = load_plans({"team": {"managed_budget_usd_per_month": 49.9}}).get("team")
    assert found is not None
    assert found.managed_budget_usd_per_month == Decimal("49.9")


def test_a_row_that_is_no_table_is_refused() -> None:
    with pytest.raises(PlanError, match="'team': a row is a table"):
        load_plans({"team": "unlimited"})  # type: ignore[dict-item]


def test_a_new_plan_comes_after_the_shipped_ones() -> None:
    plans = load_plans({"bound": world.BOUND})
    assert plans.names[-1] == "bound"
    assert repr(plans) == "Plans(trial, free, solo, pro, team, enterprise, bound)"


def test_the_nearest_plan_is_found() -> None:
    assert load_plans().nearest("temas") == "team"
    assert load_plans().nearest("zzz") is None
    assert load_plans().get("zzz") is None


def test_plans_in_use_that_have_a_row_are_known() -> None:
    check_known(load_plans(), {"team": 3, "free": 1})


def test_plans_in_use_without_a_row_stop_the_start() -> None:
    with pytest.raises(PlanError) as caught:
        check_known(load_plans(), {"team": 3, "teem": 1, "gold": 2})
    message = str(caught.value)
    assert "'gold' (2 tenants), 'teem' (1 tenant; did you mean 'team'?)" in message
    assert "'team' (" not in message
    assert "wardgate tenant set-plan" in message


def test_the_shipped_rows_are_read_from_the_package() -> None:
    script = "from router.plans import load_plans; print(len(load_plans().names))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "6"


# --- what a plan allows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows("plans", "allows"))
def test_a_plan_allows_its_list_for_managed_keys_and_its_switch_for_own_keys(row: Row) -> None:
    entitlements = Entitlements(load_plans(), world.registry())
    offer = Offer(row["provider"], row["model"], parse_name(row["model"]), "chat")
    source = KeySource(row["source"])
    assert entitlements.allows(plan(row["plan"]), offer, source) is row["allowed"]
    other = entitlements.unlocking(plan(row["plan"]), offer, source)
    assert (other.name if other else None) == row.get("unlocked_by")


# --- lint -----------------------------------------------------------------------------------------------------------


def findings(**row: object) -> list[Finding]:
    overrides = {"bound": {**world.BOUND, **row}}
    bound = load_plans(overrides).get("bound")
    assert bound is not None
    return list(lint(Plans([bound]), world.catalogue(), world.registry()))


def test_lint_finds_nothing_where_all_entries_match() -> None:
    assert findings(managed_models=["*", "minimax/*", "gpt-4o", "openrouter/anything"]) == []


def test_lint_warns_of_an_entry_that_matches_nothing() -> None:
    (finding,) = findings(managed_models=["gpt-4oo"])
    assert (finding.plan, finding.field, finding.severity) == ("bound", "managed_models", Severity.WARNING)
    assert finding.message == "'gpt-4oo' matches no model of the catalogue; near: gpt-4o"


def test_lint_warns_of_an_entry_that_is_like_no_other() -> None:
    (finding,) = findings(byok_models=["zzz/*"])
    assert (finding.field, finding.message) == ("byok_models", "'zzz/*' matches no model of the catalogue")


def test_lint_finds_own_keys_that_open_nothing() -> None:
    (finding,) = findings(byok_models=[])
    assert (finding.field, finding.severity) == ("byok_models", Severity.ERROR)


def test_lint_finds_a_default_that_is_no_model() -> None:
    (finding,) = findings(default_model="minimax/MiniMax-M9")
    assert (finding.field, finding.severity) == ("default_model", Severity.ERROR)
    assert "'minimax/MiniMax-M9' is no model of the catalogue" in finding.message


@pytest.mark.parametrize("model", ["auto", "auto:cheapest", "minimax_2_7/MiniMax-M2", "openrouter/x", "gpt-4o"])
def test_lint_takes_a_default_that_can_be_asked_for(model: str) -> None:
    assert findings(default_model=model) == []


def test_lint_finds_no_error_in_the_shipped_plans() -> None:
    registry = load_registry()
    found = lint(load_plans(), world.catalogue(), registry)
    assert [each for each in found if each.severity is Severity.ERROR] == []
