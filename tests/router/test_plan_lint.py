"""What lint finds in the plans, and what it lets pass."""

from datetime import date
from typing import Any

import pytest

from keystore.providers import load_registry
from router.plan_lint import Finding, Severity, failing, lint
from router.plans import Plans, load_plans
from tests.router import world

LOWER: dict[str, Any] = {
    **world.BOUND,
    **{"managed_models": ["gpt-4o"], "byok_models": ["*"], "requests_per_minute": 10, "default_model": "gpt-4o"},
}


def findings(today: date | None = None, **row: object) -> list[Finding]:
    """Of one plan alone."""
    return between({"bound": {**world.BOUND, **row}}, today=today)


def between(rows: dict[str, dict[str, Any]], today: date | None = None) -> list[Finding]:
    """Of these plans, from the least to the most."""
    loaded = load_plans(rows)
    chosen = Plans([plan for plan in loaded if plan.name in rows])
    return list(lint(chosen, world.catalogue(), world.registry(), today=today))


def said(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(each.plan, each.field, each.severity.value) for each in found]


# --- entries --------------------------------------------------------------------------------------------------------


def test_nothing_where_all_entries_match() -> None:
    assert findings(managed_models=["*", "minimax/*", "gpt-4o", "openrouter/anything"]) == []


def test_warning_of_an_entry_that_matches_nothing() -> None:
    (finding,) = findings(managed_models=["gpt-4oo"])
    assert (finding.plan, finding.field, finding.severity) == ("bound", "managed_models", Severity.WARNING)
    assert finding.message == "'gpt-4oo' matches no model of the catalogue; near: gpt-4o"


def test_warning_of_an_entry_that_is_like_no_other() -> None:
    (finding,) = findings(byok_models=["zzz/*"])
    assert (finding.field, finding.message) == ("byok_models", "'zzz/*' matches no model of the catalogue")


def test_warning_of_an_entry_whose_models_were_all_withdrawn() -> None:
    gone = next(offer for offer in world.catalogue().offers if offer.deprecated_on)
    assert gone.deprecated_on is not None
    assert findings(managed_models=[gone.id]) == []
    (finding,) = findings(gone.deprecated_on, managed_models=[gone.id])
    assert finding.severity is Severity.WARNING
    assert finding.message == f"{gone.id!r} matches only models that were withdrawn: {gone.id}"


def test_error_where_own_keys_open_nothing() -> None:
    assert said(findings(byok_models=[])) == [("bound", "byok_models", "error")]


def test_warning_where_models_are_listed_for_keys_that_are_not_taken() -> None:
    (finding,) = findings(byok=False, managed_models=["*"])
    assert (finding.field, finding.severity) == ("byok_models", Severity.WARNING)
    assert "byok is false" in finding.message


# --- defaults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ({"default_model": "minimax/MiniMax-M9"}, "default_model", "'minimax/MiniMax-M9' is no model of the catalogue"),
        ({"default_model": "gpt-4o"}, "default_model", "'gpt-4o' is not among the models of this plan"),
        ({"default_provider": "nobody"}, "default_provider", "'nobody' is no provider in service"),
        ({"default_provider": "oldcloud"}, "default_provider", "'oldcloud' is no provider in service"),
        (
            {"default_model": "minimax/MiniMax-M3", "default_provider": "openai"},
            "default_provider",
            "openai does not serve the default model 'minimax/MiniMax-M3'",
        ),
        (
            {"byok_models": ["*"], "default_model": "gpt-4o", "default_provider": "minimax"},
            "default_provider",
            "minimax does not serve the default model 'gpt-4o'",
        ),
    ],
)
def test_error_where_a_default_cannot_be_used(row: dict[str, Any], field: str, says: str) -> None:
    (finding,) = findings(**row)
    assert (finding.field, finding.severity) == (field, Severity.ERROR)
    assert says in finding.message


def test_error_where_the_default_was_withdrawn() -> None:
    gone = next(offer for offer in world.catalogue().offers if offer.deprecated_on)
    (finding,) = findings(gone.deprecated_on, byok_models=["*"], default_model=gone.id)
    assert finding.message == f"{gone.id!r} was withdrawn by its provider"


@pytest.mark.parametrize("model", ["auto", "auto:cheapest", "minimax_2_7/MiniMax-M2", "openrouter/x", "gpt-4o"])
def test_default_that_can_be_asked_for_passes(model: str) -> None:
    assert findings(default_model=model, byok_models=["*"]) == []


@pytest.mark.parametrize(
    ("model", "provider"),
    [("auto", "minimax"), ("gpt-4o", "openai"), ("minimax_2_7/MiniMax-M2", "minimax"), ("openrouter/x", "openrouter")],
)
def test_default_provider_that_serves_the_default_model_passes(model: str, provider: str) -> None:
    assert findings(default_model=model, default_provider=provider, byok_models=["*"]) == []


# --- against the plans below ----------------------------------------------------------------------------------------


def test_error_where_a_plan_lacks_what_one_below_it_has() -> None:
    found = between({"lower": LOWER, "upper": {**world.BOUND, "default_model": "auto"}})
    assert said(found) == [
        ("upper", "managed_models", "error"),
        ("upper", "byok_models", "error"),
        ("upper", "requests_per_minute", "error"),
    ]
    assert found[0].message == (
        "less than plan 'lower' below it: lacks openai/gpt-4o, openai/gpt-4o-2024-08-06;"
        " narrower_than_lower = true says that this is meant"
    )
    assert " more; " in found[1].message
    assert "has 1 where that has 10" in found[2].message


def test_plan_that_says_so_may_have_less() -> None:
    assert between({"lower": LOWER, "upper": {**world.BOUND, "narrower_than_lower": True}}) == []


def test_plan_that_says_so_for_nothing_is_told() -> None:
    (finding,) = between({"lower": LOWER, "upper": {**LOWER, "narrower_than_lower": True}})
    assert (finding.plan, finding.field, finding.severity) == ("upper", "narrower_than_lower", Severity.WARNING)


def test_plan_below_is_the_nearest_that_has_more_and_one_that_is_narrow_hides_none_below_it() -> None:
    narrow = {**world.BOUND, "narrower_than_lower": True}
    found = between({"lower": LOWER, "middle": narrow, "upper": {**LOWER, "requests_per_minute": 5}})
    assert [(each.plan, each.field) for each in found] == [("upper", "requests_per_minute")]
    assert "'lower'" in found[0].message


def test_own_keys_that_are_no_longer_taken_are_a_loss() -> None:
    found = between({"lower": LOWER, "upper": {**LOWER, "byok": False, "byok_models": []}})
    assert said(found) == [("upper", "byok_models", "error")]


# --- the shipped plans, and pipelines --------------------------------------------------------------------------------


def test_no_error_in_the_shipped_plans() -> None:
    found = lint(load_plans(), world.catalogue(), load_registry())
    assert [each for each in found if each.severity is Severity.ERROR] == []


def test_pipeline_stops_at_an_error_and_when_strict_at_a_warning() -> None:
    warning, error = (Finding("p", "f", severity, "m") for severity in (Severity.WARNING, Severity.ERROR))
    assert [failing(found, strict=False) for found in ([], [warning], [warning, error])] == [False, False, True]
    assert [failing(found, strict=True) for found in ([], [warning], [error])] == [False, True, True]
