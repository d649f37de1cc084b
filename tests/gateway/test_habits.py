"""What is remembered of requests: rounded, bounded, and the same object until it changes noticeably."""

from dataclasses import dataclass, field, replace
from decimal import Decimal

from gateway import habits
from gateway.accounts import Account
from gateway.calls import account
from gateway.events import TokenUsage
from gateway.habits import LEAST, MODELS, HabitKeeper, PaceKeeper
from gateway.tally import Tally
from keystore.clock import utc_now
from router.decision import Decision
from router.entitlement import Entitlements
from router.filters import Circumstances, is_priced
from router.health_steps import Attempt
from router.needs import read_needs
from router.plans import Plans
from router.prices import Prices, ServiceTier
from router.query import NO_HABITS, NO_PACES, Median, Pace
from router.ranking import candidate
from router.reasons import Reason
from tests.router.test_decision import decide
from tests.router.world import provider, registry


def used(input_tokens: int = 1000, output_tokens: int = 200, cached: int = 0) -> TokenUsage:
    return TokenUsage(input_tokens, output_tokens, cached_input_tokens=cached)


def noted(keeper: HabitKeeper, usage: TokenUsage, times: int = LEAST, estimated: int = 800, offer: str = "p/m") -> None:
    for _ in range(times):
        keeper.note("t", "p", offer, estimated, usage)


def test_nothing_is_said_of_few_requests() -> None:
    keeper = HabitKeeper()
    assert keeper.of("t") is NO_HABITS
    noted(keeper, used(), LEAST - 1)
    assert (keeper.of("t").input_ratio, len(keeper.of("t").outputs)) == (Decimal(1), 0)


def test_what_was_used_corrects_the_next_estimate() -> None:
    keeper = HabitKeeper()
    noted(keeper, used(cached=500))
    said = keeper.of("t")
    assert said.input_ratio == Decimal("1.25")
    assert said.samples == LEAST
    assert dict(said.outputs) == {"p/m": Median(200, LEAST)}
    assert said.usual == Median(200, LEAST)
    assert dict(said.cached) == {"p": Decimal("0.5")}
    assert keeper.of("another") is NO_HABITS


def test_record_stays_the_same_while_nothing_noticeable_happens() -> None:
    keeper = HabitKeeper()
    noted(keeper, used())
    said = keeper.of("t")
    noted(keeper, used(1001, 201))
    assert keeper.of("t") is said
    noted(keeper, used(1001, 900), 40)
    assert keeper.of("t").outputs["p/m"].tokens == 900


def test_median_is_not_moved_by_one_long_answer() -> None:
    keeper = HabitKeeper()
    noted(keeper, used(), 9)
    noted(keeper, used(output_tokens=100_000), 1)
    assert keeper.of("t").outputs["p/m"].tokens == 200


def test_odd_numbers_are_bounded() -> None:
    keeper = HabitKeeper()
    noted(keeper, used(10**9, 1, cached=10**12), estimated=100)
    assert keeper.of("t").input_ratio == 4
    assert keeper.of("t").cached["p"] == 1
    noted(keeper, used(1, 0), 200, estimated=10**9)
    assert keeper.of("t").input_ratio == Decimal("0.25")


def test_estimate_of_a_few_tokens_says_nothing() -> None:
    keeper = HabitKeeper()
    noted(keeper, used(3000), estimated=10)
    noted(keeper, used(0, 0), estimated=1000)
    assert keeper.of("t").input_ratio == 1


def test_what_is_remembered_is_bounded() -> None:
    keeper = HabitKeeper()
    for number in range(MODELS + 1):
        noted(keeper, used(), offer=f"p/{number}")
    assert len(keeper.of("t").outputs) <= MODELS
    assert "p/0" not in keeper.of("t").outputs
    for number in range(habits.TENANTS):
        keeper.note(f"t{number}", "p", "p/m", 100, used())
    assert keeper.of("t") is NO_HABITS


# --- how fast ---------------------------------------------------------------------------------------------------------


def test_pace_is_that_of_the_last_answers() -> None:
    keeper = PaceKeeper()
    assert keeper.paces is NO_PACES
    for _ in range(LEAST - 1):
        keeper.note("p/m", 0.5, 2.0, 100)
    assert keeper.paces is NO_PACES
    keeper.note("p/m", 0.5, 2.0, 100)
    assert dict(keeper.paces.seen) == {"p/m": Pace(0.5, 50.0)}
    assert keeper.paces.seconds("p/m", 100) == 2.5
    assert keeper.paces.seconds("p/other", 100) is None
    same = keeper.paces
    keeper.note("p/m", 0.5, 2.0, 100)
    assert keeper.paces is same


def test_plain_answer_has_no_first_token() -> None:
    keeper = PaceKeeper()
    for _ in range(LEAST):
        keeper.note("p/m", None, 2.0, 100)
    assert dict(keeper.paces.seen) == {"p/m": Pace(0.0, 50.0)}


def test_answer_without_tokens_or_time_says_nothing() -> None:
    keeper = PaceKeeper()
    for _ in range(LEAST):
        keeper.note("p/m", 0.1, 0.0, 100)
        keeper.note("p/m", 0.1, 1.0, 0)
    assert keeper.paces is NO_PACES


def test_paces_are_bounded() -> None:
    keeper = PaceKeeper()
    for number in range(habits.OFFERS + 1):
        for _ in range(LEAST if number == 0 else 1):
            keeper.note(f"p/{number}", 0.1, 1.0, 10)
    keeper.note("p/1", 0.1, 1.0, 10)
    for _ in range(LEAST):
        keeper.note("p/1", 0.1, 1.0, 10)
    assert set(keeper.paces.seen) == {"p/1"}


@dataclass
class Keepers:
    """What of the services learns from a request."""

    habits: HabitKeeper = field(default_factory=HabitKeeper)
    paces: PaceKeeper = field(default_factory=PaceKeeper)


def charged(tally: Tally, decision: Decision, usage: TokenUsage, keepers: Keepers) -> None:
    """Account for an answer of this request."""
    tally.account = Account(None, tally, utc_now(), decision)  # type: ignore[arg-type]  # nothing is written down
    account(tally, decision, usage, 0, keepers)  # type: ignore[arg-type]


def test_an_endpoint_of_a_tenants_own_says_nothing_of_how_fast_a_model_is_for_others() -> None:
    decision = decide({"model": "minimax/MiniMax-M2", "held": ["minimax"]})
    found: list[bool] = []
    for own in (True, False):
        keepers = Keepers()
        for _ in range(LEAST):
            tally = Tally("req_x", "POST", 0.0, tenant_id="t", provider="minimax", model="MiniMax-M2", answering_s=1.0)
            tally.asked = Attempt("minimax", "MiniMax-M2", "t", "k", 0.0, own)
            charged(tally, decision, used(output_tokens=10**9), keepers)
        assert keepers.habits.of("t") is not NO_HABITS
        found.append("minimax/MiniMax-M2" in keepers.paces.paces.seen)
    assert found == [False, True]


def test_a_request_costs_what_its_service_tier_costs() -> None:
    dear = Prices(input=Decimal(2), output=Decimal(2))
    plain = decide({"model": "minimax/MiniMax-M2", "held": ["minimax"]})
    offer = replace(plain.ranked[0].offer, prices=Prices(Decimal(1), Decimal(1), services={ServiceTier.PRIORITY: dear}))
    query = replace(plain.query, needs=replace(plain.query.needs, service=ServiceTier.PRIORITY))
    decision = replace(plain, query=query, ranked=(candidate(offer, plain.ranked[0].holding, query),))
    assert decision.ranked[0].expected_cost == 3000
    costs = []
    for answered, dropped in ((None, ()), ("default", ()), (None, ("service_tier",))):
        tally = Tally("req_x", "POST", 0.0, tenant_id="t", provider="minimax", model="MiniMax-M2", dropped=dropped)
        usage = TokenUsage(1, 1, service_tier=answered)
        charged(tally, decision, usage, Keepers())
        costs.append(tally.cost_usd)
    assert costs == [4, 2, 2]


def test_a_limit_holds_nobody_whose_price_is_not_known_for_this_size_or_tier() -> None:
    wishes = {"max_input_price": "1", "max_output_price": "1"}
    decision = decide({"model": "minimax/MiniMax-M2", "held": ["minimax"], "preferences": wishes})
    (found,) = decision.ranked
    query = decision.query
    at = Circumstances(query, True, provider("minimax"), found.holding, Entitlements(Plans([]), registry()))
    assert is_priced(found.offer, at) is None
    for prices, needs in (
        (replace(found.offer.prices, known_up_to=10), query.needs),
        (found.offer.prices, replace(query.needs, service=ServiceTier.FLEX)),
    ):
        no = is_priced(replace(found.offer, prices=prices), replace(at, query=replace(query, needs=needs)))
        assert no is not None and no.reason is Reason.UNPRICED and no.certain


def test_several_answers_are_expected_to_cost_as_many_and_one_of_them_is_usual() -> None:
    plain = decide({"model": "minimax/MiniMax-M2", "held": ["minimax"]})
    (one,) = plain.ranked
    query = replace(plain.query, needs=replace(plain.query.needs, answers=4))
    decision = replace(plain, query=query, ranked=(candidate(one.offer, one.holding, query),))
    assert decision.ranked[0].basis.output_tokens == 4 * one.basis.output_tokens
    keepers = Keepers()
    for _ in range(LEAST):
        tally = Tally("req_x", "POST", 0.0, tenant_id="t", provider="minimax", model="MiniMax-M2")
        charged(tally, decision, used(output_tokens=400), keepers)
    assert keepers.habits.of("t").usual == Median(100, LEAST)
    assert [read_needs({"n": n}).answers for n in (3, 0, True, None)] == [3, 1, 1, 1]


def test_what_was_slow_once_is_forgotten() -> None:
    times = [0.0]
    keeper = PaceKeeper(lambda: times[0])
    for _ in range(LEAST):
        keeper.note("p/slow", 0.1, 60.0, 10)
    times[0] = habits.FORGOTTEN_S
    for _ in range(LEAST):
        keeper.note("p/m", 0.1, 1.0, 10)
    assert set(keeper.paces.seen) == {"p/slow", "p/m"}
    times[0] += 1
    keeper.note("p/m", 0.1, 1.0, 10)
    assert set(keeper.paces.seen) == {"p/m"}
