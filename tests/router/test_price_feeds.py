"""router.price_feeds: LiteLLM's map and OpenRouter's list become the same rows."""

import json
from decimal import Decimal
from typing import Any

import pytest

from router.errors import PriceMapError
from router.price_feeds import Feed, FeedKind, merged, read_feed
from tests.prices import bundled_rows, priced

GPT: dict[str, Any] = {
    "id": "openai/gpt-4o",
    "context_length": 128000,
    "pricing": {
        **{"prompt": "0.0000025", "completion": "0.00001", "request": "0", "image": "0.003613"},
        **{"input_cache_read": "0.00000125", "web_search": "0.01"},
    },
    "top_provider": {"max_completion_tokens": 16384},
    "architecture": {"input_modalities": ["text", "image"]},
    "supported_parameters": ["tools", "structured_outputs"],
}
ROW = {
    "litellm_provider": "openrouter",
    "mode": "chat",
    "input_cost_per_token": Decimal("0.0000025"),
    "output_cost_per_token": Decimal("0.00001"),
    "input_cost_per_image": Decimal("0.003613"),
    "cache_read_input_token_cost": Decimal("0.00000125"),
    "max_input_tokens": 128000,
    "max_output_tokens": 16384,
    "supports_function_calling": True,
    "supports_tool_choice": False,
    "supports_response_schema": True,
    "supports_reasoning": False,
    "supports_vision": True,
    "supports_audio_input": False,
    "supports_pdf_input": False,
}


def openrouter(*models: Any) -> Feed:
    return read_feed(json.dumps({"data": list(models)}).encode())


def test_litellm_map_is_read_whole() -> None:
    feed = read_feed(priced())
    assert (feed.kind, feed.doubled) == (FeedKind.LITELLM, frozenset())
    assert feed.rows == bundled_rows()


def test_openrouter_list_is_read() -> None:
    feed = openrouter(GPT)
    assert (feed.kind, feed.rows) == (FeedKind.OPENROUTER, {"openrouter/openai/gpt-4o": ROW})


@pytest.mark.parametrize(
    ("pricing", "want"),
    [
        pytest.param({"prompt": "0", "completion": "0"}, (0, 0), id="free"),
        pytest.param({"prompt": "-1", "completion": "-1"}, (None, None), id="no price of its own"),
        pytest.param({"prompt": "1e-6", "completion": "2E-6"}, (Decimal("0.000001"), Decimal("0.000002")), id="powers"),
        pytest.param({"prompt": "-0.5", "completion": "1"}, ("-0.5", 1), id="negative stays text, to be found"),
        pytest.param({"prompt": "NaN", "completion": " 1"}, ("NaN", " 1"), id="nonsense stays text"),
        pytest.param({"prompt": "1" * 40, "completion": "٣"}, ("1" * 40, "٣"), id="other digits stay text"),
        pytest.param({"prompt": 0.5, "completion": None}, (Decimal("0.5"), None), id="a number"),
        pytest.param(None, (None, None), id="none at all"),
    ],
)
def test_openrouter_prices(pricing: Any, want: tuple[Any, Any]) -> None:
    (row,) = openrouter({"id": "a/b", "pricing": pricing}).rows.values()
    assert isinstance(row, dict)
    assert (row.get("input_cost_per_token"), row.get("output_cost_per_token")) == want


def test_openrouter_entry_that_says_little_says_nothing_more() -> None:
    (row,) = openrouter(
        {"id": "a/b", "architecture": "x", "supported_parameters": None, "top_provider": 1}
    ).rows.values()
    assert row == {"litellm_provider": "openrouter", "mode": "chat"}


def test_openrouter_model_that_stands_twice_is_told() -> None:
    dearer = {**GPT, "pricing": {"prompt": "1", "completion": "1"}}
    assert openrouter(GPT, dearer).doubled == {"openrouter/openai/gpt-4o"}
    assert openrouter(GPT, GPT).doubled == frozenset()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is not valid JSON (at byte 0)"),
        (b'{"a": {"input_cost', "it is not valid JSON"),
        (priced()[:1000], "it is not valid JSON"),
        (b"<html>", "it is not valid JSON (at byte 0)"),
        (b"\xff\xfe\x00", "it is not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it is not valid JSON (ValueError)"),
        (b"[" * 100_000, "it is not valid JSON (RecursionError)"),
        (b"[]", "it is no JSON object"),
        (b"null", "it is no JSON object"),
        (b"{}", "it holds no model"),
        (b'{"sample_spec": {}}', "it holds no model"),
        (b'{"data": []}', "it holds no model"),
        (b'{"data": [1]}', "an entry of its list has no id"),
        (b'{"data": [{"id": 5}]}', "an entry of its list has no id"),
        (b'{"data": [{"id": ""}]}', "an entry of its list has no id"),
    ],
)
def test_list_that_is_none_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(PriceMapError) as caught:
        read_feed(content)
    assert str(caught.value).startswith(said)


def test_later_list_takes_the_place_of_an_earlier_row() -> None:
    one = Feed(FeedKind.LITELLM, {"a": {"mode": "chat", "x": 1}, "b": {"mode": "chat"}}, frozenset("a"))
    two = Feed(FeedKind.LITELLM, {"a": {"mode": "embedding"}})
    both = merged([one, two])
    assert both == Feed(FeedKind.LITELLM, {"a": {"mode": "embedding"}, "b": {"mode": "chat"}})
    assert merged([two]) == two


def test_openrouter_lays_its_prices_over_litellms_row() -> None:
    name = "openrouter/openai/gpt-4o"
    below = {"mode": "chat", "input_cost_per_token": 1, "output_cost_per_token_priority": 2, "tiered_pricing": []}
    litellm = Feed(FeedKind.LITELLM, {name: {**below, "supports_web_search": True, "supports_vision": False}, "b": 5})
    row = merged([litellm, openrouter(GPT)]).rows[name]
    assert row == {**ROW, "supports_web_search": True}
    assert merged([openrouter(GPT), litellm]).rows[name] == litellm.rows[name]
    assert merged([Feed(FeedKind.LITELLM, {name: "odd"}), openrouter(GPT)]).rows[name] == ROW
