"""What tokens cost: prices per token with context tiers, and the exact cost of a number of tokens.

Money is Decimal US dollars per token, never float. An unpriced model costs None, never zero. Must not know where
prices come from, models or providers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

MTOK: Final = 1_000_000  # providers publish prices per million tokens


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices of a whole request whose input is longer than `above_input_tokens`; None means: as below the tier."""

    above_input_tokens: int
    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per token; None means that the price is not known. `tiers` rise by their threshold."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None  # None: a cached token costs what any input token costs
    cache_write: Decimal | None = None  # None: a token that is put into the cache costs what any input token costs
    tiers: tuple[PriceTier, ...] = ()

    @property
    def known(self) -> bool:
        """Whether reading and writing both have a price."""
        return self.input is not None and self.output is not None


UNPRICED: Final = Prices()


def prices_at(prices: Prices, input_tokens: int) -> Prices:
    """The prices that apply to a request of this input size, without tiers.

    A tier prices the whole request, not only the tokens above it (ai.google.dev/gemini-api/docs/pricing: "prompts >
    200k"; platform.claude.com/docs/en/about-claude/pricing, "Long context pricing").
    """
    if not prices.tiers:
        return prices
    reached = [tier for tier in reversed(prices.tiers) if input_tokens > tier.above_input_tokens]
    return Prices(
        input=_first([*(tier.input for tier in reached), prices.input]),
        output=_first([*(tier.output for tier in reached), prices.output]),
        cached_input=_first([*(tier.cached_input for tier in reached), prices.cached_input]),
        cache_write=_first([*(tier.cache_write for tier in reached), prices.cache_write]),
    )


def _first(known: Iterable[Decimal | None]) -> Decimal | None:
    return next((price for price in known if price is not None), None)


def cost(
    prices: Prices,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_input_tokens: int = 0,
    cache_write_tokens: int = 0,
) -> Decimal | None:
    """USD for these tokens, exactly, or None when a price that it needs is not known. Tokens read from the cache and
    tokens written to it are part of the input tokens."""
    at = prices_at(prices, input_tokens)
    if at.input is None or (at.output is None and output_tokens):
        return None
    cached = min(cached_input_tokens, input_tokens)
    stored = min(cache_write_tokens, input_tokens - cached)
    cached_price = at.input if at.cached_input is None else at.cached_input
    stored_price = at.input if at.cache_write is None else at.cache_write
    read = at.input * (input_tokens - cached - stored) + cached_price * cached + stored_price * stored
    written = at.output * output_tokens if at.output is not None else Decimal(0)
    return read + written


def usd(amount: Decimal) -> str:
    """An amount as plain text: all its digits, no exponent, no trailing zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
