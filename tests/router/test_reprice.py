"""A call reckoned again from its lines."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from router.charge import Charge, Usage, charge
from router.prices import PriceClass, Prices, PriceTier, ServiceTier
from router.reprice import Used, again
from tests.router.test_charge import PRICE, PRICES, USAGES

TIERED = st.builds(
    lambda prices, tier: replace(prices, tiers=(tier,)),
    PRICES,
    st.builds(PriceTier, st.integers(0, 10**7), PRICE, PRICE),
)


def lines_of(found: Charge, service: ServiceTier = ServiceTier.STANDARD) -> Used:
    """As the ledger writes them down and reads them again."""
    return Used.of_lines([(one.price_class.value, str(one.units)) for one in found.lines], service.value)


@given(PRICES | TIERED, USAGES)
def test_at_the_same_prices_it_costs_the_same(prices: Prices, usage: Usage) -> None:
    found = charge(prices, usage)
    assert again(prices, lines_of(found)) == found.nano


@given(PRICES | TIERED, PRICES | TIERED, USAGES)
def test_at_other_prices_it_costs_what_it_would_have_cost_then(one: Prices, other: Prices, usage: Usage) -> None:
    """Whoever priced it first, also where one has a fee for the call and the other has none."""
    assert again(other, lines_of(charge(one, usage))) == charge(other, usage).nano


def test_a_tier_of_service_is_kept_and_what_has_no_price_has_no_cost() -> None:
    flex = Prices(input=Decimal("0.000001"))
    prices = Prices(input=Decimal("0.000002"), services={ServiceTier.FLEX: flex})
    used = Used.of_lines([("input", "10")], "flex")
    assert (again(prices, used), again(prices, Used.of_lines([("input", "10")], None))) == (10_000, 20_000)
    assert again(prices, Used.of_lines([("input", "10")], "batch")) is None
    assert again(prices, Used.of_lines([("output", "1")], None)) is None
    assert again(Prices(), Used(())) is None and again(prices, Used(())) == 0


def test_a_fee_is_one_for_a_call_whether_it_was_charged_then_or_not() -> None:
    fee = Prices(input=Decimal("0.000002"), others={PriceClass.REQUEST: Decimal("0.01")})
    used = Used.of_lines([("input", "10"), ("request", "1")], None)
    assert again(fee, used) == again(fee, Used.of_lines([("input", "10")], None)) == 10_020_000
    assert again(Prices(input=Decimal("0.000002")), used) == 20_000
