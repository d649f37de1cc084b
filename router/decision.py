"""The decision: every offer considered, ranked or rejected with a reason.

Owns how selection, filters and ranking make one answer. A function of its inputs alone: no clock, no I/O, no
randomness; the order of what it is given does not matter. Must not know how a decision is shown.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, overload

from keystore.providers import Registry
from router.catalogue import Catalogue, Offer
from router.entitlement import Entitlements
from router.filters import OFFER_FILTERS, Circumstances, Filter, Passed, fit_filters, judge, lacks_key, left_out
from router.health import ALL_WELL, HealthView, fit_to_serve
from router.model_names import EVERYTHING
from router.objective import Objective
from router.plans import Plans
from router.query import Holding, Lacking, Query
from router.ranking import Candidate, CostBasis, candidate, rank
from router.reasons import Denial, Reason
from router.selection import Group, Selection, Selector, default_id

__all__ = ["Candidate", "CostBasis", "Decision", "Rejection", "Rejections", "Router", "route", "settled", "usable"]

Holdings = Mapping[str, Holding | Lacking]
REMEMBERED: Final = 256  # decisions; one over a thousand candidates holds some 300 kB


@dataclass(frozen=True, slots=True)
class Rejection:
    """An offer that may not answer, and why. A model that no one offers is a rejection too, with what was asked for
    in place of an offer."""

    offer_id: str
    provider_id: str
    model: str
    reason: Reason
    detail: str  # a sentence without a full stop
    margin: int = 0  # as Denial.margin
    lent: bool = False  # as Denial.lent
    param: str | None = None  # the field of the request that a wire does not carry


class Rejections(Sequence[Rejection]):
    """Rejections by the offers' ids, worded when they are first looked at: most requests are served, and nobody asks
    why the others were not."""

    __slots__ = ("_counts", "_found", "_more", "_work")

    def __init__(self, work: Callable[[], Iterable[Rejection]], more: tuple[Rejection, ...] = ()) -> None:
        self._work = work
        self._more = more
        self._found: tuple[Rejection, ...] | None = None
        self._counts: dict[str, int] | None = None

    @classmethod
    def of(cls, known: Iterable[Rejection]) -> "Rejections":
        """Those that are worded already."""
        listed = tuple(known)
        return cls(lambda: listed)

    def and_also(self, more: Iterable[Rejection]) -> "Rejections":
        """These and others."""
        return Rejections(self._work, (*self._more, *more))

    @property
    def counts(self) -> dict[str, int]:
        """How many there are for each reason, by the reason's word."""
        if self._counts is None:
            counted = Counter(each.reason for each in self._all())
            self._counts = dict(sorted((reason.value, count) for reason, count in counted.items()))
        return dict(self._counts)

    def _all(self) -> tuple[Rejection, ...]:
        if self._found is None:
            self._found = tuple(sorted((*self._work(), *self._more), key=lambda each: each.offer_id))
        return self._found

    @overload
    def __getitem__(self, place: int) -> Rejection: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Rejection, ...]: ...
    def __getitem__(self, place: int | slice) -> Rejection | tuple[Rejection, ...]:
        return self._all()[place]

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Rejection]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rejections) and self._all() == other._all()

    __hash__ = None  # type: ignore[assignment]  # worded late: nothing to be told apart by

    def __repr__(self) -> str:
        return f"Rejections({list(self._all())})"


@dataclass(frozen=True, slots=True)
class Decision:
    """Ranked and rejected together are all that was considered."""

    query: Query
    asked: str  # the models that the query came down to: "default" and aliases replaced by what they stand for
    default_id: (
        str  # the default model, qualified with its provider's id of today: the nearest miss is looked for there
    )
    catalogue_version: str
    ranked: tuple[Candidate, ...]
    rejected: Rejections
    aliases: tuple[str, ...] = ()  # those that were asked for
    in_order: bool = False  # the request itself says in which order they are tried

    @property
    def considered(self) -> int:
        """How many offers were looked at."""
        return len(self.ranked) + len(self.rejected)

    @property
    def counts(self) -> dict[str, int]:
        """How many were rejected for each reason, by the reason's word."""
        return self.rejected.counts


class Router:
    """Decisions over one catalogue and one set of rows. What was decided is remembered for the same query and the very
    same holdings, up to REMEMBERED decisions; a new catalogue or new rows are a new Router."""

    __slots__ = ("_catalogue", "_entitlements", "_known", "_plans", "_registry", "_selector")

    def __init__(self, catalogue: Catalogue, registry: Registry, plans: Plans) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._plans = plans
        self._entitlements = Entitlements(plans, registry)
        self._selector = Selector(catalogue, registry)
        self._known: OrderedDict[tuple[Query, Holdings], Decision] = OrderedDict()

    def route(self, query: Query, holdings: Holdings, health: HealthView = ALL_WELL) -> Decision:
        """Who may answer the query, in which order, and why the others may not. `holdings` says for each provider which
        key there is; a provider that is absent has none."""
        return settled(self._decide(query, self._selector.select(query), holdings), health)

    def fitting(self, query: Query, holdings: Holdings) -> Decision:
        """`route` before it is `settled`: whoever fits, whatever their health. Remembered; `holdings` must be hashable,
        and must not change."""
        asked = (query, holdings)
        known = self._known.get(asked)
        if known is None:
            known = self._known[asked] = self._decide(query, self._selector.select(query), holdings)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known

    def usable(self, query: Query, holdings: Holdings) -> Decision:
        """What the tenant could name now, of all that answers chat: the query's own model is not looked at."""
        return self._decide(query, self._selector.everything(query.modes), holdings)

    def _decide(self, query: Query, selection: Selection, holdings: Holdings) -> Decision:
        judging = _Judging(query, holdings, self._registry, self._entitlements, fit_filters(query.needs))
        ranked: dict[str, Candidate] = {}
        for group in selection.groups:
            fresh = [each for each in judging.passing(group) if each.offer.id not in ranked]
            objective = group.objective or query.preferences.objective or Objective.CHEAPEST
            ranked |= {each.offer.id: each for each in rank(fresh, objective, query.preferences.order)}
        return Decision(
            query=query,
            asked=selection.asked,
            default_id=default_id(query, self._registry),
            catalogue_version=self._catalogue.version,
            ranked=tuple(ranked.values()),
            rejected=Rejections(lambda: judging.rejections(selection, ranked)),
            aliases=selection.aliases,
            in_order=len(selection.groups) > 1 or bool(query.preferences.order),
        )


def settled(decision: Decision, health: HealthView) -> Decision:
    """The decision without whoever is ill, and, where the request wants no fallbacks and names no order, without
    everybody behind the first."""
    well, ill = fit_to_serve(decision.ranked, health)
    wishes = decision.query.preferences
    behind: Sequence[Candidate] = ()
    if not (wishes.allow_fallbacks or wishes.order):
        well, behind = well[:1], well[1:]
    if not ill and not behind:
        return decision if well == decision.ranked else replace(decision, ranked=well)
    told = Denial(Reason.EXCLUDED_BY_REQUEST, "another candidate comes first, and `provider.allow_fallbacks` is false")
    lost = [*(_rejection(each.offer, no) for each, no in ill), *(_rejection(each.offer, told) for each in behind)]
    return replace(decision, ranked=well, rejected=decision.rejected.and_also(lost))


def route(
    query: Query,
    catalogue: Catalogue,
    registry: Registry,
    plans: Plans,
    holdings: Holdings,
    health: HealthView = ALL_WELL,
) -> Decision:
    """One decision, as Router.route."""
    return Router(catalogue, registry, plans).route(query, holdings, health)


def usable(query: Query, catalogue: Catalogue, registry: Registry, plans: Plans, holdings: Holdings) -> Decision:
    """What the tenant could name now, as Router.usable."""
    return Router(catalogue, registry, plans).usable(query, holdings)


def _rejection(offer: Offer, denial: Denial) -> Rejection:
    return Rejection(offer.id, offer.provider_id, offer.model, denial.reason, denial.detail, denial.margin, denial.lent)


class _Judging:
    """The filters, put to the offers of each group under the circumstances of their providers."""

    __slots__ = ("_entitlements", "_fits", "_holdings", "_query", "_registry")

    def __init__(
        self,
        query: Query,
        holdings: Holdings,
        registry: Registry,
        entitlements: Entitlements,
        fits: Sequence[Filter],
    ) -> None:
        self._query = query
        self._holdings = holdings
        self._registry = registry
        self._entitlements = entitlements
        self._fits = fits

    def passing(self, group: Group) -> Iterator[Candidate]:
        """The candidates of a group. An offer whose provider has no key, or is left out, is not even asked
        about."""
        query, objective = self._query, group.objective or self._query.preferences.objective
        for provider_id, offers in group.offers.items():
            if not isinstance(self._holdings.get(provider_id), Holding) or left_out(query.preferences, provider_id):
                continue
            at = self._circumstances(group, provider_id)
            for offer in offers:
                verdict = judge(offer, at, self._fits)
                if not isinstance(verdict, Denial):
                    yield candidate(offer, verdict.key, query, verdict.doubts, objective)

    def rejections(self, selection: Selection, ranked: Mapping[str, Candidate]) -> Iterator[Rejection]:
        """Why each offer that is not ranked is not: the first group's reason; and the groups that found nothing, the
        first of them with what is near."""
        seen, hints = set(ranked), 1
        for group in selection.groups:
            if group.miss is not None:
                asked, miss = group.asked, group.miss
                detail = miss.detail + (group.hint() if hints > 0 else "")
                hints -= 1
                yield Rejection(asked, group.provider_id, asked, miss.reason, detail)
            for provider_id, offers in group.offers.items():
                at = self._circumstances(group, provider_id)
                asked_all = self._asked_all(at)
                for offer in offers:
                    if offer.id not in seen:
                        seen.add(offer.id)
                        verdict = asked_all(offer)
                        if isinstance(verdict, Denial):
                            yield _rejection(offer, verdict)

    def _asked_all(self, at: Circumstances) -> Callable[[Offer], Passed | Denial]:
        """`judge` for the offers of one provider. Where it has no key and the plan takes keys for every model, all of
        its offers that are offers at all lack the same one."""
        plan = at.query.plan
        if not (isinstance(at.key, Lacking) and plan.byok and EVERYTHING in plan.byok_models):
            return lambda offer: judge(offer, at, self._fits)
        lacking: list[Denial] = []

        def without_key(offer: Offer) -> Denial:
            for ask in OFFER_FILTERS:
                denial = ask(offer, at)
                if denial is not None:
                    return denial
            if not lacking:
                assert isinstance(at.key, Lacking)  # noqa: S101 - as asked above
                lacking.append(lacks_key(offer, at, at.key))
            return lacking[0]

        return without_key

    def _circumstances(self, group: Group, provider_id: str) -> Circumstances:
        provider = self._registry.get(provider_id)
        assert provider is not None  # noqa: S101 - selection offers what this registry's providers serve
        query, wish = self._query, group.wish
        floors = (query.plan.min_quality, query.preferences.min_quality or 0, wish.min_quality or 0)
        return Circumstances(
            query=query,
            named=group.named,
            provider=provider,
            key=self._holdings.get(provider_id) or Lacking(provider_id),
            entitlements=self._entitlements,
            min_quality=max(floors),
            unknown_quality=wish.unknown_quality or query.preferences.unknown_quality,
        )
