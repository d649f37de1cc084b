"""What one call costs: a usage record split into classes that do not overlap, each at its own price.

Owns the usage record, which class a unit belongs to, and what stands in for a class without a price. A class that was
used and has no price makes the whole call unpriced, and is named; nothing is ever taken as zero. Must not know models,
providers or how usage is read from an answer.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from keystore.money import MOST, nano_of
from router.prices import STANDS_IN, PriceClass, Prices, ServiceTier, prices_at

# A fee that few models have: without a price there is none.
_ONLY_IF_PRICED: Final = frozenset({PriceClass.REQUEST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one call used. All that was read is in `input_tokens`, cached, stored, audio, image and video tokens
    included; all that was written in `output_tokens`, reasoning included. Audio and images that the provider bills by
    the second or the piece are in those fields and not in the tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0  # cached audio and images included
    cached_audio_input_tokens: int = 0
    cached_image_input_tokens: int = 0
    cache_write_tokens: int = 0  # for the shortest lifetime
    cache_write_1h_tokens: int = 0
    cache_write_12h_tokens: int = 0
    audio_input_tokens: int = 0  # cached ones included
    audio_cache_write_tokens: int = 0  # not in audio_input_tokens
    image_input_tokens: int = 0  # cached ones included
    video_input_tokens: int = 0
    reasoning_tokens: int = 0
    citation_tokens: int = 0  # not in output_tokens
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    video_output_tokens: int = 0
    input_characters: int = 0
    output_characters: int = 0
    input_seconds: Decimal = Decimal(0)
    output_seconds: Decimal = Decimal(0)
    audio_input_seconds: Decimal = Decimal(0)
    video_input_seconds: Decimal = Decimal(0)
    input_images: int = 0
    output_images: int = 0
    input_pixels: int = 0
    output_pixels: int = 0
    queries: int = 0
    requests: int = 1
    messages: int = 0
    pages: int = 0
    annotated_pages: int = 0
    searches_low: int = 0
    searches_medium: int = 0
    searches_high: int = 0
    maps_queries: int = 0
    service: ServiceTier = ServiceTier.STANDARD


@dataclass(frozen=True, slots=True)
class Line:
    """So many units of one class at this price each; None: the price is not known."""

    price_class: PriceClass
    units: int | Decimal
    price: Decimal | None
    nano: int | None  # what the line comes to, in whole nano-dollars: what is written down, and what sums are made of


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call costs and from what. `usd` is None when a class that was used has no price; `nano` is the sum of the
    lines, each in whole nano-dollars, and None when `usd` is: at most what a database holds, nine billion dollars."""

    usd: Decimal | None
    lines: tuple[Line, ...]
    nano: int | None

    @property
    def unpriced(self) -> tuple[PriceClass, ...]:
        """The classes that were used and have no price."""
        return tuple(line.price_class for line in self.lines if line.price is None)


def charge(prices: Prices, usage: Usage) -> Charge:
    """The exact cost of a call, line by line. A model of which no price is known costs None even for nothing."""
    return reckoned(prices_at(prices.of(usage.service), usage.input_tokens), _units(usage))


def reckoned(at: Prices, used: Iterable[tuple[PriceClass, int | Decimal]]) -> Charge:
    """The same of so many units of each class, at the prices of one tier."""
    lines: list[Line] = []
    total, nano = Decimal(0), 0
    complete = not at.empty
    for price_class, units in used:
        price = price_of(at, price_class)
        if price is None:
            if price_class not in _ONLY_IF_PRICED:
                lines.append(Line(price_class, units, None, None))
                complete = False
            continue
        comes_to = price * units
        rounded = nano_of(comes_to)
        lines.append(Line(price_class, units, price, rounded))
        total, nano = total + comes_to, nano + rounded
    return Charge(total, tuple(lines), min(nano, MOST)) if complete else Charge(None, tuple(lines), None)


def price_of(prices: Prices, price_class: PriceClass) -> Decimal | None:
    """What a unit of this class costs, a class that stands in for it included."""
    asked: PriceClass | None = price_class
    while asked is not None:
        price = prices.price(asked)
        if price is not None:
            return price
        asked = None if asked in prices.unknown else STANDS_IN.get(asked)
    return None


# What input and output tokens are split into: each class takes its units from what is left of the whole, in this order,
# so that a provider's details that add up to more than its total never charge a token twice.
_READ: Final[tuple[tuple[PriceClass, str], ...]] = (
    (PriceClass.CACHED_AUDIO_INPUT, "cached_audio_input_tokens"),
    (PriceClass.CACHED_IMAGE_INPUT, "cached_image_input_tokens"),
    (PriceClass.CACHED_INPUT, "cached_input_tokens"),
    (PriceClass.CACHE_WRITE_12H, "cache_write_12h_tokens"),
    (PriceClass.CACHE_WRITE_1H, "cache_write_1h_tokens"),
    (PriceClass.CACHE_WRITE, "cache_write_tokens"),
    (PriceClass.AUDIO_CACHE_WRITE, "audio_cache_write_tokens"),
    (PriceClass.AUDIO_INPUT, "audio_input_tokens"),
    (PriceClass.IMAGE_INPUT, "image_input_tokens"),
    (PriceClass.VIDEO_INPUT, "video_input_tokens"),
)
READ_CLASSES: Final = frozenset({PriceClass.INPUT, *(each for each, _ in _READ)})  # all that a tier's bound counts
_WRITTEN: Final[tuple[tuple[PriceClass, str], ...]] = (
    (PriceClass.AUDIO_OUTPUT, "audio_output_tokens"),
    (PriceClass.IMAGE_OUTPUT, "image_output_tokens"),
    (PriceClass.VIDEO_OUTPUT, "video_output_tokens"),
    (PriceClass.REASONING, "reasoning_tokens"),
)
# Of this field the part that another class has taken already.
_INSIDE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "cached_input_tokens": ("cached_audio_input_tokens", "cached_image_input_tokens"),
        "audio_input_tokens": ("cached_audio_input_tokens",),
        "image_input_tokens": ("cached_image_input_tokens",),
    }
)
_COUNTED: Final[tuple[tuple[PriceClass, str], ...]] = (
    (PriceClass.CITATION, "citation_tokens"),
    (PriceClass.INPUT_CHARACTER, "input_characters"),
    (PriceClass.OUTPUT_CHARACTER, "output_characters"),
    (PriceClass.INPUT_SECOND, "input_seconds"),
    (PriceClass.OUTPUT_SECOND, "output_seconds"),
    (PriceClass.AUDIO_INPUT_SECOND, "audio_input_seconds"),
    (PriceClass.VIDEO_INPUT_SECOND, "video_input_seconds"),
    (PriceClass.INPUT_IMAGE, "input_images"),
    (PriceClass.OUTPUT_IMAGE, "output_images"),
    (PriceClass.INPUT_PIXEL, "input_pixels"),
    (PriceClass.OUTPUT_PIXEL, "output_pixels"),
    (PriceClass.QUERY, "queries"),
    (PriceClass.REQUEST, "requests"),
    (PriceClass.MESSAGE, "messages"),
    (PriceClass.PAGE, "pages"),
    (PriceClass.ANNOTATED_PAGE, "annotated_pages"),
    (PriceClass.SEARCH_LOW, "searches_low"),
    (PriceClass.SEARCH_MEDIUM, "searches_medium"),
    (PriceClass.SEARCH_HIGH, "searches_high"),
    (PriceClass.MAPS_QUERY, "maps_queries"),
)


_OF_READ: Final = attrgetter(*(field for _, field in _READ))
_OF_WRITTEN: Final = attrgetter(*(field for _, field in _WRITTEN))
_OF_COUNTED: Final = attrgetter(*(field for _, field in _COUNTED))  # all at once: most are zero


def _units(usage: Usage) -> Iterator[tuple[PriceClass, int | Decimal]]:
    """The classes that were used, each with its units; no token is in two of them."""
    yield from _split(usage, usage.input_tokens, _READ, _OF_READ(usage), PriceClass.INPUT)
    yield from _split(usage, usage.output_tokens, _WRITTEN, _OF_WRITTEN(usage), PriceClass.OUTPUT)
    for (price_class, _), units in zip(_COUNTED, _OF_COUNTED(usage), strict=True):
        if units > 0:
            yield price_class, units


def _split(
    usage: Usage, total: int, parts: tuple[tuple[PriceClass, str], ...], counts: tuple[int, ...], rest: PriceClass
) -> Iterator[tuple[PriceClass, int]]:
    left = max(total, 0)
    for (price_class, field), counted in zip(parts, counts, strict=True):
        if not counted:
            continue
        taken = sum(getattr(usage, inner) for inner in _INSIDE.get(field, ()))
        units = min(max(counted - taken, 0), left)
        if units:
            left -= units
            yield price_class, units
    if left:
        yield rest, left
