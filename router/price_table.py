"""The prices of one row of LiteLLM's price map: every class at every service tier and context size.

Owns how fields become a price table and when a price is not to be believed. All the prices of a row or none: one wrong
price makes the others doubtful. Must not know field names (router/price_fields.py) or what a row says beside prices.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from router.price_fields import SEARCH_CLASSES, SEARCHES, multiplier_caveats, read_field
from router.price_values import MAX_USD_PER_PIECE, MAX_USD_PER_TOKEN, Cause, Malformed, Notes, amount, whole
from router.prices import (
    MAIN,
    NO_OTHERS,
    NO_SERVICES,
    PIECES,
    STANDS_IN,
    UNPRICED,
    Caveat,
    PriceClass,
    Prices,
    PriceTier,
    ServiceTier,
)

Row = Mapping[str, object]
Rates = dict[PriceClass, Decimal]
PriceTable = dict[tuple[ServiceTier, int], Rates]  # the second: above how many input tokens

CHAT: Final = "chat"
_WRITES_NOTHING: Final = frozenset({"embedding", "rerank", "moderation"})
_LIST: Final = "tiered_pricing"
_INPUT_PRICE: Final = "input_cost_per_token"
_BASE: Final = (ServiceTier.STANDARD, 0)
_NO_CAVEATS: Final[frozenset[Caveat]] = frozenset()
_NO_CLASSES: Final[frozenset[PriceClass]] = frozenset()
_NO_RATES: Final[Mapping[PriceClass, Decimal]] = MappingProxyType({})
_MAIN: Final = frozenset(MAIN)
_MOVES: Final = frozenset({PriceClass.INPUT, PriceClass.OUTPUT})

# Providers (as the map calls them) whose tiers begin at the threshold and not above it (LiteLLM's cost calculator).
_BEGIN_AT_THRESHOLD: Final = frozenset({"xai"})
# A class that costs what the other one does costs so in every tier: the map repeats it in the first table alone.
_FOLLOWS: Final[Mapping[PriceClass, PriceClass]] = MappingProxyType(
    {
        PriceClass.REASONING: PriceClass.OUTPUT,
        PriceClass.AUDIO_INPUT: PriceClass.INPUT,
        PriceClass.IMAGE_INPUT: PriceClass.INPUT,
        PriceClass.VIDEO_INPUT: PriceClass.INPUT,
        PriceClass.AUDIO_OUTPUT: PriceClass.OUTPUT,
        PriceClass.IMAGE_OUTPUT: PriceClass.OUTPUT,
    }
)
# What stands in for these costs at least as much, in every service tier.
_NEVER_DEARER: Final = frozenset(
    {PriceClass.CACHED_INPUT, PriceClass.CACHED_AUDIO_INPUT, PriceClass.CACHED_IMAGE_INPUT}
)


def read_prices(row: Row, *, mode: str, free: bool, notes: Notes) -> Prices:
    """The prices of a row; `free` says that a price of zero is real. Never raises: counts into `notes`."""
    table: PriceTable = {}
    try:
        caveats = _read_fields(row, table, notes)
        _read_parts(row, table, notes)
        caveats |= multiplier_caveats(row)
    except Malformed:
        notes[Cause.PRICE_MALFORMED] += 1
        return UNPRICED
    if Caveat.UNREAD in caveats:
        notes[Cause.PRICE_UNREAD] += 1
    if not free and not _believable(table, mode, notes):
        return UNPRICED
    _follow(table)
    return prices_of(table, frozenset(caveats) if caveats else _NO_CAVEATS)


# --- reading --------------------------------------------------------------------------------------------------------


def _read_fields(row: Row, table: PriceTable, notes: Notes, start: int = 0) -> set[Caveat]:
    """The row's own price fields into the table, those for every input size at `start`; what they say beside prices."""
    caveats: set[Caveat] = set()
    earlier = row.get("litellm_provider") in _BEGIN_AT_THRESHOLD
    for name, value in row.items():
        place = read_field(name)
        if place is None or value is None:
            continue
        if isinstance(place, Caveat):
            caveats.add(place)
            continue
        price_class, service, above = place
        _put(table, price_class, (service, (above - earlier) if above else start), value, notes)
    return caveats


def _put(table: PriceTable, price_class: PriceClass, at: tuple[ServiceTier, int], value: object, notes: Notes) -> None:
    price = amount(value, MAX_USD_PER_PIECE if price_class in PIECES else MAX_USD_PER_TOKEN)
    rates = table.setdefault(at, {})
    other = rates.setdefault(price_class, price)
    if other != price:
        notes[Cause.PRICE_CONFLICT] += 1
        rates[price_class] = max(price, other)


def _read_parts(row: Row, table: PriceTable, notes: Notes) -> None:
    """What stands in tables inside the row: searches by size, input ranges."""
    if SEARCHES in row:
        for price_class, value in _searches(row):
            _put(table, price_class, _BASE, value, notes)
    if _LIST in row:
        for start, part in _ranges(row):
            _read_fields(part, table, notes, start)


def _searches(row: Row) -> Iterator[tuple[PriceClass, object]]:
    """What one web search costs, by the size of its context."""
    listed = row.get(SEARCHES)
    if listed is None:
        return
    if not isinstance(listed, Mapping):
        raise Malformed
    for name, value in listed.items():
        if name in SEARCH_CLASSES and value is not None:
            yield SEARCH_CLASSES[name], value


def _ranges(row: Row) -> Iterator[tuple[int, Row]]:
    """Prices written as a list of input ranges, where the row has no flat price: the start of each, and its fields."""
    listed = row.get(_LIST)
    if _INPUT_PRICE in row or not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        return
    parts = [(_start(part), part) for part in listed]
    if min(start for start, _ in parts) != 0:
        raise Malformed
    yield from parts


def _start(part: object) -> int:
    limits = part.get("range") if isinstance(part, Mapping) else None
    if not isinstance(limits, Sequence) or len(limits) != 2:
        raise Malformed
    return whole(limits[0])


# --- believing ------------------------------------------------------------------------------------------------------


def _believable(table: PriceTable, mode: str, notes: Notes) -> bool:
    """A zero is a missing price. A chat model that reads or writes for nothing is not priced at all; elsewhere what is
    zero is unknown, except for what is written by a model that writes nothing (an embedding)."""
    base = table.get(_BASE, {})
    zero = mode == CHAT and 0 in (base.get(PriceClass.INPUT), base.get(PriceClass.OUTPUT))
    dropped = zero or _drop_zeros(table, writes_nothing=mode in _WRITES_NOTHING and bool(base.get(PriceClass.INPUT)))
    if dropped:
        notes[Cause.PRICE_ZERO] += 1
    return not zero


def _drop_zeros(table: PriceTable, *, writes_nothing: bool) -> bool:
    dropped = False
    for rates in table.values():
        if all(rates.values()):
            continue
        for price_class in [each for each, price in rates.items() if not price]:
            if not (writes_nothing and price_class is PriceClass.OUTPUT):
                del rates[price_class]
                dropped = True
    return dropped


def _follow(table: PriceTable) -> None:
    base = table.get(_BASE, {})
    for price_class, leader in _FOLLOWS.items():
        if price_class not in base or base[price_class] != base.get(leader):
            continue
        for rates in table.values():
            if leader in rates:
                rates.setdefault(price_class, rates[leader])


# --- the table as prices --------------------------------------------------------------------------------------------


def prices_of(table: PriceTable, caveats: frozenset[Caveat] = _NO_CAVEATS) -> Prices:
    """The table as Prices; what a service tier does not say and the standard one does is known to be unknown."""
    if len(table) <= 1:  # most rows: the standard prices of every size
        return _of_service(table, ServiceTier.STANDARD, (), caveats)
    sizes = tuple(sorted({above for _, above in table if above}))
    services: dict[ServiceTier, Prices] = {}
    for service in {each for each, _ in table} - {ServiceTier.STANDARD}:
        known_up_to, unknown = _known_up_to(table, service, sizes), _unknown(table, service)
        services[service] = _of_service(table, service, sizes, caveats, known_up_to=known_up_to, unknown=unknown)
    return _of_service(table, ServiceTier.STANDARD, sizes, caveats, services=MappingProxyType(services))


def _of_service(
    table: PriceTable,
    service: ServiceTier,
    sizes: tuple[int, ...],
    caveats: frozenset[Caveat],
    *,
    services: Mapping[ServiceTier, Prices] = NO_SERVICES,
    known_up_to: int | None = None,
    unknown: frozenset[PriceClass] = _NO_CLASSES,
) -> Prices:
    rates = table.get((service, 0), _NO_RATES)
    return Prices(
        input=rates.get(PriceClass.INPUT),
        output=rates.get(PriceClass.OUTPUT),
        cached_input=rates.get(PriceClass.CACHED_INPUT),
        cache_write=rates.get(PriceClass.CACHE_WRITE),
        tiers=_tiers(table, service, sizes) if sizes else (),
        others=_others(rates),
        services=services,
        caveats=caveats,
        known_up_to=known_up_to,
        unknown=unknown,
    )


def _tiers(table: PriceTable, service: ServiceTier, sizes: tuple[int, ...]) -> tuple[PriceTier, ...]:
    return tuple(
        PriceTier(
            above,
            input=rates.get(PriceClass.INPUT),
            output=rates.get(PriceClass.OUTPUT),
            cached_input=rates.get(PriceClass.CACHED_INPUT),
            cache_write=rates.get(PriceClass.CACHE_WRITE),
            others=_others(rates),
        )
        for above in sizes
        if (rates := table.get((service, above)))
    )


def _others(rates: Mapping[PriceClass, Decimal]) -> Mapping[PriceClass, Decimal]:
    others = {each: price for each, price in rates.items() if each not in _MAIN}
    return MappingProxyType(others) if others else NO_OTHERS


def _known_up_to(table: PriceTable, service: ServiceTier, sizes: tuple[int, ...]) -> int | None:
    """The least context size at which the standard service has another price of reading or writing and this one is
    not said to: what it costs beyond is not known."""
    for above in sizes:
        standard = _MOVES & table.get((ServiceTier.STANDARD, above), _NO_RATES).keys()
        if not standard <= table.get((service, above), _NO_RATES).keys():
            return above
    return None


def _unknown(table: PriceTable, service: ServiceTier) -> frozenset[PriceClass]:
    """The classes that the standard service prices apart and this one does not say."""
    standard, rates = table.get(_BASE, _NO_RATES), table.get((service, 0), _NO_RATES)
    apart = (each for each in STANDS_IN if each in standard and standard[each] != standard.get(STANDS_IN[each]))
    return frozenset(each for each in apart if each not in rates) - _NEVER_DEARER
