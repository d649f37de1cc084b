"""The price fields of LiteLLM's price map: which class, service tier and context size each one is for.

Owns the field names. `input_cost_per_token_above_272k_tokens_priority` is the class `input`, the service `priority` and
inputs above 272,000 tokens. Must not know what a row is or what its values are.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from router.prices import Caveat, PriceClass, ServiceTier

_CLASSES: Final[Mapping[str, PriceClass]] = MappingProxyType(
    {
        "input_cost_per_token": PriceClass.INPUT,
        "output_cost_per_token": PriceClass.OUTPUT,
        "cache_read_input_token_cost": PriceClass.CACHED_INPUT,
        "input_cost_per_token_cache_hit": PriceClass.CACHED_INPUT,
        "cache_creation_input_token_cost": PriceClass.CACHE_WRITE,
        "cache_creation_input_token_cost_above_1hr": PriceClass.CACHE_WRITE_1H,
        "cache_creation_input_token_cost_above_12hr": PriceClass.CACHE_WRITE_12H,
        "output_cost_per_reasoning_token": PriceClass.REASONING,
        "citation_cost_per_token": PriceClass.CITATION,
        "input_cost_per_audio_token": PriceClass.AUDIO_INPUT,
        "cache_read_input_audio_token_cost": PriceClass.CACHED_AUDIO_INPUT,
        "cache_creation_input_audio_token_cost": PriceClass.AUDIO_CACHE_WRITE,
        "output_cost_per_audio_token": PriceClass.AUDIO_OUTPUT,
        "input_cost_per_image_token": PriceClass.IMAGE_INPUT,
        "cache_read_input_image_token_cost": PriceClass.CACHED_IMAGE_INPUT,
        "output_cost_per_image_token": PriceClass.IMAGE_OUTPUT,
        "input_cost_per_video_token": PriceClass.VIDEO_INPUT,
        "output_cost_per_video_token": PriceClass.VIDEO_OUTPUT,
        "input_cost_per_character": PriceClass.INPUT_CHARACTER,
        "output_cost_per_character": PriceClass.OUTPUT_CHARACTER,
        "input_cost_per_second": PriceClass.INPUT_SECOND,
        "output_cost_per_second": PriceClass.OUTPUT_SECOND,
        "input_cost_per_audio_per_second": PriceClass.AUDIO_INPUT_SECOND,
        "input_cost_per_video_per_second": PriceClass.VIDEO_INPUT_SECOND,
        "input_cost_per_image": PriceClass.INPUT_IMAGE,
        "output_cost_per_image": PriceClass.OUTPUT_IMAGE,
        "input_cost_per_pixel": PriceClass.INPUT_PIXEL,
        "output_cost_per_pixel": PriceClass.OUTPUT_PIXEL,
        "input_cost_per_query": PriceClass.QUERY,
        "input_cost_per_request": PriceClass.REQUEST,
        "input_cost_per_text_message": PriceClass.MESSAGE,
        "ocr_cost_per_page": PriceClass.PAGE,
        "annotation_cost_per_page": PriceClass.ANNOTATED_PAGE,
        "google_maps_grounding_cost_per_query": PriceClass.MAPS_QUERY,
    }
)
SEARCHES: Final = "search_context_cost_per_query"
SEARCH_CLASSES: Final[Mapping[str, PriceClass]] = MappingProxyType(
    {
        "search_context_size_low": PriceClass.SEARCH_LOW,
        "search_context_size_medium": PriceClass.SEARCH_MEDIUM,
        "search_context_size_high": PriceClass.SEARCH_HIGH,
    }
)
_SERVICES: Final[Mapping[str, ServiceTier]] = MappingProxyType(
    {
        "priority": ServiceTier.PRIORITY,
        "flex": ServiceTier.FLEX,
        "batches": ServiceTier.BATCH,
        "balanced": ServiceTier.BALANCED,
        "fast": ServiceTier.FAST,
        "ultrafast": ServiceTier.ULTRAFAST,
    }
)
_PRICE: Final = re.compile(
    rf"({'|'.join(_CLASSES)})"
    r"(?:_above_(\d{1,7})(k?)_tokens)?"
    rf"(?:_({'|'.join(_SERVICES)}))?"
    r"(?:_above_(\d{1,7})(k?)_tokens)?"
)
_CAVEATS: Final[Mapping[str, Caveat]] = MappingProxyType(
    {
        "off_peak_pricing": Caveat.OFF_PEAK,
        "regional_processing_uplift_multiplier_eu": Caveat.REGIONAL,
        "regional_processing_uplift_multiplier_us": Caveat.REGIONAL,
        "regional_endpoint_uplift_multiplier": Caveat.REGIONAL,
        "search_free_requests": Caveat.FREE_SEARCHES,
        "explicit_cache_read_input_token_cost": Caveat.EXPLICIT_CACHE,
    }
)
# Anthropic's multipliers stand in a table of their own, beside things that are no prices.
_MULTIPLIERS: Final = "provider_specific_entry"
_MULTIPLIER_CAVEATS: Final[Mapping[str, Caveat]] = MappingProxyType(
    {"us": Caveat.REGIONAL, "eu": Caveat.REGIONAL, "fast": Caveat.FAST_MODE}
)
# Prices of what no call through Wardgate is: video that is made, another endpoint, another unit of the same price.
_NOT_OURS: Final = re.compile(
    r"output_cost_per_second_\d.*|output_cost_per_video_per_second.*|.*_decisions|(?:in|out)put_dbu_cost_per_token"
)


class Place(NamedTuple):
    """What a price field is for; `above` is 0 where it holds for every input size."""

    price_class: PriceClass
    service: ServiceTier
    above: int


@lru_cache(maxsize=4096)
def read_field(name: str) -> Place | Caveat | None:
    """What this field of a row prices, or what it says of prices that Wardgate does not hold; None for every other
    field. A field that looks like a price and is not in the tables is `Caveat.UNREAD`: never passed over."""
    if name in _CAVEATS:
        return _CAVEATS[name]
    if "cost" not in name or name == SEARCHES or _NOT_OURS.fullmatch(name):
        return None
    found = _PRICE.fullmatch(name)
    if not found or (found[2] and found[5]):
        return Caveat.UNREAD
    digits, thousand = (found[2], found[3]) if found[2] else (found[5], found[6])
    above = int(digits) * (1000 if thousand else 1) if digits else 0
    return Place(_CLASSES[found[1]], _SERVICES.get(found[4], ServiceTier.STANDARD), above)


def multiplier_caveats(row: Mapping[str, object]) -> set[Caveat]:
    """What the row's multipliers say of prices that Wardgate does not hold."""
    listed = row.get(_MULTIPLIERS)
    if not isinstance(listed, Mapping):
        return set()
    return {caveat for name, caveat in _MULTIPLIER_CAVEATS.items() if name in listed}
