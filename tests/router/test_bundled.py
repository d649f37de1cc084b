"""The shipped providers, plans and price map together: what a tenant meets on the first day."""

import sys
import time
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

import pytest

from keystore.providers import Registry, load_registry
from keystore.resolve import names_for
from router.catalogue import Capability, Catalogue, build_catalogue
from router.decision import Decision, route
from router.explain import refusal
from router.needs import Needs
from router.plan_lint import Severity, lint
from router.plans import Plans, load_plans
from router.price_map import load_bundled
from router.quality import load_quality
from router.query import Holding, KeySource, Lacking, Query

BUDGET_S = 0.02  # for one `auto` over the whole catalogue, cold; half of it on a quiet machine, 0.012 on a slow host


@cache
def registry() -> Registry:
    return load_registry()


@cache
def catalogue() -> Catalogue:
    found = load_bundled()
    return build_catalogue(found.rows, registry(), version=found.version, quality=load_quality())


@cache
def plans() -> Plans:
    return load_plans()


def query(model: str, plan: str = "team") -> Query:
    row = plans().get(plan)
    assert row is not None
    return Query(model, Needs(1000, 500), row, None, date(2026, 11, 20), "acme")


def keys(*held: str) -> dict[str, Holding | Lacking]:
    lacking: dict[str, Holding | Lacking] = {
        each.id: Lacking(each.id, tuple(name for name, _ in names_for(each, registry()))) for each in registry().live()
    }
    key = Holding("", KeySource.BYOK, "former", "MINIMAX_2_7_API_KEY", "credentials")
    return lacking | {each: replace(key, provider_id=each) for each in held}


def decide(model: str, *held: str) -> Decision:
    return route(query(model), catalogue(), registry(), plans(), keys(*held))


def test_the_catalogue_has_the_seeds_provider_with_its_prices() -> None:
    offer = catalogue().offer("minimax/MiniMax-M2")
    assert offer is not None
    assert (offer.prices.input, offer.prices.output) == (Decimal("3e-7"), Decimal("1.2e-6"))
    assert offer.is_chat
    assert offer.capabilities[Capability.TOOLS]


def test_every_offer_is_of_a_registered_provider_and_none_is_a_template() -> None:
    known = {each.id for each in registry().providers}
    assert {offer.provider_id for offer in catalogue().offers} <= known
    assert not [offer.id for offer in catalogue().offers if "ft:" in offer.model or "*" in offer.model]
    assert not [offer.id for offer in catalogue().offers if offer.model.startswith(("together-ai", "fireworks-ai"))]


def test_ids_are_unique_without_regard_to_case() -> None:
    ids = [offer.id.lower() for offer in catalogue().offers]
    assert len(set(ids)) == len(ids) > 900


def test_nothing_of_the_bundled_map_is_malformed() -> None:
    assert not [
        cause for cause in catalogue().notes if cause.value in ("price_malformed", "date_malformed", "odd_name")
    ]


@pytest.mark.parametrize(
    ("offer_id", "above"), [("google/gemini-2.5-pro", [200_000]), ("minimax/MiniMax-M3", [512_000])]
)
def test_tiers_are_read_at_every_threshold(offer_id: str, above: list[int]) -> None:
    offer = catalogue().offer(offer_id)
    assert offer is not None
    assert [tier.above_input_tokens for tier in offer.prices.tiers] == above


def test_every_tier_rises_and_has_a_price() -> None:
    tiered = [offer for offer in catalogue().offers if offer.prices.tiers]
    assert len(tiered) > 50
    for offer in tiered:
        thresholds = [tier.above_input_tokens for tier in offer.prices.tiers]
        assert thresholds == sorted(set(thresholds))


def test_the_tenant_of_the_seeds_is_served_by_its_old_key() -> None:
    decision = decide("auto", "minimax")
    first = decision.ranked[0]
    assert first.offer.provider_id == "minimax"
    assert first.holding.setting_key == "MINIMAX_2_7_API_KEY"
    assert first.expected_cost == Decimal("0.0009")


def test_the_tenant_of_the_seeds_without_any_key_is_told_both_names() -> None:
    found = refusal(decide("auto"))
    assert (found.status, found.code) == (403, "provider_key_missing")
    assert found.nearest_miss == "minimax needs a key: looked for MINIMAX_API_KEY, MINIMAX_2_7_API_KEY"


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-oss-120b", "glm-4.6", "claude-sonnet-4-6"])
def test_a_bare_name_finds_whoever_serves_it(name: str) -> None:
    providers = {offer.provider_id for offer in catalogue().of_name(name)}
    assert providers
    assert {each.provider_id for each in decide(name).rejected} == providers


@pytest.mark.parametrize(
    ("name", "providers"),
    [
        ("glm-5.2", {"deepinfra", "fireworks", "mistral"}),
        ("qwen3-32b", {"cerebras", "deepinfra", "fireworks"}),
        ("qwen-3-32b", {"cerebras", "deepinfra", "fireworks"}),
        ("llama-3.1-8b-instruct", {"deepinfra", "fireworks", "perplexity"}),
        ("deepseek-r1", {"deepinfra", "fireworks"}),
    ],
)
def test_a_bare_family_finds_every_spelling(name: str, providers: set[str]) -> None:
    assert providers <= {offer.provider_id for offer in catalogue().of_family(name)}


def test_the_shipped_plans_default_models_are_in_the_catalogue() -> None:
    found = lint(plans(), catalogue(), registry())
    assert [each for each in found if each.severity is Severity.ERROR] == []


@pytest.mark.parametrize("held", [(), ("minimax",), tuple(each.id for each in load_registry().live())])
def test_auto_over_the_whole_catalogue_is_quick(held: tuple[str, ...]) -> None:
    asked, having = query("auto"), keys(*held)
    took: list[float] = []
    for _ in range(7):
        began = time.process_time()
        route(asked, catalogue(), registry(), plans(), having)
        took.append(time.process_time() - began)
    slower = 10 if sys.gettrace() else 1  # under a tracer, as coverage is one
    assert min(took) < BUDGET_S * slower


def test_offers_are_not_shared_state() -> None:
    offer: Any = catalogue().offers[0]
    with pytest.raises(AttributeError):
        offer.model = "another"
    with pytest.raises(TypeError):
        offer.capabilities[Capability.TOOLS] = True
