"""One row of LiteLLM's price map, read: prices, sizes, abilities, and the date of its end.

Owns the field names of that map. A field that is not what it should be never raises: it is left unknown, and the cause
is counted. Numbers are Decimal or int as the loader made them; a binary float is a fault. Must not know which rows
become offers.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from router.prices import UNPRICED, Prices, PriceTier

Row = Mapping[str, object]

CHAT: Final = "chat"
OTHER: Final = "other"  # chat in the map, but not over /chat/completions or not in text

# More than a dollar for one token is a price per million written into the wrong field. More digits than this would not
# multiply exactly within Decimal's 28.
_MAX_USD_PER_TOKEN: Final = Decimal(1)
_MAX_DIGITS: Final = 17

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_TIER: Final = re.compile(
    r"(input_cost_per_token|output_cost_per_token|cache_read_input_token_cost|cache_creation_input_token_cost)"
    r"_above_(\d{1,6})k_tokens"
)
_TIER_FIELDS: Final = MappingProxyType(
    {
        "input_cost_per_token": "input",
        "output_cost_per_token": "output",
        "cache_read_input_token_cost": "cached_input",
        "cache_creation_input_token_cost": "cache_write",
    }
)


class Cause(StrEnum):
    """Why a row of the price map became no offer, or an offer with less than the row says."""

    RESERVED = "reserved"
    NOT_A_TABLE = "not_a_table"
    ODD_NAME = "odd_name"
    PROVIDER_NOT_REGISTERED = "provider_not_registered"
    MODE_MISSING = "mode_missing"
    TEMPLATE = "template"  # a price for models that the caller's account makes: "ft:gpt-4o-2024-08-06", "x/*"
    PRICE_CLASS = "price_class"  # a price by size or quality, not a model: "together-ai-4.1b-8b", "low/1024-x-1024/x"
    SAYS_NOTHING = "says_nothing"  # a chat row with no token, size or ability in it: "openai/container"
    DUPLICATE = "duplicate"
    PRICE_MALFORMED = "price_malformed"
    PRICE_ZERO = "price_zero"
    SIZE_MALFORMED = "size_malformed"
    CAPABILITY_MALFORMED = "capability_malformed"
    DATE_MALFORMED = "date_malformed"


Notes = Counter[Cause]


class Capability(StrEnum):
    """What a model can do beyond reading and writing text."""

    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel_tools"
    TOOL_CHOICE = "tool_choice"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    AUDIO_INPUT = "audio_input"
    AUDIO_OUTPUT = "audio_output"
    PDF_INPUT = "pdf_input"
    VIDEO_INPUT = "video_input"
    REASONING = "reasoning"
    PROMPT_CACHING = "prompt_caching"
    WEB_SEARCH = "web_search"


_CAPABILITY_FIELDS: Final = MappingProxyType(
    {
        "supports_function_calling": Capability.TOOLS,
        "supports_parallel_function_calling": Capability.PARALLEL_TOOLS,
        "supports_tool_choice": Capability.TOOL_CHOICE,
        "supports_vision": Capability.VISION,
        "supports_response_schema": Capability.JSON_SCHEMA,
        "supports_audio_input": Capability.AUDIO_INPUT,
        "supports_audio_output": Capability.AUDIO_OUTPUT,
        "supports_pdf_input": Capability.PDF_INPUT,
        "supports_video_input": Capability.VIDEO_INPUT,
        "supports_reasoning": Capability.REASONING,
        "supports_prompt_caching": Capability.PROMPT_CACHING,
        "supports_web_search": Capability.WEB_SEARCH,
    }
)


class _Malformed(Exception):
    """A field is not what it should be; never leaves this module."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row says of a model."""

    mode: str
    prices: Prices
    max_input_tokens: int | None
    max_output_tokens: int | None
    capabilities: Mapping[Capability, bool]
    deprecated_on: date | None


def read_row(row: Row, *, mode: str, free: bool, notes: Notes) -> Facts:
    """The facts of a row; `free` says that a price of zero is real. Counts into `notes` what could not be read."""
    return Facts(
        mode=_mode(row, mode),
        prices=_prices(row, mode, free, notes),
        max_input_tokens=_size(row, "max_input_tokens", notes),
        max_output_tokens=_size(row, "max_output_tokens", notes),
        capabilities=_capabilities(row, notes),
        deprecated_on=_date(row, notes),
    )


def _mode(row: Row, mode: str) -> str:
    """A chat row that does not write text, or not over /chat/completions, is chat only by name."""
    if mode != CHAT:
        return mode
    modalities = row.get("supported_output_modalities")
    endpoints = row.get("supported_endpoints")
    writes_text = not isinstance(modalities, Sequence) or not modalities or "text" in modalities
    has_endpoint = not isinstance(endpoints, Sequence) or not endpoints or "/v1/chat/completions" in endpoints
    return CHAT if writes_text and has_endpoint else OTHER


# --- prices ---------------------------------------------------------------------------------------------------------


def _prices(row: Row, mode: str, free: bool, notes: Notes) -> Prices:
    """All the prices or none: one wrong price makes the others doubtful."""
    try:
        prices = _price_list(row) or _flat_prices(row)
    except _Malformed:
        notes[Cause.PRICE_MALFORMED] += 1
        return UNPRICED
    if _is_zero(prices, mode) and not free:
        notes[Cause.PRICE_ZERO] += 1
        return UNPRICED
    return prices


def _is_zero(prices: Prices, mode: str) -> bool:
    """A zero is a missing price, except for what is written by a model that writes no tokens (an embedding)."""
    if prices.input == 0 and not prices.output:
        return True
    return mode == CHAT and 0 in (prices.input, prices.output)


def _flat_prices(row: Row) -> Prices:
    return Prices(
        input=_price(row, "input_cost_per_token"),
        output=_price(row, "output_cost_per_token"),
        cached_input=_price(row, "cache_read_input_token_cost"),
        cache_write=_price(row, "cache_creation_input_token_cost"),
        tiers=_tiers(row),
    )


def _tiers(row: Row) -> tuple[PriceTier, ...]:
    """One tier for each threshold of the row's `..._above_{N}k_tokens` fields; other suffixes are other services."""
    found: dict[int, dict[str, Decimal | None]] = {}
    for field in row:
        match = _TIER.fullmatch(field) if "_above_" in field else None
        if match:
            tier = found.setdefault(int(match[2]) * 1000, {})
            tier[_TIER_FIELDS[match[1]]] = _price(row, field)
    return tuple(PriceTier(above, **prices) for above, prices in sorted(found.items()))


def _price_list(row: Row) -> Prices | None:
    """Prices written as a list of input ranges (`tiered_pricing`), where the row has no flat price."""
    listed = row.get("tiered_pricing")
    if "input_cost_per_token" in row or not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        return None
    ranges = sorted(((_range_start(part), _flat_prices(part)) for part in listed), key=lambda each: each[0])
    (first, base), *others = ranges
    if first != 0:
        raise _Malformed
    tiers = tuple(PriceTier(start, at.input, at.output, at.cached_input, at.cache_write) for start, at in others)
    return Prices(base.input, base.output, base.cached_input, base.cache_write, tiers)


def _range_start(part: object) -> int:
    limits = part.get("range") if isinstance(part, Mapping) else None
    if not isinstance(limits, Sequence) or len(limits) != 2:
        raise _Malformed
    return _whole(limits[0])


def _price(row: Row, field: str) -> Decimal | None:
    """A finite amount of dollars that is not negative. A binary float is refused: money is never float."""
    value = row.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _Malformed
    amount = Decimal(value)
    if not amount.is_finite() or not 0 <= amount <= _MAX_USD_PER_TOKEN or len(amount.as_tuple().digits) > _MAX_DIGITS:
        raise _Malformed
    return amount


# --- sizes, capabilities, dates -------------------------------------------------------------------------------------


def _size(row: Row, field: str, notes: Notes) -> int | None:
    value = row.get(field)
    if value is None:
        return None
    try:
        size = _whole(value)
    except _Malformed:
        size = 0
    if size <= 0:
        notes[Cause.SIZE_MALFORMED] += 1
        return None
    return size


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _Malformed
    if isinstance(value, Decimal) and (not value.is_finite() or value != int(value)):
        raise _Malformed
    return int(value)


def _capabilities(row: Row, notes: Notes) -> Mapping[Capability, bool]:
    """What the row says yes or no to; a field that is absent is unknown, not no."""
    known: dict[Capability, bool] = {}
    for field, capability in _CAPABILITY_FIELDS.items():
        value = row.get(field)
        if isinstance(value, bool):
            known[capability] = value
        elif value is not None:
            notes[Cause.CAPABILITY_MALFORMED] += 1
    return MappingProxyType(known)


def _date(row: Row, notes: Notes) -> date | None:
    value = row.get("deprecation_date")
    if value is None:
        return None
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:  # the thirtieth of February
        pass
    notes[Cause.DATE_MALFORMED] += 1
    return None
