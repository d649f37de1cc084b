"""One row of LiteLLM's price map, read: prices, sizes, abilities, and the date of its end.

Owns the field names of that map that are no prices. A field that is not what it should be never raises: it is left
unknown, and the cause is counted. Must not know which rows become offers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from router.price_table import CHAT, Row, read_prices
from router.price_values import Cause, Malformed, Notes, whole
from router.prices import Prices

__all__ = ["CHAT", "OTHER", "Capability", "Cause", "Facts", "Notes", "Row", "read_row"]

OTHER: Final = "other"  # chat in the map, but not over /chat/completions or not in text

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


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
        prices=read_prices(row, mode=mode, free=free, notes=notes),
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


# --- sizes, capabilities, dates -------------------------------------------------------------------------------------


def _size(row: Row, field: str, notes: Notes) -> int | None:
    value = row.get(field)
    if value is None:
        return None
    try:
        size = whole(value)
    except Malformed:
        size = 0
    if size <= 0:
        notes[Cause.SIZE_MALFORMED] += 1
        return None
    return size


def _capabilities(row: Row, notes: Notes) -> Mapping[Capability, bool]:
    """What the row says yes or no to; a field that is absent is unknown, not no."""
    known: dict[Capability, bool] = {}
    for field in _CAPABILITY_FIELDS.keys() & row.keys():
        value = row[field]
        if isinstance(value, bool):
            known[_CAPABILITY_FIELDS[field]] = value
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
