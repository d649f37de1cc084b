"""What a provider counted, in the classes that have prices."""

from decimal import Decimal

from gateway.events import TokenUsage
from gateway.metering import metered
from gateway.openai_shape import token_usage
from gateway.seen import Seen
from router.charge import Usage, charge
from router.price_rows import Notes, read_row
from router.prices import ServiceTier

# claude-sonnet-4-5, as LiteLLM passes on Anthropic's usage
SAID = {
    "prompt_tokens": 10_000,
    "completion_tokens": 600,
    "prompt_tokens_details": {
        "cached_tokens": 5000,
        "cache_write_tokens": 4000,
        "cache_creation_token_details": {"ephemeral_5m_input_tokens": 3000, "ephemeral_1h_input_tokens": 1000},
        "audio_tokens": 20,
    },
    "completion_tokens_details": {"reasoning_tokens": 400, "audio_tokens": 30},
}


def test_every_count_is_in_its_class() -> None:
    tokens = token_usage(SAID)
    assert tokens is not None
    assert metered(tokens) == Usage(
        input_tokens=10_000,
        output_tokens=600,
        cached_input_tokens=5000,
        cache_write_tokens=3000,
        cache_write_1h_tokens=1000,
        audio_input_tokens=20,
        audio_output_tokens=30,
        reasoning_tokens=400,
    )


def test_an_hour_of_more_than_was_stored_is_what_was_stored() -> None:
    found = metered(TokenUsage(input_tokens=10, output_tokens=0, cache_write_tokens=4, cache_write_1h_tokens=9))
    assert (found.cache_write_tokens, found.cache_write_1h_tokens) == (0, 4)


def test_lifetimes_that_are_no_table_are_none() -> None:
    for details in (None, 3, {"cache_creation_token_details": 3}):
        tokens = token_usage({"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": details})
        assert tokens is not None
        assert tokens.cache_write_1h_tokens == 0


def test_an_hour_in_the_cache_costs_its_own_price() -> None:
    row = {
        "input_cost_per_token": Decimal("3e-6"),
        "output_cost_per_token": Decimal("1.5e-5"),
        "cache_read_input_token_cost": Decimal("3e-7"),
        "cache_creation_input_token_cost": Decimal("3.75e-6"),
        "cache_creation_input_token_cost_above_1hr": Decimal("6e-6"),
    }
    prices = read_row(row, mode="chat", free=False, notes=Notes()).prices
    tokens = TokenUsage(10_000, 0, cached_input_tokens=5000, cache_write_tokens=4000, cache_write_1h_tokens=1000)
    assert charge(prices, metered(tokens)).usd == Decimal("0.02175")


def test_anthropic_names_its_tier_beside_the_counts() -> None:
    seen = Seen()
    seen.note({"type": "message_start", "message": {"usage": {"input_tokens": 3, "service_tier": "priority"}}})
    assert seen.service_tier == "priority"


def test_a_count_that_no_call_can_have_is_no_count() -> None:
    for name in ("prompt_tokens", "completion_tokens"):
        assert token_usage({"prompt_tokens": 1, "completion_tokens": 1} | {name: 10**400}) is None
    tokens = token_usage(
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 10**400}}
    )
    assert tokens is not None
    assert tokens.cached_input_tokens == 0


def test_what_the_answer_says_of_its_service_tier_goes_before_what_was_asked_for() -> None:
    said = {"prompt_tokens": 10, "completion_tokens": 1}
    for answered, asked, charged in (
        ("default", ServiceTier.PRIORITY, ServiceTier.STANDARD),
        ("priority", ServiceTier.STANDARD, ServiceTier.PRIORITY),
        (None, ServiceTier.FLEX, ServiceTier.FLEX),
        ("on_demand", ServiceTier.FLEX, ServiceTier.FLEX),
        (3, ServiceTier.STANDARD, ServiceTier.STANDARD),
    ):
        tokens = token_usage(said, answered)
        assert tokens is not None
        assert metered(tokens, asked).service is charged
