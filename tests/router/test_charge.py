"""What a whole usage record costs, line by line."""

from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.charge import Charge, Usage, charge
from router.prices import PriceClass, Prices, ServiceTier, cost
from tests.router.test_prices import read_prices
from tests.router.vectors import Row, rows, vectors

SECONDS = {field.name for field in fields(Usage) if field.name.endswith("_seconds")}


def read_usage(row: Row) -> Usage:
    values: dict[str, Any] = {
        name: Decimal(value) if name in SECONDS else value for name, value in row.items() if name != "service"
    }
    return Usage(**values, service=ServiceTier(row.get("service", "default")))


@pytest.mark.parametrize("row", rows("prices", "charge"))
def test_a_usage_costs_what_its_lines_cost(row: Row) -> None:
    found = charge(read_prices(row["prices"]), read_usage(row["usage"]))
    assert found.usd == (Decimal(row["usd"]) if "usd" in row else None)
    assert [(line.price_class.value, line.units) for line in found.lines] == [
        (name, Decimal(units)) for name, units in row["lines"].items()
    ]
    assert [each.value for each in found.unpriced] == row.get("unpriced", [])


def test_every_class_has_a_vector() -> None:
    used = {name for row in vectors("prices")["charge"] for name in row["lines"]}
    assert used == {each.value for each in PriceClass}


TOKENS = st.integers(min_value=0, max_value=10**7)
TOKEN_FIELDS = [field.name for field in fields(Usage) if field.name.endswith("_tokens")]
USAGES = st.builds(Usage, **dict.fromkeys(TOKEN_FIELDS, TOKENS))
PRICE = st.decimals(min_value=0, max_value=1, places=12)
PRICES = st.builds(
    Prices,
    PRICE,
    PRICE,
    st.none() | PRICE,
    st.none() | PRICE,
    others=st.dictionaries(st.sampled_from(PriceClass), PRICE),
)


@given(PRICES, USAGES)
def test_no_token_is_charged_twice_and_none_is_left_out(prices: Prices, usage: Usage) -> None:
    found = charge(prices, usage)
    counted = sum(
        line.units for line in found.lines if line.price_class not in (PriceClass.CITATION, PriceClass.REQUEST)
    )
    assert counted == usage.input_tokens + usage.output_tokens


@given(PRICES, USAGES)
def test_the_total_is_the_sum_of_the_lines(prices: Prices, usage: Usage) -> None:
    found: Charge = charge(prices, usage)
    assert (found.usd is None) == bool(found.unpriced)
    if found.usd is not None:
        total = sum((Fraction(line.price or 0) * Fraction(line.units) for line in found.lines), Fraction(0))
        assert Fraction(found.usd) == total


@given(PRICES, TOKENS, TOKENS, TOKENS, TOKENS)
def test_a_charge_of_plain_text_is_its_cost(
    prices: Prices, input_tokens: int, output_tokens: int, cached: int, stored: int
) -> None:
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=stored,
    )
    assert charge(prices, usage).usd == cost(
        prices,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=stored,
    )
