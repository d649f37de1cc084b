"""What another plan would change: gained and lost are what the plans let through, no more and no less."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.decision import usable
from router.needs import Needs
from router.plan_change import PlanChange, plan_change
from router.plans import Plan
from router.query import Holding, KeySource, Lacking, Query
from tests.router import world

PLANS = list(world.plans().names)


def plan(name: str) -> Plan:
    found = world.plans().get(name)
    assert found is not None
    return found


def change(before: str, after: str, *held: str, operators: frozenset[str] = frozenset(), **options: Any) -> PlanChange:
    """`held` are the tenant's own, which the operator's never stand in for."""
    keys: dict[str, Holding | Lacking] = {"groq": world.lacking("groq")}
    keys |= {each: world.holding(each, KeySource.MANAGED) for each in operators}
    keys |= {each: world.holding(each) for each in held}
    rules = (world.catalogue(), world.registry(), world.plans(), (keys, keys), operators)
    return plan_change(plan(before), plan(after), *rules, **({"today": world.TODAY} | options))


def test_tenant_with_a_key_loses_its_models_where_the_plan_takes_no_keys() -> None:
    found = change("team", "free", "minimax")
    own = found.models[KeySource.BYOK]
    assert (own.gained, own.lost, own.kept) == ((), ("minimax/MiniMax-M2", "minimax/MiniMax-M3"), 0)
    assert found.loses
    effects = {one.field: one.effect for one in found.limits}
    assert set(effects.values()) == {"lost"} and set(effects) >= {"byok", "managed_budget_usd_per_month"}
    assert (found.default.before, found.default.usable_before) == ("minimax/MiniMax-M2", True)
    assert (found.default.after, found.default.usable_after) == ("openai/gpt-4o-mini", False)


def test_upgrade_loses_nothing() -> None:
    found = change("free", "team", "minimax")
    assert not found.loses
    assert found.models[KeySource.BYOK].gained == ("minimax/MiniMax-M2", "minimax/MiniMax-M3")
    assert {one.effect for one in found.limits} == {"gained"}
    assert found.limits[-1].after == Decimal(1000)


def test_same_plan_changes_nothing() -> None:
    found = change("team", "team", "minimax", "openai")
    assert not found.loses and {one.effect for one in found.limits} == {"same"}
    assert all(not each.gained and not each.lost for each in found.models.values())


def test_narrow_list_of_own_models_loses_the_others_alone() -> None:
    own = change("team", "bound", "minimax").models[KeySource.BYOK]
    assert (own.lost, own.kept) == (("minimax/MiniMax-M2",), 1)


def test_withdrawn_models_are_no_gain() -> None:
    gone = next(offer for offer in world.catalogue().offers if offer.deprecated_on)
    lent = frozenset({gone.provider_id})
    everything = change("bound", "enterprise", operators=lent, today=date(2020, 1, 1)).models[KeySource.MANAGED]
    assert gone.id in everything.gained
    assert gone.id not in change("bound", "enterprise", operators=lent).models[KeySource.MANAGED].gained


def test_models_without_a_key_of_the_operators_are_neither_gained_nor_kept_and_are_told() -> None:
    none = change("free", "enterprise")
    assert not none.models[KeySource.MANAGED].gained and none.models[KeySource.MANAGED].kept == 0
    assert {"openai/gpt-4o", "minimax/MiniMax-M2"} <= set(none.not_lent)
    some = change("free", "enterprise", "minimax", operators=frozenset({"openai"}))
    assert "openai/gpt-4o" in some.models[KeySource.MANAGED].gained
    assert "openai/gpt-4o-mini" not in some.models[KeySource.MANAGED].gained  # it had it, and keeps it
    lacking = {each.partition("/")[0] for each in some.not_lent}
    assert "groq" in lacking and not lacking & {"openai", "minimax"}, "minimax is open with the tenant's own key"


def test_models_that_only_a_key_of_the_operators_would_open_are_told_where_the_tenants_is_not_taken() -> None:
    assert change("team", "free", "openai").not_lent == ("openai/gpt-4o-mini",)


@pytest.mark.parametrize(
    ("own", "held", "usable"),
    [
        (None, ["minimax"], True),
        (None, ["openai"], False),
        ("default", ["minimax"], True),
        ("gpt-4o", ["openai"], True),
        ("gpt-4o", ["minimax"], False),
        ("auto", ["minimax"], True),
        ("auto:cheapest", [], False),
        ("openrouter/some/model", ["openrouter"], True),
        ("openrouter/some/model", ["openai"], False),
    ],
)
def test_default_model_is_usable_with_the_keys_at_hand(own: str | None, held: list[str], usable: bool) -> None:
    assert change("solo", "team", *held, own_default=own).default.usable_after is usable


def test_operators_keys_open_the_default_where_they_are_open() -> None:
    default = change("team", "enterprise", operators=frozenset({"minimax"})).default
    assert (default.usable_before, default.usable_after) == (False, True)
    assert change("team", "enterprise").default.usable_after is False


@given(st.sampled_from(PLANS), st.sampled_from(PLANS), st.sets(st.sampled_from(["minimax", "openai", "deepseek"])))
def test_gains_and_losses_are_what_can_be_named_before_and_after(before: str, after: str, held: set[str]) -> None:
    found = change(before, after, *held).models[KeySource.BYOK]
    had, has = (_nameable(name, held) for name in (before, after))
    assert set(found.gained) == has - had and set(found.lost) == had - has and found.kept == len(had & has)
    back = change(after, before, *held)
    assert back.models[KeySource.BYOK].gained == found.lost


def _nameable(name: str, held: set[str]) -> set[str]:
    keys = {each: world.holding(each) for each in held}
    query = Query("auto", Needs(), plan(name), None, world.TODAY, "acme")
    decision = usable(query, world.catalogue(), world.registry(), world.plans(), keys)
    return {each.offer.id for each in decision.ranked}
