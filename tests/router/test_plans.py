"""The plan table: what ships, what an operator may lay over it, what is refused."""

import subprocess
import sys
from decimal import Decimal
from itertools import pairwise

import pytest

from router.catalogue import Offer
from router.entitlement import Entitlements
from router.errors import PlanError
from router.model_names import parse_name
from router.plans import Plan, check_known, load_plans
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


def test_plans_that_take_keys_have_the_onboarding_default_and_the_others_one_of_their_own_models() -> None:
    defaults = {each.name: (each.default_model, each.default_provider, each.byok) for each in load_plans()}
    assert {defaults[name] for name in ("trial", "free")} == {("openai/gpt-4o-mini", "openai", False)}
    assert {defaults[name] for name in ("solo", "pro", "team", "enterprise")} == {
        ("minimax/MiniMax-M2", "minimax", True)
    }


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


@pytest.mark.parametrize("amount", ["1000000000.01", 10**10, "1e30"])
def test_a_budget_that_no_database_can_count_is_refused(amount: object) -> None:
    with pytest.raises(PlanError, match="at most 1,000,000,000"):
        load_plans({"team": {"managed_budget_usd_per_month": amount}})


def test_a_row_that_is_no_table_is_refused() -> None:
    with pytest.raises(PlanError, match="'team': a row is a table"):
        load_plans({"team": "unlimited"})  # type: ignore[dict-item]


def test_a_new_plan_comes_after_the_shipped_ones() -> None:
    plans = load_plans({"bound": world.BOUND})
    assert plans.names[-1] == "bound"
    assert repr(plans) == "Plans(trial, free, solo, pro, team, enterprise, bound)"


def test_a_new_plan_stands_right_above_the_one_it_names() -> None:
    added = {
        "starter": {**world.BOUND, "above": "free"},
        "last": world.BOUND,
        "growth": {**world.BOUND, "above": "starter"},
        "other": {**world.BOUND, "above": "free"},
    }
    order = ("trial", "free", "starter", "growth", "other", "solo", "pro", "team", "enterprise", "last")
    assert load_plans(added).names == order
    assert sorted(load_plans(dict(reversed(added.items()))).names) == sorted(order)


@pytest.mark.parametrize(
    ("added", "says"),
    [
        (
            {"starter": {**world.BOUND, "above": "fre"}},
            "'starter': above names 'fre', and there is no such plan; did you",
        ),
        (
            {"starter": {**world.BOUND, "above": "starter"}},
            "'starter': above names 'starter', which itself stands above",
        ),
        (
            {"a": {**world.BOUND, "above": "b"}, "b": {**world.BOUND, "above": "a"}},
            "'a': above names 'b', which itself stands above",
        ),
    ],
)
def test_a_place_that_is_none_is_refused(added: dict[str, dict[str, object]], says: str) -> None:
    with pytest.raises(PlanError) as caught:
        load_plans(added)
    assert says in str(caught.value)


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
