"""What is odd about the plans: entries that open nothing, defaults that cannot be used, a plan that has less than one
below it.

Owns the findings and how grave each is. Whether a row is complete is checked when it is read (router.plans). Must not
know tenants or keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from keystore.providers import Registry
from router.catalogue import Catalogue, Offer
from router.entitlement import Entitlements
from router.model_names import EVERYTHING, compile_models, split_provider
from router.plans import Plan, Plans
from router.query import KeySource

_AUTO: Final = "auto"
_SHOWN: Final = 3  # models that a sentence names before it counts the rest
LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "concurrency", "managed_budget_usd_per_month")
_LISTS: Final = (("managed_models", KeySource.MANAGED), ("byok_models", KeySource.BYOK))


class Severity(StrEnum):
    """Whether a finding stops something or is only worth a look."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is odd about a plan."""

    plan: str
    field: str
    severity: Severity
    message: str


def lint(plans: Plans, catalogue: Catalogue, registry: Registry, *, today: date | None = None) -> tuple[Finding, ...]:
    """What the plans promise and do not hold: entries that match nothing, or only models withdrawn by `today`; a
    default that the plan itself does not let through; a plan that lacks what a lower one has and does not say so."""
    book = _Book(plans, catalogue, registry, today or date.min)
    found = [finding for plan in plans for finding in book.of(plan)]
    return tuple(found)


def failing(findings: Sequence[Finding], *, strict: bool) -> bool:
    """Whether a pipeline should stop: at an error, and when it is strict at a warning too."""
    return any(strict or finding.severity is Severity.ERROR for finding in findings)


class _Book:
    """The rules, and which offers each plan lets through."""

    def __init__(self, plans: Plans, catalogue: Catalogue, registry: Registry, today: date) -> None:
        self._plans, self._catalogue, self._registry, self._today = plans, catalogue, registry, today
        entitled = Entitlements(plans, registry)
        self._open: Mapping[tuple[str, KeySource], frozenset[str]] = {
            (plan.name, source): frozenset(each.id for each in catalogue.offers if entitled.allows(plan, each, source))
            for plan in plans
            for source in KeySource
        }

    def of(self, plan: Plan) -> Iterator[Finding]:
        for field, _ in _LISTS:
            for pattern in getattr(plan, field):
                yield from self._pattern(plan, field, pattern)
        yield from self._switch(plan)
        yield from self._default(plan)
        yield from self._narrower(plan)

    # --- lists

    def _pattern(self, plan: Plan, field: str, pattern: str) -> Iterator[Finding]:
        if self._is_open(pattern):
            return
        matched = self._matched(pattern)
        if not matched:
            near = self._catalogue.near(pattern)
            tail = f"; near: {', '.join(near)}" if near else ""
            message = f"{pattern!r} matches no model of the catalogue{tail}"
            yield Finding(plan.name, field, Severity.WARNING, message)
        elif all(self._withdrawn(offer) for offer in matched):
            message = f"{pattern!r} matches only models that were withdrawn: {_some([each.id for each in matched])}"
            yield Finding(plan.name, field, Severity.WARNING, message)

    def _is_open(self, pattern: str) -> bool:
        """Whether the entry opens more than the catalogue lists."""
        qualified = split_provider(pattern, self._registry)
        return pattern == EVERYTHING or (qualified is not None and qualified[0].open_models)

    def _matched(self, pattern: str) -> list[Offer]:
        models = compile_models([pattern], self._registry)
        return [offer for offer in self._catalogue.offers if models.holds(offer.provider_id, offer.name)]

    def _withdrawn(self, offer: Offer) -> bool:
        return offer.deprecated_on is not None and offer.deprecated_on <= self._today

    def _switch(self, plan: Plan) -> Iterator[Finding]:
        if plan.byok and not plan.byok_models:
            message = "byok is true, but byok_models is empty: no own key can be used"
            yield Finding(plan.name, "byok_models", Severity.ERROR, message)
        if plan.byok_models and not plan.byok:
            message = "byok_models lists models, but byok is false: no own key can be used"
            yield Finding(plan.name, "byok_models", Severity.WARNING, message)

    # --- defaults

    def _default(self, plan: Plan) -> Iterator[Finding]:
        word = plan.default_model.lower()
        if word.partition(":")[0] != _AUTO or "/" in word:
            yield from self._default_model(plan)
        provider = self._registry.get(plan.default_provider) if plan.default_provider else None
        if plan.default_provider and (provider is None or provider.retired):
            message = f"{plan.default_provider!r} is no provider in service"
            yield Finding(plan.name, "default_provider", Severity.ERROR, message)
        elif provider and not self._serves(provider.id, plan.default_model):
            message = f"{provider.id} does not serve the default model {plan.default_model!r}"
            yield Finding(plan.name, "default_provider", Severity.ERROR, message)

    def _default_model(self, plan: Plan) -> Iterator[Finding]:
        matched = self._matched(plan.default_model)
        if not matched and self._is_open(plan.default_model):
            return
        ids = {offer.id for offer in matched if not self._withdrawn(offer)}
        usable = self._open[plan.name, KeySource.BYOK] | self._open[plan.name, KeySource.MANAGED]
        message = ""
        if not matched:
            message = f"{plan.default_model!r} is no model of the catalogue"
        elif not ids:
            message = f"{plan.default_model!r} was withdrawn by its provider"
        elif ids.isdisjoint(usable):
            message = f"{plan.default_model!r} is not among the models of this plan, with whichever key"
        if message:
            yield Finding(plan.name, "default_model", Severity.ERROR, message)

    def _serves(self, provider_id: str, model: str) -> bool:
        qualified = split_provider(model, self._registry)
        if qualified is not None:
            return qualified[0].id == provider_id
        is_auto = model.lower().partition(":")[0] == _AUTO
        return is_auto or any(offer.provider_id == provider_id for offer in self._matched(model))

    # --- against the plans below

    def _narrower(self, plan: Plan) -> Iterator[Finding]:
        below = list(self._plans)[: self._plans.names.index(plan.name)]
        found = list(self._less(plan, list(reversed(below))))
        if not plan.narrower_than_lower:
            yield from found
        elif not found:
            message = "narrower_than_lower is true, but no plan below has anything that this one lacks"
            yield Finding(plan.name, "narrower_than_lower", Severity.WARNING, message)

    def _less(self, plan: Plan, below: Sequence[Plan]) -> Iterator[Finding]:
        """For each field the nearest plan below that has more."""
        for field, source in _LISTS:
            for lower in below:
                lost = self._open[lower.name, source] - self._open[plan.name, source]
                if lost:
                    yield _less_than(plan, lower, field, f"lacks {_some(sorted(lost))}")
                    break
        for field in LIMITS:
            here = getattr(plan, field)
            for lower in (each for each in below if getattr(each, field) > here):
                yield _less_than(plan, lower, field, f"has {here} where that has {getattr(lower, field)}")
                break


def _less_than(plan: Plan, lower: Plan, field: str, what: str) -> Finding:
    said = "narrower_than_lower = true says that this is meant"
    return Finding(plan.name, field, Severity.ERROR, f"less than plan {lower.name!r} below it: {what}; {said}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def matches_something(pattern: str, catalogue: Catalogue, registry: Registry) -> bool:
    """Whether an entry of a list of models means a model of the catalogue, or of a provider whose models are open."""
    qualified = split_provider(pattern, registry)
    if pattern == EVERYTHING or (qualified is not None and qualified[0].open_models):
        return True
    models = compile_models([pattern], registry)
    return any(models.holds(offer.provider_id, offer.name) for offer in catalogue.offers)
