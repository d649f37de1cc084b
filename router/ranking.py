"""Ranking: what a request is expected to cost and take with each candidate, and the order that follows.

Owns the candidate, the numbers that its cost was computed from, and the sort keys. Must not know why others were
rejected.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from router.catalogue import Offer
from router.objective import Objective
from router.prices import cost
from router.query import Holding, Query
from router.reasons import Denial, Reason

ASSUMED_OUTPUT_TOKENS: Final = 500  # what an answer is taken to have when nothing is known of it


class OutputFrom(StrEnum):
    """Where the number of output tokens is from."""

    LIMIT = "limit"  # the caller's
    HABIT = "habit"  # the median of this tenant's answers of this model
    TENANT = "tenant"  # the median of all its answers: it has none of this model, or few
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class CostBasis:
    """The numbers that an expected cost was computed from, in tokens."""

    input_tokens: int
    output_tokens: int
    output_from: OutputFrom
    cached_input_tokens: int = 0

    @property
    def output_assumed(self) -> bool:
        """The caller set no limit."""
        return self.output_from is not OutputFrom.LIMIT


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer that may answer, with the key that pays for it."""

    offer: Offer
    holding: Holding
    expected_cost: Decimal | None  # USD; None: the price is not known
    basis: CostBasis
    doubts: tuple[Denial, ...] = ()  # what is not certain about a model that the caller named
    objective: Objective = Objective.CHEAPEST
    expected_s: float | None = None  # how long the answer is expected to take; None: not known
    dropped: tuple[str, ...] = ()  # parameters that will be left out, which the request allows


def candidate(
    offer: Offer, holding: Holding, query: Query, doubts: tuple[Denial, ...] = (), objective: Objective | None = None
) -> Candidate:
    """The offer as a candidate for this query."""
    basis = cost_basis(offer, query)
    expected = None
    if offer.prices.known and not offer.fee_unknown:  # at this size and service tier they may still not be
        expected = cost(
            offer.prices,
            input_tokens=basis.input_tokens,
            output_tokens=basis.output_tokens,
            cached_input_tokens=basis.cached_input_tokens,
            service=query.needs.service,
        )
    seconds = query.paces.seconds(offer.id, basis.output_tokens)
    return Candidate(offer, holding, expected, basis, doubts, objective or Objective.CHEAPEST, seconds)


def cost_basis(offer: Offer, query: Query) -> CostBasis:
    """The tokens that the request is expected to have with this offer: for each answer that is asked for the caller's
    limit, else what the tenant's answers of this model usually have, but no more than the model writes; of the input
    the share that this provider's cache had of the tenant's requests lately."""
    output_tokens, output_from = _output(offer, query)
    room = offer.max_output_tokens
    if room is not None and output_tokens > room:
        output_tokens = room
    output_tokens *= query.needs.answers
    input_tokens = query.needs.input_tokens
    share = query.habits.cached.get(offer.provider_id)
    cached = 0 if not share else int(input_tokens * share)
    return CostBasis(input_tokens, output_tokens, output_from, cached)


def _output(offer: Offer, query: Query) -> tuple[int, OutputFrom]:
    limit, usual = query.needs.max_output_tokens, query.habits.outputs.get(offer.id)
    if limit is not None:
        return limit, OutputFrom.LIMIT
    if usual is not None:
        return usual.tokens, OutputFrom.HABIT
    if query.habits.usual is not None:
        return query.habits.usual.tokens, OutputFrom.TENANT
    return ASSUMED_OUTPUT_TOKENS, OutputFrom.ASSUMED


def usually_written(offer: Offer, query: Query) -> int:
    """The tokens that an answer is taken to have of which nobody saw all: what the tenant's answers usually have. A
    limit says what may be written and not what is, so that it is only a bound."""
    usual = query.habits.outputs.get(offer.id) or query.habits.usual
    tokens = ASSUMED_OUTPUT_TOKENS if usual is None else usual.tokens
    bounds = (query.needs.max_output_tokens, offer.max_output_tokens)
    return min([tokens, *[each for each in bounds if each is not None]]) * query.needs.answers


# --- order -----------------------------------------------------------------------------------------------------------


def _cheapest(each: Candidate) -> tuple[Any, ...]:
    """Priced before unpriced, then the least expected cost."""
    return (each.expected_cost is None, _doubts(each), each.expected_cost or Decimal(0))


def _fastest(each: Candidate) -> tuple[Any, ...]:
    """Measured before not measured, then the least expected time; what nobody measured, by cost."""
    return (_doubts(each), each.expected_s is None, each.expected_s or 0.0, *_cheapest(each))


def _best(each: Candidate) -> tuple[Any, ...]:
    """The highest quality, of equals the cheapest; unknown quality last."""
    quality = each.offer.quality
    return (_doubts(each), quality is None, -quality.score if quality else 0, *_cheapest(each))


def _value(each: Candidate) -> tuple[Any, ...]:
    """The least cost for a point of quality; unknown quality or price last."""
    quality, price = each.offer.quality, each.expected_cost
    if quality is None or not quality.score or price is None:
        return (_doubts(each), True, Fraction(0), *_best(each))
    return (_doubts(each), False, Fraction(price) / quality.score, -quality.score)


def _doubts(each: Candidate) -> int:
    """How much is not certain, the price aside."""
    return sum(doubt.reason is not Reason.UNPRICED for doubt in each.doubts) if each.doubts else 0


ORDERS: Final[Mapping[Objective, Callable[[Candidate], tuple[Any, ...]]]] = MappingProxyType(
    {
        Objective.CHEAPEST: _cheapest,
        Objective.FASTEST: _fastest,
        Objective.BEST: _best,
        Objective.VALUE: _value,
    }
)


def rank(candidates: list[Candidate], objective: Objective, order: tuple[str, ...] = ()) -> list[Candidate]:
    """Best first by the objective, then by id; before that, the providers of `order` in its order."""
    key = ORDERS[objective]
    if not order:
        return sorted(candidates, key=lambda each: (*key(each), each.offer.id))
    places = {provider_id: place for place, provider_id in enumerate(order)}
    last = len(order)
    return sorted(candidates, key=lambda each: (places.get(each.offer.provider_id, last), *key(each), each.offer.id))
