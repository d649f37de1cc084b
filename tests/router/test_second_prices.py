"""A second opinion on prices: genai-prices beside the bundled map, for every mainstream model that both know. What
differs by more than 1 % is listed with what is known of it in tests/vectors/second_prices.toml."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Final

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from router.catalogue import Offer
from router.charge import Usage, charge
from router.quality import load_quality, quality_of
from tests.router.test_bundled import catalogue
from tests.router.vectors import Row, rows, vectors

# Ours to theirs; providers that genai-prices does not have are left out.
PROVIDERS: Final = {
    "anthropic": "anthropic",
    "cerebras": "cerebras",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "google",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "together": "together",
    "xai": "x-ai",
    "zai": "zai",
}
# A Friday at an hour that is not cheaper anywhere: Wardgate charges that price at every hour.
AT: Final = datetime(2026, 11, 20, 7, tzinfo=UTC)
ALLOWED: Final = Decimal("0.01")
USAGES: Final = (
    Usage(input_tokens=1000, output_tokens=1000),
    Usage(input_tokens=10_000, cached_input_tokens=8000, output_tokens=100),
    Usage(input_tokens=10_000, cache_write_tokens=8000, output_tokens=100),
    Usage(input_tokens=300_000, output_tokens=1000),
    Usage(input_tokens=600_000, output_tokens=1000),
)


def fits(offer: Offer, usage: Usage) -> bool:
    """Whether the offer can meet such a request and the map says what it costs."""
    room = offer.max_input_tokens is None or usage.input_tokens <= offer.max_input_tokens
    cached = not usage.cached_input_tokens or offer.prices.cached_input is not None
    return room and cached and (not usage.cache_write_tokens or offer.prices.cache_write is not None)


def theirs(offer: Offer, usage: Usage) -> Decimal | None:
    """What genai-prices says; None for a model that it does not have."""
    asked = TheirUsage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    provider = PROVIDERS[offer.provider_id]
    try:
        return calc_price(asked, offer.model, provider_id=provider, genai_request_timestamp=AT).total_price
    except LookupError:
        return None


@cache
def compared() -> list[tuple[str, Decimal | None, Decimal]]:
    """Offer, ours, theirs: for chat models of families that have a score."""
    scores = load_quality()
    offers = [
        offer
        for offer in catalogue().offers
        if offer.is_chat and offer.prices.known and offer.provider_id in PROVIDERS and quality_of(scores, offer.name)
    ]
    return [
        (offer.id, charge(offer.prices, usage).usd, price)
        for offer in offers
        for usage in USAGES
        if fits(offer, usage) and (price := theirs(offer, usage)) is not None
    ]


@cache
def different() -> frozenset[str]:
    return frozenset(
        offer_id for offer_id, ours, other in compared() if ours is None or abs(ours - other) > ALLOWED * other
    )


def test_no_price_of_a_mainstream_model_differs_unless_it_is_listed() -> None:
    listed = {offer_id for row in vectors("second_prices")["known"] for offer_id in row["offers"]}
    found = [each for each in compared() if each[0] in different() - listed]
    assert found == []


@pytest.mark.parametrize("row", rows("second_prices", "known"))
def test_what_is_listed_still_differs(row: Row) -> None:
    assert set(row["offers"]) <= different()


def test_enough_is_compared_to_mean_something() -> None:
    offers = {offer_id for offer_id, _, _ in compared()}
    assert len(compared()) > 400
    assert {offer_id.partition("/")[0] for offer_id in offers} == set(PROVIDERS)
