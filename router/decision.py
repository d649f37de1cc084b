"""The decision: every offer considered, ranked or rejected with a reason.

Owns how selection, filters and ranking make one answer. A function of its inputs alone: no clock, no I/O, no
randomness; the order of what it is given does not matter. Must not know how a decision is shown.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from keystore.providers import Registry
from router.catalogue import Catalogue
from router.entitlement import Entitlements
from router.filters import Circumstances, judge
from router.health import ALL_WELL, HealthView, fit_to_serve
from router.plans import Plans
from router.query import Holding, Lacking, Query
from router.ranking import Candidate, CostBasis, candidate, rank
from router.reasons import Denial, Reason
from router.selection import Selection, asked_model, chat_offers, default_id, select

__all__ = ["Candidate", "CostBasis", "Decision", "Rejection", "route", "usable"]

Holdings = Mapping[str, Holding | Lacking]


@dataclass(frozen=True, slots=True)
class Rejection:
    """An offer that may not answer, and why. A model that no one offers is a rejection too, with what was asked for
    in place of an offer."""

    offer_id: str
    provider_id: str
    model: str
    reason: Reason
    detail: str  # a sentence without a full stop


@dataclass(frozen=True, slots=True)
class Decision:
    """Ranked and rejected together are all that was considered."""

    query: Query
    asked: str  # the model that the query came down to: "default" replaced by what it stands for
    default_id: (
        str  # the default model, qualified with its provider's id of today: the nearest miss is looked for there
    )
    catalogue_version: str
    ranked: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]

    @property
    def considered(self) -> int:
        """How many offers were looked at."""
        return len(self.ranked) + len(self.rejected)

    @property
    def counts(self) -> dict[str, int]:
        """How many were rejected for each reason, by the reason's word."""
        return dict(sorted(Counter(rejection.reason.value for rejection in self.rejected).items()))


def route(
    query: Query,
    catalogue: Catalogue,
    registry: Registry,
    plans: Plans,
    holdings: Holdings,
    health: HealthView = ALL_WELL,
) -> Decision:
    """Who may answer the query, in which order, and why the others may not. `holdings` says for each provider which
    key there is; a provider that is absent has none."""
    selection = select(query, catalogue, registry)
    at = _circumstances(query, selection, registry, plans, holdings)
    return _decide(query, selection, catalogue.version, default_id(query, registry), at, health)


def usable(query: Query, catalogue: Catalogue, registry: Registry, plans: Plans, holdings: Holdings) -> Decision:
    """What the tenant could name now, of all that answers chat: the query's own model is not looked at."""
    selection = Selection(asked_model(query), True, chat_offers(catalogue, registry))
    at = _circumstances(query, selection, registry, plans, holdings)
    return _decide(query, selection, catalogue.version, default_id(query, registry), at)


def _circumstances(
    query: Query, selection: Selection, registry: Registry, plans: Plans, holdings: Holdings
) -> dict[str, Circumstances]:
    """One record for each provider of the selection."""
    entitlements = Entitlements(plans, registry)
    wanted = {offer.provider_id for offer in selection.offers}
    return {
        row.id: Circumstances(query, selection.named, row, holdings.get(row.id, Lacking(row.id)), entitlements)
        for row in registry.providers
        if row.id in wanted
    }


def _decide(
    query: Query,
    selection: Selection,
    version: str,
    default: str,
    at: Mapping[str, Circumstances],
    health: HealthView = ALL_WELL,
) -> Decision:
    ranked: list[Candidate] = []
    rejected: list[Rejection] = []
    for offer in selection.offers:
        verdict = judge(offer, at[offer.provider_id])
        if isinstance(verdict, Denial):
            rejected.append(Rejection(offer.id, offer.provider_id, offer.model, verdict.reason, verdict.detail))
        else:
            ranked.append(candidate(offer, verdict.key, query.needs, verdict.doubts))
    if selection.miss is not None:
        miss = selection.miss
        rejected.append(Rejection(selection.asked, selection.provider_id, selection.asked, miss.reason, miss.detail))
    well, ill = fit_to_serve(rank(ranked), health)
    for each, no in ill:
        rejected.append(Rejection(each.offer.id, each.offer.provider_id, each.offer.model, no.reason, no.detail))
    rejected.sort(key=lambda each: each.offer_id)
    return Decision(query, selection.asked, default, version, well, tuple(rejected))
