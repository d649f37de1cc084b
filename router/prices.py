"""What tokens cost: prices by class, service tier and context size, and the exact cost of a number of tokens.

Money is Decimal US dollars per unit, never float. An unpriced model costs None, never zero. Must not know where prices
come from, models or providers; router/charge.py prices a whole usage record.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

MTOK: Final = 1_000_000  # providers publish prices per million tokens


class PriceClass(StrEnum):
    """What a price is for. Tokens unless the name says another unit."""

    INPUT = "input"
    OUTPUT = "output"
    CACHED_INPUT = "cached_input"
    CACHE_WRITE = "cache_write"  # kept for the provider's shortest time: 5 minutes with Anthropic
    CACHE_WRITE_1H = "cache_write_1h"
    CACHE_WRITE_12H = "cache_write_12h"
    REASONING = "reasoning"
    CITATION = "citation"
    AUDIO_INPUT = "audio_input"
    CACHED_AUDIO_INPUT = "cached_audio_input"
    AUDIO_CACHE_WRITE = "audio_cache_write"
    AUDIO_OUTPUT = "audio_output"
    IMAGE_INPUT = "image_input"
    CACHED_IMAGE_INPUT = "cached_image_input"
    IMAGE_OUTPUT = "image_output"
    VIDEO_INPUT = "video_input"
    VIDEO_OUTPUT = "video_output"
    INPUT_CHARACTER = "input_character"
    OUTPUT_CHARACTER = "output_character"
    INPUT_SECOND = "input_second"  # of audio that is transcribed
    OUTPUT_SECOND = "output_second"  # of audio that is spoken
    AUDIO_INPUT_SECOND = "audio_input_second"  # of audio beside a prompt
    VIDEO_INPUT_SECOND = "video_input_second"
    INPUT_IMAGE = "input_image"
    OUTPUT_IMAGE = "output_image"
    INPUT_PIXEL = "input_pixel"
    OUTPUT_PIXEL = "output_pixel"
    QUERY = "query"
    REQUEST = "request"
    MESSAGE = "message"
    PAGE = "page"
    ANNOTATED_PAGE = "annotated_page"
    SEARCH_LOW = "search_low"  # one web search, by the size of its context
    SEARCH_MEDIUM = "search_medium"
    SEARCH_HIGH = "search_high"
    MAPS_QUERY = "maps_query"


class ServiceTier(StrEnum):
    """How soon the provider answers, at other prices. The words of OpenAI's `service_tier` where it has one."""

    STANDARD = "default"
    PRIORITY = "priority"
    FLEX = "flex"
    BATCH = "batch"
    BALANCED = "balanced"
    FAST = "fast"
    ULTRAFAST = "ultrafast"


class Caveat(StrEnum):
    """What the price map says of a model's prices and these prices do not hold."""

    OFF_PEAK = "off_peak"  # cheaper at some hours
    REGIONAL = "regional"  # dearer where the request must stay in a region
    FAST_MODE = "fast_mode"  # dearer in the provider's fast mode
    FREE_SEARCHES = "free_searches"  # a number of searches a day or a month costs nothing
    EXPLICIT_CACHE = "explicit_cache"  # another price for a cache that the caller manages
    UNREAD = "unread"  # a price of a kind that Wardgate does not know


Others = Mapping[PriceClass, Decimal]
NO_OTHERS: Final[Others] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices of a whole request whose input is longer than `above_input_tokens`; what is None or absent is as below
    the tier."""

    above_input_tokens: int
    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    others: Others = field(default_factory=lambda: NO_OTHERS, hash=False)


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per unit; None or absent means that the price is not known. `tiers` rise by their threshold. The prices that
    every text meets are fields, all further classes are in `others`."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None  # None: a cached token costs what any input token costs
    cache_write: Decimal | None = None  # None: a token that is put into the cache costs what any input token costs
    tiers: tuple[PriceTier, ...] = ()
    others: Others = field(default_factory=lambda: NO_OTHERS, hash=False)
    services: "Mapping[ServiceTier, Prices]" = field(default_factory=lambda: NO_SERVICES, hash=False)
    caveats: frozenset[Caveat] = frozenset()
    known_up_to: int | None = None  # input tokens; a longer request has a price that is not known
    unknown: frozenset[PriceClass] = frozenset()  # that have a price of their own elsewhere and none here

    @property
    def known(self) -> bool:
        """Whether reading and writing both have a price."""
        return self.input is not None and self.output is not None

    @property
    def empty(self) -> bool:
        """Whether nothing has a price."""
        return not (self.others or any(price is not None for price in self._main()))

    def of(self, service: ServiceTier) -> "Prices":
        """The prices of this service tier; unpriced when the model is not known to have it."""
        return self if service is ServiceTier.STANDARD else self.services.get(service, UNPRICED)

    def price(self, price_class: PriceClass) -> Decimal | None:
        """The price of this class below every tier, without what stands in for an absent one."""
        name = MAIN.get(price_class)
        found: Decimal | None = getattr(self, name) if name else self.others.get(price_class)
        return found

    def _main(self) -> tuple[Decimal | None, ...]:
        return (self.input, self.output, self.cached_input, self.cache_write)


MAIN: Final[Mapping[PriceClass, str]] = MappingProxyType(
    {
        PriceClass.INPUT: "input",
        PriceClass.OUTPUT: "output",
        PriceClass.CACHED_INPUT: "cached_input",
        PriceClass.CACHE_WRITE: "cache_write",
    }
)
# Priced by the piece and not by the million: one may cost more than a token ever does.
PIECES: Final = frozenset(
    {
        PriceClass.INPUT_SECOND,
        PriceClass.OUTPUT_SECOND,
        PriceClass.AUDIO_INPUT_SECOND,
        PriceClass.VIDEO_INPUT_SECOND,
        PriceClass.INPUT_IMAGE,
        PriceClass.OUTPUT_IMAGE,
        PriceClass.QUERY,
        PriceClass.REQUEST,
        PriceClass.MESSAGE,
        PriceClass.PAGE,
        PriceClass.ANNOTATED_PAGE,
        PriceClass.SEARCH_LOW,
        PriceClass.SEARCH_MEDIUM,
        PriceClass.SEARCH_HIGH,
        PriceClass.MAPS_QUERY,
    }
)
# A class without a price of its own costs what this one costs. Audio is not here: where it is not priced apart it is
# not known to be priced as text. Nor are the longer lifetimes of a cache, which cost more than the shortest.
STANDS_IN: Final[Mapping[PriceClass, PriceClass]] = MappingProxyType(
    {
        PriceClass.CACHED_INPUT: PriceClass.INPUT,
        PriceClass.CACHE_WRITE: PriceClass.INPUT,
        PriceClass.CACHED_AUDIO_INPUT: PriceClass.AUDIO_INPUT,
        PriceClass.CACHED_IMAGE_INPUT: PriceClass.IMAGE_INPUT,
        PriceClass.IMAGE_INPUT: PriceClass.INPUT,
        PriceClass.VIDEO_INPUT: PriceClass.INPUT,
        PriceClass.REASONING: PriceClass.OUTPUT,
    }
)
NO_SERVICES: Final[Mapping[ServiceTier, Prices]] = MappingProxyType({})
UNPRICED: Final = Prices()
_NOTHING: Final = Decimal(0)


def prices_at(prices: Prices, input_tokens: int) -> Prices:
    """The prices that apply to a request of this input size: as they are below every tier, else with what the reached
    tiers say laid over them.

    A tier prices the whole request, not only the tokens above it (ai.google.dev/gemini-api/docs/pricing: "prompts >
    200k"; platform.claude.com/docs/en/about-claude/pricing, "Long context pricing").
    """
    if prices.known_up_to is not None and input_tokens > prices.known_up_to:
        return UNPRICED
    if not prices.tiers or input_tokens <= prices.tiers[0].above_input_tokens:
        return prices
    reached = [tier for tier in reversed(prices.tiers) if input_tokens > tier.above_input_tokens]
    others = dict(prices.others)
    for tier in reversed(reached):
        others.update(tier.others)
    return Prices(
        input=_first([*(tier.input for tier in reached), prices.input]),
        output=_first([*(tier.output for tier in reached), prices.output]),
        cached_input=_first([*(tier.cached_input for tier in reached), prices.cached_input]),
        cache_write=_first([*(tier.cache_write for tier in reached), prices.cache_write]),
        others=others,
        caveats=prices.caveats,
        unknown=prices.unknown,
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
    service: ServiceTier = ServiceTier.STANDARD,
) -> Decimal | None:
    """USD for one request of these tokens, exactly, or None when a price that it needs is not known. Tokens read from
    the cache and tokens written to it are part of the input tokens. `router.charge.charge` prices everything else."""
    at = prices_at(prices if service is ServiceTier.STANDARD else prices.of(service), input_tokens)
    if at.input is None or (at.output is None and output_tokens):
        return None
    written = at.output * output_tokens if at.output is not None else _NOTHING
    fee = at.others.get(PriceClass.REQUEST, _NOTHING) if at.others else _NOTHING
    if not cached_input_tokens and not cache_write_tokens:
        return at.input * input_tokens + written + fee
    cached = min(cached_input_tokens, input_tokens)
    stored = min(cache_write_tokens, input_tokens - cached)
    if stored and PriceClass.CACHE_WRITE in at.unknown:
        return None
    cached_price = at.input if at.cached_input is None else at.cached_input
    stored_price = at.input if at.cache_write is None else at.cache_write
    read = at.input * (input_tokens - cached - stored) + cached_price * cached + stored_price * stored
    return read + written + fee


def usd(amount: Decimal) -> str:
    """An amount as plain text: all its digits, no exponent, no trailing zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
