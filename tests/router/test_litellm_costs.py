"""Wardgate's costs beside LiteLLM's own calculator, over every priced text model of the bundled map. What differs is
listed with its reason in tests/vectors/litellm_costs.toml."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from functools import cache
from typing import Any, Final

import pytest

from keystore.providers import Provider
from router.catalogue import Offer
from router.charge import Usage, charge
from router.price_map import load_bundled
from router.prices import ServiceTier
from tests.router.test_bundled import catalogue, registry
from tests.router.vectors import Row, rows, vectors

CASES: Final = {
    "plain": Usage(input_tokens=1000, output_tokens=100),
    "cached": Usage(input_tokens=1000, cached_input_tokens=800, output_tokens=100),
    "reasoning": Usage(input_tokens=1000, output_tokens=500, reasoning_tokens=300),
    "written": Usage(input_tokens=1000, cache_write_tokens=600, output_tokens=10),
    "written for an hour": Usage(input_tokens=1000, cache_write_1h_tokens=600, output_tokens=10),
    "audio": Usage(input_tokens=1000, audio_input_tokens=600, output_tokens=10),
    "image": Usage(input_tokens=1000, image_input_tokens=600, output_tokens=10),
}
SIZES: Final = [
    each + more for each in (32_000, 100_000, 128_000, 200_000, 256_000, 272_000, 512_000) for more in (0, 1)
]
SERVICES: Final = (ServiceTier.PRIORITY, ServiceTier.FLEX)
ROWS: Final = load_bundled().rows
NAMES: Final = frozenset(ROWS)
ALLOWED: Final = Decimal("1e-9")  # LiteLLM counts in binary floats

# One process for LiteLLM: importing it changes the interpreter it is imported into.
SCRIPT: Final = """
import json, sys
import litellm
from litellm.types.utils import CacheCreationTokenDetails as Stored, Usage
from litellm.types.utils import CompletionTokensDetailsWrapper as Written, PromptTokensDetailsWrapper as Read
def price(ask):
    read = Read(**ask["read"])
    if ask["hour"]:
        read.cache_creation_token_details = Stored(ephemeral_5m_input_tokens=0, ephemeral_1h_input_tokens=ask["hour"])
    usage = Usage(**ask["totals"], prompt_tokens_details=read, completion_tokens_details=Written(**ask["written"]))
    return sum(litellm.cost_per_token(**ask["call"], usage_object=usage))
json.dump([price(ask) for ask in json.load(sys.stdin)], sys.stdout)
"""


def usages(offer: Offer) -> dict[str, list[Usage]]:
    """The cases that mean something for this offer."""
    found = {name: [usage] for name, usage in CASES.items()}
    sizes = SIZES if offer.prices.tiers else SIZES[-1:]
    found["long"] = [Usage(input_tokens=size, output_tokens=100, reasoning_tokens=50) for size in sizes]
    for service in SERVICES:
        if service in offer.prices.services:
            for name, size in ((service.value, 1000), (f"{service.value} long", 300_000)):
                found[name] = [Usage(input_tokens=size, output_tokens=100, reasoning_tokens=50, service=service)]
    return found


def claimed_as(provider: Provider, offer: Offer) -> str:
    """Under which of its names in the map the provider offers the model."""
    found = [ROWS.get(name, {}) for name in (f"{provider.id}/{offer.model}", offer.model)]
    names = [str(row.get("litellm_provider")) for row in found]
    return next((name for name in names if name in provider.catalogue_ids), provider.catalogue_ids[0])


def question(offer: Offer, usage: Usage) -> dict[str, Any]:
    """What the process with LiteLLM is asked: the row as the map names it, and the usage in LiteLLM's words."""
    provider = registry().get(offer.provider_id)
    assert provider
    claimed = claimed_as(provider, offer)
    named = f"{claimed}/{offer.model}"
    stored = usage.cache_write_tokens + usage.cache_write_1h_tokens
    apart = usage.cached_input_tokens + usage.audio_input_tokens + usage.image_input_tokens + stored
    total = usage.input_tokens + usage.output_tokens
    return {
        "call": {
            "model": named if named in NAMES else offer.model,
            "custom_llm_provider": claimed,
            "service_tier": None if usage.service is ServiceTier.STANDARD else usage.service.value,
        },
        "totals": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": total,
        },
        "written": {"reasoning_tokens": usage.reasoning_tokens},
        "hour": usage.cache_write_1h_tokens,
        "read": {
            "cached_tokens": usage.cached_input_tokens,
            "audio_tokens": usage.audio_input_tokens,
            "image_tokens": usage.image_input_tokens,
            "cache_creation_tokens": stored,
            "text_tokens": usage.input_tokens - apart,
        },
    }


@cache
def compared() -> list[tuple[str, str, Decimal | None, Decimal]]:
    """Case, offer, ours, theirs."""
    asked = [
        (name, offer, usage)
        for offer in catalogue().offers
        if offer.mode in ("chat", "responses", "embedding") and offer.prices.known and offer.prices.input != 0
        for name, each in usages(offer).items()
        for usage in each
    ]
    theirs = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([question(offer, usage) for _, offer, usage in asked]),
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    answers = json.loads(theirs[theirs.rindex("[") :], parse_float=Decimal)
    return [
        (name, offer.id, charge(offer.prices, usage).usd, Decimal(answer))
        for (name, offer, usage), answer in zip(asked, answers, strict=True)
    ]


def differs(ours: Decimal | None, theirs: Decimal) -> bool:
    return ours is None or abs(ours - theirs) > ALLOWED * theirs


def explains(row: Row, case: str, offer_id: str, ours: Decimal | None) -> bool:
    named = any(offer_id == each or (each[-1] == "*" and offer_id.startswith(each[:-1])) for each in row["offers"])
    return named and case in row["cases"] and (ours is None) == row.get("unpriced", False)


def test_every_difference_from_litellm_is_explained() -> None:
    known = vectors("litellm_costs")["known"]
    open_questions = [
        (case, offer_id, ours, theirs)
        for case, offer_id, ours, theirs in compared()
        if differs(ours, theirs) and not any(explains(row, case, offer_id, ours) for row in known)
    ]
    assert open_questions == []


@pytest.mark.parametrize("row", rows("litellm_costs", "known"))
def test_every_explanation_explains_something(row: Row) -> None:
    if row.get("clock"):
        return
    for case in row["cases"]:
        assert any(
            differs(ours, theirs) and explains(row, name, offer_id, ours)
            for name, offer_id, ours, theirs in compared()
            if name == case
        )


def test_most_costs_are_the_same() -> None:
    same = [case for case, _, ours, theirs in compared() if not differs(ours, theirs)]
    assert len(same) > 5_000
