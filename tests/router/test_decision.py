"""Decisions over the small world: which offers, in which order, and why not the others."""

import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from keystore.providers import Registry
from router.catalogue import Catalogue
from router.decision import REMEMBERED, Decision, Rejection, Rejections, Router, route, usable
from router.entitlement import LISTS, Entitlements
from router.needs import Needs
from router.query import Holding, Holdings, Lacking
from router.reasons import Reason
from tests.router import world
from tests.router.vectors import Row, rows


def decide(row: Row) -> Decision:
    router = Router(world.catalogue(), world.registry_of(row), world.plans_of(row))
    return router.route(world.query(row), world.keys(row))


def ranked(decision: Decision) -> list[str]:
    return [each.offer.id for each in decision.ranked]


def rejected(decision: Decision) -> dict[str, str]:
    return {each.offer_id: each.reason.value for each in decision.rejected}


@pytest.mark.parametrize("row", rows("routing", "case"))
def test_a_case_is_ranked_and_rejected_as_its_row_says(row: Row) -> None:
    decision = decide(row)
    assert ranked(decision) == row["ranked"]
    if "rejected" in row:
        assert rejected(decision) == row["rejected"]
    elif "counts" in row:
        assert decision.counts == row["counts"]
    doubts = [doubt.reason.value for each in decision.ranked[:1] for doubt in each.doubts]
    assert doubts == row.get("doubts", [])
    if "cost" in row:
        assert decision.ranked[0].expected_cost == Decimal(row["cost"])


def test_a_decision_says_what_was_asked_and_of_which_catalogue() -> None:
    decision = decide({"model": "default", "held": ["minimax"]})
    assert (decision.query.model, decision.asked) == ("default", "minimax/MiniMax-M2")
    assert decision.catalogue_version == "test-1"
    assert decision.default_id == "minimax/MiniMax-M2"


def test_a_candidate_carries_the_key_it_is_paid_with() -> None:
    key = world.holding("minimax", via="former", setting_key="MINIMAX_2_7_API_KEY")
    decision = route(
        world.query({"model": "minimax/MiniMax-M2"}),
        world.catalogue(),
        world.registry(),
        world.plans(),
        {"minimax": key},
    )
    assert [each.holding for each in decision.ranked] == [key]


def test_a_provider_that_the_keys_do_not_mention_has_none() -> None:
    decision = route(world.query({"model": "gpt-4o"}), world.catalogue(), world.registry(), world.plans(), {})
    assert rejected(decision) == {"openai/gpt-4o": "no_credential"}
    assert decision.rejected[0].detail == "openai needs a key: looked for none"


def test_an_offer_of_a_provider_that_is_not_registered_is_not_considered() -> None:
    groq = Registry([world.provider("groq")])
    decision = route(world.query({"model": "gpt-oss-120b"}), world.catalogue(), groq, world.plans(), {})
    assert rejected(decision) == {"groq/openai/gpt-oss-120b": "no_credential"}


def test_everything_that_auto_could_take_is_considered() -> None:
    decision = decide({"model": "auto", "held": ["minimax"]})
    live = {each.id for each in world.registry().live()}
    chat = {offer.id for offer in world.catalogue().offers if offer.is_chat and offer.provider_id in live}
    assert {*ranked(decision), *rejected(decision)} == chat
    assert decision.considered == len(chat)


def test_the_order_of_the_catalogue_and_of_the_keys_does_not_matter() -> None:
    row: dict[str, Any] = {"model": "auto", "held": ["minimax", "openai", "groq"]}
    first = decide(row)
    for seed in range(5):
        offers, keys = list(world.catalogue().offers), list(world.keys(row).items())
        random.Random(seed).shuffle(offers)
        random.Random(seed).shuffle(keys)
        shuffled = Catalogue("test-1", offers)
        assert route(world.query(row), shuffled, world.registry(), world.plans(), dict(keys)) == first


# --- what a tenant could name now -----------------------------------------------------------------------------------


def test_what_is_usable_is_all_that_could_be_named() -> None:
    row: dict[str, Any] = {"model": "gpt-9", "held": ["zai", "groq", "deepseek"], "needs": {"input_tokens": 0}}
    decision = usable(world.query(row), world.catalogue(), world.registry(), world.plans(), world.keys(row))
    assert sorted(ranked(decision)) == [
        "deepseek/deepseek-v3.2",
        "groq/meta-llama/llama-prompt-guard-2-22m",
        "groq/openai/gpt-oss-120b",
        "zai/glm-4.5-flash",
    ]
    assert decision.counts == {"model_deprecated": 1, "no_credential": 10}


def test_each_usable_model_routes_when_it_is_named() -> None:
    row: dict[str, Any] = {"held": ["minimax", "openai", "mistral"]}
    listed = usable(world.query(row), world.catalogue(), world.registry(), world.plans(), world.keys(row))
    assert len(listed.ranked) == 7
    for each in listed.ranked:
        assert ranked(decide({**row, "model": each.offer.id})) == [each.offer.id]


# --- no path on which a missing tenant key becomes the operator's ---------------------------------------------------


def test_a_missing_key_of_the_tenant_is_never_the_operators() -> None:
    row: dict[str, Any] = {"model": "auto", "managed": [each.id for each in world.registry().live()]}
    decision = decide(row)
    assert ranked(decision) == []
    assert decision.counts == {"model_deprecated": 1, "no_credential": 14}


def test_every_candidate_has_a_holding_of_its_own_provider() -> None:
    for model in ("auto", "gpt-oss-120b", "mistral-large"):
        decision = decide({"model": model, "held": ["groq", "mistral", "minimax"]})
        assert decision.ranked
        for each in decision.ranked:
            key: Holding | Lacking = each.holding
            assert isinstance(key, Holding)
            assert key.provider_id == each.offer.provider_id


# --- rejections are worded when they are looked at ------------------------------------------------------------------


def test_rejections_are_a_sequence_in_order_of_their_ids() -> None:
    told = [Rejection("b/x", "b", "x", Reason.UNPRICED, "why"), Rejection("a/x", "a", "x", Reason.UNPRICED, "why")]
    worded = []

    def work() -> list[Rejection]:
        worded.append(1)
        return told

    found = Rejections(work).and_also([Rejection("c/x", "c", "x", Reason.NO_CREDENTIAL, "why")])
    assert not worded
    assert [each.offer_id for each in found] == ["a/x", "b/x", "c/x"]
    assert (len(found), found[0].offer_id, [each.offer_id for each in found[1:]]) == (3, "a/x", ["b/x", "c/x"])
    assert found == Rejections(lambda: list(found)) != Rejections(list)
    assert found != tuple(found)
    assert "Rejection(offer_id='a/x'" in repr(found)
    assert worded == [1]


def test_what_was_decided_is_forgotten_when_there_is_too_much() -> None:
    router, held = Router(world.catalogue(), world.registry(), world.plans()), Holdings([world.holding("openai")])
    query = world.query({"model": "openai/gpt-4o"})
    first = router.fitting(query, held)
    for number in range(REMEMBERED):
        router.fitting(replace(query, needs=Needs(number)), held)
    again = router.fitting(query, held)
    assert again == first and again is not first


def test_holdings_are_told_apart_by_identity() -> None:
    held = Holdings([world.holding("openai"), world.lacking("minimax")])
    assert (len(held), list(held)) == (2, ["openai", "minimax"])
    assert {held: 1}[held] == 1 and held != Holdings(held.values())


def test_a_token_for_some_models_is_for_no_other() -> None:
    query = replace(world.query({"model": "auto"}), allowed_models=("gpt-4o",))
    found = route(query, world.catalogue(), world.registry(), world.plans(), world.keys({"held": ["openai"]}))
    assert set(ranked(found)) == {"openai/gpt-4o", "openai/gpt-4o-2024-08-06"}
    assert rejected(found)["openai/gpt-4o-mini"] == "model_not_in_token"


def test_an_ability_that_may_be_dropped_is_no_need() -> None:
    row: dict[str, Any] = {"model": "auto", "held": ["openai"], "needs": {"capabilities": ["reasoning"]}}
    assert ranked(decide(row)) == []
    assert len(ranked(decide({**row, "preferences": {"drop_parameters": True}}))) == 3


def test_only_the_first_unknown_model_is_looked_for_among_those_near() -> None:
    found = decide({"model": "gpt-4p", "models": ["gpt-4p-mini", "minimax/MiniMax-M9"]})
    told = {each.offer_id: each.detail for each in found.rejected}
    assert ["near" in told[name] for name in ("gpt-4p", "gpt-4p-mini", "minimax/MiniMax-M9")] == [True, False, False]


def test_compiled_lists_are_bounded() -> None:
    entitlements = Entitlements(world.plans(), world.registry())
    offer = world.catalogue().offer("openai/gpt-4o")
    assert offer is not None
    for number in range(LISTS + 1):
        assert not entitlements.holds((f"model-{number}",), offer)
    assert len(entitlements._compiled) == LISTS
