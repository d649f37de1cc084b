"""A published price list, read: LiteLLM's map, or OpenRouter's list of models, as rows of LiteLLM's shape.

Owns the two formats and what tells them apart. Numbers are Decimal or int, never float; a text that should be a price
stays a text, for router.price_bounds to find. Must not know where a list comes from or what is live.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from router.errors import PriceMapError
from router.price_rows import Row

RESERVED: Final = frozenset({"sample_spec", "fallback_generalizations"})  # of LiteLLM's map; no models
_OPENROUTER: Final = "openrouter"
_NO_FIXED_PRICE: Final = "-1"  # OpenRouter's word for a model that routes to others, each at its own price
_AMOUNT: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")
_PRICES: Final = MappingProxyType(
    {
        "prompt": "input_cost_per_token",
        "completion": "output_cost_per_token",
        "input_cache_read": "cache_read_input_token_cost",
        "input_cache_write": "cache_creation_input_token_cost",
        "internal_reasoning": "output_cost_per_reasoning_token",
        "image": "input_cost_per_image",
        "audio": "input_cost_per_audio_token",
        "request": "input_cost_per_request",
    }
)
_ALWAYS: Final = frozenset({"prompt", "completion"})  # of the others, a zero says that there is no such price
_PARAMETERS: Final = MappingProxyType(
    {
        "tools": "supports_function_calling",
        "tool_choice": "supports_tool_choice",
        "structured_outputs": "supports_response_schema",
        "reasoning": "supports_reasoning",
    }
)
_MODALITIES: Final = MappingProxyType(
    {"image": "supports_vision", "audio": "supports_audio_input", "file": "supports_pdf_input"}
)


class FeedKind(StrEnum):
    """Whose format a list has."""

    LITELLM = "litellm"
    OPENROUTER = "openrouter"


class Doubled(dict[str, Any]):
    """A JSON object in which a name stands twice with different values; it holds the last of each."""

    doubled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Feed:
    """Rows by LiteLLM's name of the model; a value that is no table is kept, to be told. `doubled` are the names that
    stand more than once, with different rows."""

    kind: FeedKind
    rows: Mapping[str, object]
    doubled: frozenset[str] = frozenset()


def read_feed(content: bytes) -> Feed:
    """The rows of a list, whichever format it has. PriceMapError when it is not JSON, is neither format, or holds no
    model. What is wrong with single rows is not looked at here."""
    try:
        document = json.loads(content, parse_float=Decimal, parse_constant=Decimal, object_pairs_hook=_object)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise PriceMapError(f"it is not valid JSON ({_place(error)})") from None
    if not isinstance(document, dict):
        raise PriceMapError("it is no JSON object")
    feed = _openrouter(document["data"]) if isinstance(document.get("data"), list) else _litellm(document)
    if not feed.rows:
        raise PriceMapError("it holds no model")
    return feed


def _place(error: Exception) -> str:
    """Where it breaks; never what is written there."""
    return f"at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else type(error).__name__


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = Doubled(found)
    marked.doubled = frozenset(name for name, value in pairs if value != found[name])
    return marked if marked.doubled else found


def _litellm(document: dict[str, Any]) -> Feed:
    doubled = document.doubled if isinstance(document, Doubled) else frozenset[str]()
    return Feed(FeedKind.LITELLM, {name: row for name, row in document.items() if name not in RESERVED}, doubled)


# --- OpenRouter -----------------------------------------------------------------------------------------------------


def _openrouter(models: Sequence[object]) -> Feed:
    rows: dict[str, object] = {}
    doubled: set[str] = set()
    for model in models:
        name = model.get("id") if isinstance(model, dict) else None
        if not isinstance(model, dict) or not isinstance(name, str) or not name:
            raise PriceMapError("an entry of its list has no id")
        key, row = f"{_OPENROUTER}/{name}", _row(model)
        if key in rows and rows[key] != row:
            doubled.add(key)
        rows[key] = row
    return Feed(FeedKind.OPENROUTER, rows, frozenset(doubled))


def _row(model: Mapping[str, Any]) -> Row:
    """An entry as a row of LiteLLM's map. What the entry does not say is absent."""
    row: dict[str, object] = {"litellm_provider": _OPENROUTER, "mode": "chat"}
    pricing = model.get("pricing")
    row |= _prices(pricing) if isinstance(pricing, dict) else {}
    top = model.get("top_provider")
    sizes = {
        "max_input_tokens": model.get("context_length"),
        "max_output_tokens": top.get("max_completion_tokens") if isinstance(top, dict) else None,
    }
    architecture = model.get("architecture")
    inputs = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    row |= {name: value for name, value in sizes.items() if value is not None}
    return row | _said(model.get("supported_parameters"), _PARAMETERS) | _said(inputs, _MODALITIES)


def _prices(pricing: Mapping[str, object]) -> dict[str, object]:
    found = {_PRICES[name]: _amount(value) for name, value in pricing.items() if name in _PRICES}
    optional = {field for name, field in _PRICES.items() if name not in _ALWAYS}
    return {
        field: value
        for field, value in found.items()
        if value != _NO_FIXED_PRICE and not (field in optional and value == 0)
    }


def _amount(value: object) -> object:
    """A price written as text, as Decimal; anything else as it is."""
    return Decimal(value) if isinstance(value, str) and _AMOUNT.fullmatch(value) else value


def _said(listed: object, known: Mapping[str, str]) -> dict[str, object]:
    """A list that is there says yes to what stands in it and no to the rest."""
    return {field: word in listed for word, field in known.items()} if isinstance(listed, list) else {}


# --- several --------------------------------------------------------------------------------------------------------


def merged(feeds: Sequence[Feed]) -> Feed:
    """All of them as one: a later list's row takes the place of an earlier one's. OpenRouter's list, which says less,
    replaces the prices of the row that is there and adds to it."""
    rows: dict[str, object] = {}
    doubled: set[str] = set()
    for feed in feeds:
        for name, row in feed.rows.items():
            below = rows.get(name) if feed.kind is FeedKind.OPENROUTER else None
            rows[name] = _laid_over(below, row)
        doubled = (doubled - set(feed.rows)) | feed.doubled
    return Feed(feeds[0].kind if len(feeds) == 1 else FeedKind.LITELLM, rows, frozenset(doubled))


def _laid_over(below: object, row: object) -> object:
    if not isinstance(below, dict) or not isinstance(row, dict):
        return row
    return {name: value for name, value in below.items() if "cost" not in name and name != "tiered_pricing"} | row
