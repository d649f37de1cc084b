"""What tokens cost, exactly."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.prices import MAIN, UNPRICED, Caveat, PriceClass, Prices, PriceTier, ServiceTier, cost, prices_at, usd
from tests.router.vectors import Row, rows


def read_prices(row: Row) -> Prices:
    """The prices of a vector: dollars as text, None or absent where nothing stands."""
    tiers = [
        PriceTier(
            tier["above"],
            input=_money(tier, "input"),
            output=_money(tier, "output"),
            cached_input=_money(tier, "cached_input"),
            cache_write=_money(tier, "cache_write"),
            others=_others(tier),
        )
        for tier in row.get("tiers", [])
    ]
    return Prices(
        input=_money(row, "input"),
        output=_money(row, "output"),
        cached_input=_money(row, "cached_input"),
        cache_write=_money(row, "cache_write"),
        tiers=tuple(tiers),
        others=_others(row),
        services={ServiceTier(name): read_prices(service) for name, service in row.get("services", {}).items()},
        caveats=frozenset(Caveat(each) for each in row.get("caveats", [])),
        known_up_to=row.get("known_up_to"),
        unknown=frozenset(PriceClass(each) for each in row.get("unknown", [])),
    )


def _money(row: Row, field: str) -> Decimal | None:
    return Decimal(row[field]) if field in row else None


def _others(row: Row) -> dict[PriceClass, Decimal]:
    return {each: Decimal(row[each]) for each in PriceClass if each in row and each not in MAIN}


@pytest.mark.parametrize("row", rows("prices", "cost"))
def test_cost_is_exact(row: Row) -> None:
    found = cost(
        read_prices(row["prices"]),
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_input_tokens=row.get("cached_input_tokens", 0),
        cache_write_tokens=row.get("cache_write_tokens", 0),
        service=ServiceTier(row.get("service", "default")),
    )
    assert found == (Decimal(row["usd"]) if "usd" in row else None)


@pytest.mark.parametrize("row", rows("prices", "text"))
def test_usd_is_plain_text(row: Row) -> None:
    assert usd(Decimal(row["amount"])) == row["usd"]


def test_prices_are_known_when_both_ways_have_one() -> None:
    assert Prices(Decimal(1), Decimal(0)).known
    assert not Prices(Decimal(1), None).known
    assert not Prices(None, Decimal(1)).known
    assert not UNPRICED.known


def test_prices_at_a_size_keep_the_price_of_cache_writes() -> None:
    prices = Prices(Decimal(1), Decimal(2), cache_write=Decimal(3), tiers=(PriceTier(10, Decimal(4)),))
    assert prices_at(prices, 11) == Prices(Decimal(4), Decimal(2), None, Decimal(3))


PRICE = st.decimals(min_value=0, max_value=1, places=12)
TOKENS = st.integers(min_value=0, max_value=10**9)


@given(st.tuples(PRICE, PRICE, PRICE, PRICE), st.tuples(TOKENS, TOKENS, TOKENS, TOKENS))
def test_cost_equals_the_sum_in_fractions(
    each: tuple[Decimal, Decimal, Decimal, Decimal], tokens: tuple[int, int, int, int]
) -> None:
    input_tokens, output_tokens, cached_tokens, stored_tokens = tokens
    found = cost(
        Prices(*each),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached_tokens,
        cache_write_tokens=stored_tokens,
    )
    hits = min(input_tokens, cached_tokens)
    stored = min(input_tokens - hits, stored_tokens)
    plain = input_tokens - hits - stored
    counted = (plain, output_tokens, hits, stored)
    assert found is not None
    assert Fraction(found) == sum(Fraction(price) * count for price, count in zip(each, counted, strict=True))


@given(st.decimals(min_value=0, max_value=10**6, places=15))
def test_usd_gives_back_the_amount(amount: Decimal) -> None:
    text = usd(amount)
    assert Decimal(text) == amount
    assert "E" not in text
