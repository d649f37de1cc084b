"""The most that a call can cost: never less than it costs, and nothing where nobody can say: RELIABILITY S11."""

from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.catalogue import Offer
from router.charge import Usage, charge
from router.model_names import parse_name
from router.most import most_nano
from router.needs import Needs, read_needs
from router.prices import PriceClass, Prices, PriceTier, ServiceTier

DEAR = Decimal("0.00001")
CHEAP = DEAR / 10
OTHERS = MappingProxyType({PriceClass.REASONING: DEAR * 4, PriceClass.CACHE_WRITE_1H: DEAR * 2})
PRICES = Prices(input=DEAR, output=DEAR * 2, cached_input=CHEAP, cache_write=DEAR, others=OTHERS)
FLEX = replace(PRICES, services=MappingProxyType({ServiceTier.FLEX: Prices(input=CHEAP, output=CHEAP)}))
OFFER = Offer("openai", "gpt-9", parse_name("gpt-9"), "chat", PRICES, 128_000, 1_000)
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}


def needs(body: dict[str, Any]) -> Needs:
    return read_needs(body).bounded(len(orjson.dumps(body)), body)


def most(body: dict[str, Any], offer: Offer = OFFER) -> int | None:
    return most_nano(offer, needs(body))


def costs(offer: Offer = OFFER, **used: Any) -> int:
    nano = charge(offer.prices, Usage(**used)).nano
    assert nano is not None
    return nano


@pytest.mark.parametrize(
    "more",
    [
        {"web_search_options": {}},
        {"search_parameters": {"mode": "on"}},
        {"search_parameters": {}},
        {"enable_search": True},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
        {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
        {"mcp_servers": [{"url": "https://example.com"}]},
        {"speed": "fast"},
        {"background": True},
        {"inference_geo": "us"},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
    ],
)
def test_what_is_charged_apart_from_tokens_is_not_held(more: dict[str, Any]) -> None:
    assert most(HELLO | more) is None


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}, {"name": "g", "input_schema": {}}]},
        {"tools": [{"type": "custom", "name": "apply"}, {"type": "local_shell"}, {"type": "text_editor_20250728"}]},
        {"speed": "standard", "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"store": False, "mcp_servers": None, "plugins": [], "stream_options": {"include_usage": True}},
        {"reasoning": {"effort": "high"}, "text": {"verbosity": "low"}, "instructions": "Be brief."},
        {"stop_sequences": ["END"], "random_seed": 7, "reasoning_format": "parsed", "min_tokens": 3},
    ],
)
def test_what_costs_tokens_alone_is_held(more: dict[str, Any]) -> None:
    assert most(HELLO | more) is not None


@pytest.mark.parametrize(
    ("tools", "tokens"),
    [
        ([{"type": "bash_20250124", "name": "bash"}], 346 + 245),
        ([{"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}], 346 + 700),
        ([{"type": "computer_20251124", "name": "computer"}], 499 + 735),
        ([{"type": "computer_toolset_20260801"}], 4_590),
        ([{"type": "bash_1"}, {"type": "text_editor_1"}, {"type": "computer_1"}], 499 + 245 + 700 + 735),
    ],
)
def test_tools_that_the_provider_describes_are_held_at_their_description(
    tools: list[dict[str, str]], tokens: int
) -> None:
    """By Anthropic's tool use pricing, nothing else of the body having any token."""
    held = most(HELLO | {"tools": tools})
    assert held is not None and held >= costs(input_tokens=tokens, cache_write_1h_tokens=tokens, output_tokens=10)
    described = [{"type": "function", "function": {"name": "f"}}, {"name": "g", "input_schema": {}}]
    plain = most(HELLO | {"tools": described})
    assert plain is not None and plain < most_nano(OFFER, needs(HELLO)) + costs(input_tokens=1_000)  # type: ignore[operator]


WINDOW = costs(input_tokens=128_000, cache_write_1h_tokens=128_000, output_tokens=10, reasoning_tokens=10)


@pytest.mark.parametrize(
    "body",
    [
        {"input": "Go on.", "previous_response_id": "resp_1"},
        {"input": "Go on.", "conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "rs_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "JVBERi0x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGR"}}]}]},
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "document"}]}]}]},
    ],
)
def test_what_is_read_elsewhere_is_as_long_as_the_model_reads(body: dict[str, Any]) -> None:
    held = most(body | {"max_tokens": 10})
    assert held is not None and held >= WINDOW


def test_picture_is_held_at_the_most_that_one_costs_and_not_at_its_bytes() -> None:
    sent = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}
    body = HELLO | {"messages": [{"role": "user", "content": [sent]}]}
    held = most(body)
    assert held is not None
    assert costs(input_tokens=48_169, cache_write_1h_tokens=48_169) < held < WINDOW
    assert most(body | {"messages": [{"role": "user", "content": [sent] * 9}]}) == pytest.approx(WINDOW, rel=0.01)


def test_tier_that_may_not_be_had_is_held_at_the_standard_price() -> None:
    offer = replace(OFFER, prices=FLEX)
    assert most(HELLO | {"service_tier": "flex"}, offer) == most(HELLO | {"service_tier": "auto"}, offer)
    assert most(HELLO | {"service_tier": "priority"}, offer) is None, "it has no price"


def test_answers_that_are_thrown_away_are_paid_for() -> None:
    one, three = most(HELLO), most(HELLO | {"best_of": 3, "n": 1})
    assert one is not None and three is not None
    assert three - one >= costs(output_tokens=20, reasoning_tokens=20)


def test_dearer_long_inputs_are_held_at_their_price() -> None:
    tier = PriceTier(100_000, input=DEAR * 2, output=DEAR * 4)
    offer = replace(OFFER, prices=replace(PRICES, tiers=(tier,)))
    body = HELLO | {"messages": [{"role": "user", "content": "x" * 101_000}]}
    held = most(body, offer)
    assert held is not None and held >= costs(offer, input_tokens=101_000, output_tokens=10)


text = st.text(max_size=400)
fields = st.fixed_dictionaries(
    {"role": st.just("user"), "content": text | st.lists(st.builds(lambda said: {"type": "text", "text": said}, text))},
    optional={"name": text, "reasoning_content": text, "refusal": text, "function_call": st.dictionaries(text, text)},
)


@given(st.lists(fields, max_size=6), st.integers(1, 5_000), st.integers(1, 9), st.dictionaries(text, text, max_size=4))
def test_no_text_costs_more_than_is_held(messages: list[Any], limit: int, n: int, schema: dict[str, str]) -> None:
    """Each byte a token of the dearest class, wherever in the body it stands."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    body = {"messages": messages, "max_tokens": limit, "n": n, "tools": tools}
    read, written = len(str(messages + tools).encode("utf-8", "surrogatepass")), limit * n
    read = min(read, len(orjson.dumps(body))) + 346  # Anthropic's own prompt for tools
    held = most(body)
    assert held is not None
    stored = {"input_tokens": read, "cache_write_1h_tokens": read}
    assert held >= costs(OFFER, output_tokens=written, reasoning_tokens=written, **stored)
