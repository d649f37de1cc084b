"""What another plan would change for a tenant: models gained and lost for each key source, limits, the default model.

Owns the comparison; it changes nothing. A function of the two plans, the catalogue and the names of the keys at hand.
Must not know how a plan is set or how a comparison is shown.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from keystore.providers import Registry
from router.catalogue import Catalogue, Offer, open_offer
from router.entitlement import Entitlements
from router.model_names import compile_models, split_provider
from router.plan_lint import LIMITS
from router.plans import Plan, Plans
from router.price_rows import CHAT
from router.query import Holding, KeySource, Lacking
from router.selection import offers_of

Holdings = Mapping[str, Holding | Lacking]
_AUTO: Final = "auto"
_DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class ModelsChange:
    """Ids of models, in order, of the providers for which there is such a key."""

    gained: tuple[str, ...]
    lost: tuple[str, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A number or switch of the plan, before and after."""

    field: str
    before: Decimal | int | bool
    after: Decimal | int | bool

    @property
    def effect(self) -> str:
        """gained, lost or same."""
        if self.before == self.after:
            return "same"
        return "gained" if self.after > self.before else "lost"


@dataclass(frozen=True, slots=True)
class DefaultChange:
    """What `model: "default"` means, and whether the tenant's keys and plan let it through."""

    before: str
    after: str
    usable_before: bool
    usable_after: bool


@dataclass(frozen=True, slots=True)
class PlanChange:
    """All that would change. `min_quality` is told and is neither a gain nor a loss."""

    before: Plan
    after: Plan
    models: Mapping[KeySource, ModelsChange]
    limits: tuple[LimitChange, ...]
    default: DefaultChange
    not_lent: tuple[str, ...] = ()  # ids of models, in order, that only a key of the operator's would open afterwards

    @property
    def loses(self) -> bool:
        """Whether the tenant would lose anything."""
        return (
            any(change.lost for change in self.models.values())
            or any(limit.effect == "lost" for limit in self.limits)
            or (self.default.usable_before and not self.default.usable_after)
        )


def plan_change(
    before: Plan,
    after: Plan,
    catalogue: Catalogue,
    registry: Registry,
    plans: Plans,
    holdings: tuple[Holdings, Holdings],
    operators: Container[str],
    *,
    today: date,
    own_default: str | None = None,
) -> PlanChange:
    """What a tenant would gain and lose that holds these keys on the one plan and on the other, lent ones included, and
    with a default model of its own or none. `operators`: the providers for which the operator has a usable key."""
    entitled = Entitlements(plans, registry)
    defaults = [_default(plan, own_default) for plan in (before, after)]
    offers = (*offers_of(catalogue, registry, (CHAT,)), *_beyond_catalogue(defaults, registry))
    live = [each for each in offers if not each.deprecated_on or today < each.deprecated_on]

    def through(plan: Plan, held: Holdings, source: KeySource) -> list[Offer]:
        """What the plan lets through with such keys."""
        return [each for each in live if _is_of(held, each, source) and entitled.allows(plan, each, source)]

    had, has = (
        {source: through(plan, held, source) for source in KeySource}
        for plan, held in zip((before, after), holdings, strict=True)
    )
    usable = [
        _usable(model, [offer for offers in there.values() for offer in offers], registry)
        for model, there in zip(defaults, (had, has), strict=True)
    ]
    opened = {offer.id for offer in has[KeySource.BYOK]}
    unlent = {
        each.id
        for each in live
        if each.provider_id not in operators and each.id not in opened
        if entitled.allows(after, each, KeySource.MANAGED)
    }
    models = {source: _models(had[source], has[source]) for source in KeySource}
    limits = tuple(LimitChange(name, getattr(before, name), getattr(after, name)) for name in ("byok", *LIMITS))
    default = DefaultChange(defaults[0], defaults[1], usable[0], usable[1])
    return PlanChange(before, after, models, limits, default, tuple(sorted(unlent)))


def _is_of(held: Holdings, offer: Offer, source: KeySource) -> bool:
    found = held.get(offer.provider_id)
    return isinstance(found, Holding) and found.source is source


def _models(before: list[Offer], after: list[Offer]) -> ModelsChange:
    had, has = {offer.id for offer in before}, {offer.id for offer in after}
    return ModelsChange(tuple(sorted(has - had)), tuple(sorted(had - has)), len(had & has))


def _default(plan: Plan, own: str | None) -> str:
    return own if own and own.lower() != _DEFAULT else plan.default_model


def _beyond_catalogue(models: Iterable[str], registry: Registry) -> list[Offer]:
    """The offers of default models whose provider serves more than the catalogue lists."""
    split = [split_provider(model, registry) for model in models]
    return [open_offer(provider, name) for provider, name in filter(None, split) if provider.open_models]


def _usable(model: str, offers: list[Offer], registry: Registry) -> bool:
    if model.lower().partition(":")[0] == _AUTO:
        return bool(offers)
    wanted = compile_models([model], registry)
    return any(wanted.holds(offer.provider_id, offer.name) for offer in offers)
