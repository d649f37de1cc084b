"""How rows of LiteLLM's price map are read."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.price_rows import Capability, Cause, Facts, Notes, read_row
from router.prices import UNPRICED
from tests.router.test_prices import read_prices
from tests.router.vectors import Row, rows


def read(row: Row, mode: str = "chat", free: bool = False) -> tuple[Facts, dict[str, int]]:
    notes = Notes()
    facts = read_row(row, mode=mode, free=free, notes=notes)
    return facts, {cause.value: count for cause, count in notes.items()}


@pytest.mark.parametrize("row", rows("prices", "row"))
def test_prices_are_read_or_left_unknown(row: Row) -> None:
    fields = row["row"] | dict.fromkeys(row.get("null", []))
    facts, notes = read(fields, row.get("mode", "chat"), row.get("free", False))
    assert facts.prices == read_prices(row["prices"])
    assert notes == ({row["note"]: 1} if "note" in row else {})


def test_a_binary_float_is_no_price() -> None:
    facts, notes = read({"input_cost_per_token": 3e-7, "output_cost_per_token": Decimal("1.2e-6")})
    assert facts.prices == UNPRICED
    assert notes == {"price_malformed": 1}


@pytest.mark.parametrize("field", ["max_input_tokens", "max_output_tokens"])
@pytest.mark.parametrize("row", rows("prices", "size"))
def test_sizes_are_whole_and_positive_or_unknown(row: Row, field: str) -> None:
    facts, notes = read({field: row["value"]})
    assert getattr(facts, field) == row.get("size")
    assert notes == ({row["note"]: 1} if "note" in row else {})


def test_sizes_are_unknown_when_absent() -> None:
    facts, notes = read({"max_tokens": 4096})
    assert (facts.max_input_tokens, facts.max_output_tokens) == (None, None)
    assert notes == {}


@pytest.mark.parametrize("row", rows("prices", "mode"))
def test_chat_is_what_writes_text_over_chat_completions(row: Row) -> None:
    facts, _ = read(row["row"], row.get("given", "chat"))
    assert facts.mode == row["mode"]


def test_capabilities_are_yes_no_or_unknown() -> None:
    facts, notes = read(
        {
            "supports_function_calling": True,
            "supports_vision": False,
            "supports_reasoning": "yes",
            "supports_video_input": None,
        }
    )
    assert facts.capabilities == {Capability.TOOLS: True, Capability.VISION: False}
    assert notes == {"capability_malformed": 1}


def test_every_capability_has_its_field() -> None:
    fields = (
        "function_calling parallel_function_calling tool_choice vision response_schema audio_input audio_output"
        " pdf_input video_input reasoning prompt_caching web_search"
    )
    facts, _ = read({f"supports_{field}": True for field in fields.split()})
    assert facts.capabilities == dict.fromkeys(Capability, True)


@pytest.mark.parametrize(
    ("value", "expected", "notes"),
    [
        ("2026-07-24", date(2026, 7, 24), {}),
        (None, None, {}),
        ("soon", None, {"date_malformed": 1}),
        ("2026-02-30", None, {"date_malformed": 1}),
        (20260724, None, {"date_malformed": 1}),
        ("20260724.5", None, {"date_malformed": 1}),
    ],
)
def test_the_date_of_the_end_is_read_or_left_unknown(value: Any, expected: date | None, notes: dict[str, int]) -> None:
    facts, found = read({"deprecation_date": value})
    assert facts.deprecated_on == expected
    assert found == notes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "input_cost_per_token",
        "output_cost_per_token",
        "input_cost_per_token_above_200k_tokens",
        "tiered_pricing",
        "search_context_cost_per_query",
        "provider_specific_entry",
        "output_cost_per_token_above_200k_tokens_flex",
        "output_cost_per_reasoning_token",
        "input_cost_per_image",
        "max_input_tokens",
        "max_output_tokens",
        "supports_vision",
        "deprecation_date",
        "supported_endpoints",
        "supported_output_modalities",
    ]
)


@given(st.dictionaries(FIELDS, JSON))
def test_no_row_raises(row: Row) -> None:
    facts, notes = read(row)
    assert facts.prices.input is None or facts.prices.input >= 0
    assert set(notes) <= {cause.value for cause in Cause}
