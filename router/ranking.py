"""Ranking: what a request is expected to cost with each candidate, and the order that follows.

Owns the candidate, the numbers that its cost was computed from, and the sort key. Must not know why others were
rejected.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from router.catalogue import Offer
from router.needs import Needs
from router.prices import cost
from router.query import Holding
from router.reasons import Denial, Reason

ASSUMED_OUTPUT_TOKENS: Final = 500  # what an answer is taken to have when the caller sets no limit


@dataclass(frozen=True, slots=True)
class CostBasis:
    """The numbers that an expected cost was computed from, in tokens."""

    input_tokens: int
    output_tokens: int
    output_assumed: bool  # the caller set no limit
    cached_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer that may answer, with the key that pays for it."""

    offer: Offer
    holding: Holding
    expected_cost: Decimal | None  # USD; None: the price is not known
    basis: CostBasis
    doubts: tuple[Denial, ...] = ()  # what is not certain about a model that the caller named


def candidate(offer: Offer, holding: Holding, needs: Needs, doubts: tuple[Denial, ...] = ()) -> Candidate:
    """The offer as a candidate for a request with these needs."""
    basis = cost_basis(offer, needs)
    expected = None
    if offer.prices.known:
        expected = cost(
            offer.prices,
            input_tokens=basis.input_tokens,
            output_tokens=basis.output_tokens,
            cached_input_tokens=basis.cached_input_tokens,
        )
    return Candidate(offer, holding, expected, basis, doubts)


def cost_basis(offer: Offer, needs: Needs) -> CostBasis:
    """The tokens that the request is expected to have with this offer: the caller's limit, but no more than the model
    writes."""
    assumed = needs.max_output_tokens is None
    asked = ASSUMED_OUTPUT_TOKENS if needs.max_output_tokens is None else needs.max_output_tokens
    room = offer.max_output_tokens
    output_tokens = asked if room is None else min(asked, room)
    return CostBasis(needs.input_tokens, output_tokens, assumed)


def rank(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Best first: priced before unpriced, certain before doubtful, then the least expected cost, then by id."""
    return tuple(sorted(candidates, key=_order))


def _order(each: Candidate) -> tuple[bool, int, Decimal, str]:
    doubts = sum(doubt.reason is not Reason.UNPRICED for doubt in each.doubts)
    return (each.expected_cost is None, doubts, each.expected_cost or Decimal(0), each.offer.id)
