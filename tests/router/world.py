"""A small world for the router's tests: the shipped providers and one tombstone, the plans, and the price map of
tests/vectors/routing.toml."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any, Final

from keystore.providers import Provider, Registry, load_registry
from keystore.resolve import names_for
from router.aliases import Aliases, load_aliases
from router.catalogue import Capability, Catalogue, Offer, build_catalogue
from router.needs import Needs
from router.objective import Objective
from router.plans import Plans, load_plans
from router.prices import ServiceTier
from router.quality import Quality
from router.query import (
    NO_HABITS,
    NO_PACES,
    Habits,
    Holding,
    KeySource,
    Lacking,
    Median,
    Pace,
    Paces,
    Preferences,
    Query,
)
from tests.router.vectors import Row, vectors

TODAY: Final = date(2026, 11, 20)

OLDCLOUD: Final[Mapping[str, object]] = {
    "wire": "openai",
    "base_url": "https://api.oldcloud.example/v1",
    "hosts": ["api.oldcloud.example"],
    "catalogue_ids": ["oldcloud"],
    "retired": True,
}
BOUND: Final[Mapping[str, object]] = {  # a plan whose own keys open one model alone
    "managed_models": [],
    "byok": True,
    "byok_models": ["minimax/MiniMax-M3"],
    "requests_per_minute": 1,
    "tokens_per_minute": 1,
    "concurrency": 1,
    "managed_budget_usd_per_month": 0,
    "min_quality": 0,
    "default_model": "auto",
}
# One that has a model with the operator's key, and another with the tenant's own.
MIXED: Final = {**BOUND, "managed_models": ["gpt-4o-mini"], "narrower_than_lower": True}


@cache
def registry() -> Registry:
    return load_registry({"oldcloud": OLDCLOUD})


@cache
def plans() -> Plans:
    return load_plans({"bound": BOUND, "mixed": MIXED})


@cache
def catalogue() -> Catalogue:
    built = build_catalogue(vectors("routing")["rows"], registry(), version="test-1")
    return Catalogue("test-1", [replace(offer, quality=quality_of(offer)) for offer in built.offers])


def quality_of(offer: Offer) -> Quality | None:
    """The score of the table `quality` in tests/vectors/routing.toml; whoever is not in it has 50, and 0 is unknown."""
    score = vectors("routing")["quality"].get(offer.id, 50)
    return Quality(score, "the tests", TODAY) if score and offer.is_chat else None


def provider(provider_id: str) -> Provider:
    row = registry().get(provider_id)
    assert row is not None
    return row


def names(provider_id: str) -> tuple[str, ...]:
    return tuple(name for name, _ in names_for(provider(provider_id), registry()))


def holding(provider_id: str, source: KeySource = KeySource.BYOK, **fields: Any) -> Holding:
    facts = {"via": "canonical", "setting_key": names(provider_id)[0], "store": "credentials", **fields}
    return Holding(provider_id=provider_id, source=source, **facts)


def lacking(provider_id: str, *unusable: tuple[str, str]) -> Lacking:
    return Lacking(provider_id, names(provider_id), tuple(unusable))


def keys(row: Row) -> dict[str, Holding | Lacking]:
    """The keys of a case: `held`, `managed` and `unusable`; all other providers are lacking."""
    found: dict[str, Holding | Lacking] = {each.id: lacking(each.id) for each in registry().live()}
    found |= {each: holding(each) for each in row.get("held", [])}
    found |= {each: holding(each, KeySource.MANAGED) for each in row.get("managed", [])}
    for each, unusable in row.get("unusable", {}).items():
        found[each] = lacking(each, *((name, why) for name, why in unusable))
    return found


def needs(row: Row) -> Needs:
    given = row.get("needs", {})
    return Needs(
        input_tokens=given.get("input_tokens", 1000),
        max_output_tokens=None if given.get("unlimited") else given.get("max_output_tokens", 500),
        capabilities=frozenset(Capability(word) for word in given.get("capabilities", [])),
        service=ServiceTier(given.get("service", "default")),
    )


def query(row: Row) -> Query:
    plan = plans().get(row.get("plan", "team"))
    assert plan is not None
    return Query(
        model=row.get("model", "auto"),
        needs=needs(row),
        plan=plan,
        default_model=row.get("default_model"),
        today=row.get("today", TODAY),
        tenant="acme",
        managed=row.get("managed_open", False),
        models=tuple(row.get("models", ())),
        preferences=preferences(row),
        aliases=aliases(),
        habits=habits(row),
        paces=paces(row),
    )


def habits(row: Row) -> Habits:
    given = row.get("habits")
    if given is None:
        return NO_HABITS
    usual = Median(given["usual"], 9) if "usual" in given else None
    return Habits(usual=usual, outputs={name: Median(tokens, 9) for name, tokens in given["outputs"].items()})


def paces(row: Row) -> Paces:
    given = row.get("paces")
    if given is None:
        return NO_PACES
    return Paces({name: Pace(float(first), float(rate)) for name, (first, rate) in given.items()})


def preferences(row: Row) -> Preferences:
    given = dict(row.get("preferences", {}))
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    given |= {name: Decimal(value) for name, value in given.items() if name.startswith("max_")}
    given |= {name: Objective(value) for name, value in given.items() if name == "objective"}
    return Preferences(**given)


@cache
def aliases() -> Aliases:
    return load_aliases(vectors("routing")["aliases"])


def plans_of(row: Row) -> Plans:
    """All plans, or those that a case lists."""
    return Plans([plan for plan in plans() if plan.name in row["plans"]]) if "plans" in row else plans()


def registry_of(row: Row) -> Registry:
    """All providers, or those that a case lists."""
    return Registry([provider(each) for each in row["only"]]) if "only" in row else registry()
