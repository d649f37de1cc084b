"""What a plan allows with whose key, and which plan would allow what this one does not.

Owns the one rule: the managed list binds the operator's keys; the byok switch and list bind the tenant's own. Compiles
each list once. Must not know requests or prices.
"""

from collections import OrderedDict
from typing import Final

from keystore.providers import Registry
from router.catalogue import Offer
from router.model_names import ModelSet, compile_models
from router.plans import Plan, Plans
from router.query import KeySource

LISTS: Final = 1_000  # that are remembered compiled


class Entitlements:
    """The plans' lists, and those of tokens, compiled when they are first asked for."""

    __slots__ = ("_compiled", "_plans", "_registry")

    def __init__(self, plans: Plans, registry: Registry) -> None:
        self._plans = plans
        self._registry = registry
        self._compiled: OrderedDict[tuple[str, ...], ModelSet] = OrderedDict()

    def allows(self, plan: Plan, offer: Offer, source: KeySource) -> bool:
        """Whether the plan lets this offer be used with a key of this source."""
        if source is KeySource.BYOK:
            return plan.byok and self._holds(plan.byok_models, offer)
        return self._holds(plan.managed_models, offer)

    def holds(self, patterns: tuple[str, ...], offer: Offer) -> bool:
        """Whether a list of models has this offer."""
        return self._holds(patterns, offer)

    def unlocking(self, plan: Plan, offer: Offer, source: KeySource) -> Plan | None:
        """The least of the other plans that lets this offer be used with a key of this source."""
        others = (other for other in self._plans if other.name != plan.name)
        return next((other for other in others if self.allows(other, offer, source)), None)

    def _holds(self, patterns: tuple[str, ...], offer: Offer) -> bool:
        models = self._compiled.get(patterns)
        if models is None:
            models = self._compiled[patterns] = compile_models(patterns, self._registry)
            if len(self._compiled) > LISTS:
                self._compiled.popitem(last=False)
        return models.holds(offer.provider_id, offer.name)
