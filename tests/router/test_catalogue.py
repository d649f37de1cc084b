"""How rows of the price map become offers, and how offers are found."""

import random
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.catalogue import Catalogue, Cause, Offer, build_catalogue, is_model_name, open_offer
from tests.router import world
from tests.router.vectors import vectors

CHAT: Mapping[str, Any] = {
    "litellm_provider": "openai",
    "mode": "chat",
    "input_cost_per_token": Decimal("1e-6"),
    "output_cost_per_token": Decimal("2e-6"),
}


def build(rows: Mapping[str, Any]) -> Catalogue:
    return build_catalogue(rows, world.registry(), version="test-1")


def ids(catalogue: Catalogue) -> list[str]:
    return [offer.id for offer in catalogue.offers]


@pytest.mark.parametrize(
    ("key", "row", "offer_id"),
    [
        ("gpt-4o", {}, "openai/gpt-4o"),
        ("openai/gpt-4o", {}, "openai/gpt-4o"),
        ("openai/gpt-oss-120b", {"litellm_provider": "groq"}, "groq/openai/gpt-oss-120b"),
        ("groq/openai/gpt-oss-120b", {"litellm_provider": "groq"}, "groq/openai/gpt-oss-120b"),
        ("gemini/gemini-2.5-pro", {"litellm_provider": "gemini"}, "google/gemini-2.5-pro"),
        ("gemini-flash-latest", {"litellm_provider": "gemini"}, "google/gemini-flash-latest"),
        ("openrouter/openai/gpt-4o", {"litellm_provider": "openrouter"}, "openrouter/openai/gpt-4o"),
        ("openai/openai/x", {}, "openai/openai/x"),
    ],
)
def test_the_provider_is_the_rows_column_and_the_model_what_follows_its_prefix(
    key: str, row: dict[str, Any], offer_id: str
) -> None:
    assert ids(build({key: {**CHAT, **row}})) == [offer_id]


@pytest.mark.parametrize(
    ("cause", "key", "row"),
    [
        (Cause.RESERVED, "sample_spec", {}),
        (Cause.RESERVED, "fallback_generalizations", {}),
        (Cause.PROVIDER_NOT_REGISTERED, "azure/gpt-4o", {"litellm_provider": "azure"}),
        (Cause.PROVIDER_NOT_REGISTERED, "gpt-4o", {"litellm_provider": None}),
        (Cause.PROVIDER_NOT_REGISTERED, "gpt-4o", {"litellm_provider": ["openai"]}),
        (Cause.MODE_MISSING, "gpt-4o", {"mode": None}),
        (Cause.MODE_MISSING, "gpt-4o", {"mode": ""}),
        (Cause.MODE_MISSING, "gpt-4o", {"mode": 1}),
        (Cause.TEMPLATE, "ft:gpt-4o-2024-08-06", {}),
        (Cause.TEMPLATE, "openai/*", {}),
        (Cause.PRICE_CLASS, "together-ai-4.1b-8b", {"litellm_provider": "together_ai"}),
        (Cause.PRICE_CLASS, "fireworks-ai-up-to-4b", {"litellm_provider": "fireworks_ai"}),
        (Cause.PRICE_CLASS, "low/1024-x-1024/gpt-image-1", {"mode": "image_generation"}),
        (Cause.PRICE_CLASS, "1024-x-1536/gpt-image-1", {"mode": "image_generation"}),
        (Cause.ODD_NAME, "", {}),
        (Cause.ODD_NAME, "openai/", {}),
        (Cause.ODD_NAME, "gpt 4o", {}),
        (Cause.ODD_NAME, "gpt-4o\x00", {}),
        (Cause.ODD_NAME, "x" * 201, {}),
    ],
)
def test_a_row_that_is_no_model_is_left_out_and_counted(cause: Cause, key: str, row: dict[str, Any]) -> None:
    catalogue = build({key: {**CHAT, **row}})
    assert ids(catalogue) == []
    assert catalogue.notes == {cause: 1}


def test_a_row_that_is_no_table_is_left_out_and_counted() -> None:
    assert build({"gpt-4o": "cheap"}).notes == {Cause.NOT_A_TABLE: 1}


def test_a_chat_row_that_says_nothing_of_tokens_or_abilities_is_left_out() -> None:
    row = {"litellm_provider": "openai", "mode": "chat", "code_interpreter_cost_per_session": Decimal("0.03")}
    catalogue = build({"openai/container": row})
    assert ids(catalogue) == []
    assert catalogue.notes == {Cause.SAYS_NOTHING: 1}


@pytest.mark.parametrize("field", ["supports_vision", "max_input_tokens"])
def test_a_chat_row_that_says_something_stays_without_a_price(field: str) -> None:
    catalogue = build({"gpt-4o": {"litellm_provider": "openai", "mode": "chat", field: True}})
    assert ids(catalogue) == ["openai/gpt-4o"]


def test_a_row_whose_name_merely_begins_like_its_provider_is_a_model() -> None:
    assert ids(build({"deepseek-chat": {**CHAT, "litellm_provider": "deepseek"}})) == ["deepseek/deepseek-chat"]


@pytest.mark.parametrize(
    "order", [("deepseek-chat", "deepseek/deepseek-chat"), ("deepseek/deepseek-chat", "deepseek-chat")]
)
def test_of_two_rows_for_one_offer_the_prefixed_one_is_taken(order: tuple[str, str]) -> None:
    prices = {"deepseek-chat": Decimal("1e-6"), "deepseek/deepseek-chat": Decimal("3e-6")}
    rows = {key: {**CHAT, "litellm_provider": "deepseek", "input_cost_per_token": prices[key]} for key in order}
    catalogue = build(rows)
    (offer,) = catalogue.offers
    assert offer.prices.input == Decimal("3e-6")
    assert catalogue.notes == {Cause.DUPLICATE: 1}


def test_names_that_differ_in_case_alone_are_one_offer() -> None:
    rows = {f"minimax/{name}": {**CHAT, "litellm_provider": "minimax"} for name in ("minimax-m2", "MiniMax-M2")}
    assert ids(build(rows)) == ["minimax/MiniMax-M2"]


def test_a_malformed_price_leaves_the_offer_unpriced_and_is_counted() -> None:
    catalogue = build({"gpt-4o": {**CHAT, "input_cost_per_token": "free"}})
    (offer,) = catalogue.offers
    assert not offer.prices.known
    assert catalogue.notes == {Cause.PRICE_MALFORMED: 1}


def test_zero_is_a_price_for_a_free_provider_alone() -> None:
    zero = {**CHAT, "input_cost_per_token": Decimal(0), "output_cost_per_token": Decimal(0)}
    catalogue = build({"gpt-4o": zero, "ollama/llama3": {**zero, "litellm_provider": "ollama"}})
    assert {offer.id: offer.prices.known for offer in catalogue.offers} == {
        "openai/gpt-4o": False,
        "ollama/llama3": True,
    }


def test_the_order_of_rows_does_not_matter() -> None:
    rows = list(vectors("routing")["rows"].items())
    random.Random(7).shuffle(rows)
    assert build(dict(rows)).offers == build(vectors("routing")["rows"]).offers


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=2))
KEYS = st.sampled_from(["litellm_provider", "mode", "input_cost_per_token", "deprecation_date", "max_input_tokens"])
VALUES = st.sampled_from(["openai", "chat", Decimal("1e-6"), Decimal("NaN"), "2026-01-01", -1]) | JSON


@given(st.dictionaries(st.text(max_size=12), st.dictionaries(KEYS, VALUES) | JSON, max_size=4))
def test_no_price_map_raises(rows: dict[str, Any]) -> None:
    catalogue = build(rows)
    left_out = sum(count for cause, count in catalogue.notes.items() if cause in LEAVES_OUT)
    assert len(catalogue.offers) + left_out == len(rows)


LEAVES_OUT = {
    Cause.RESERVED,
    Cause.NOT_A_TABLE,
    Cause.ODD_NAME,
    Cause.PROVIDER_NOT_REGISTERED,
    Cause.MODE_MISSING,
    Cause.TEMPLATE,
    Cause.PRICE_CLASS,
    Cause.SAYS_NOTHING,
    Cause.DUPLICATE,
}


# --- look-ups -------------------------------------------------------------------------------------------------------


def found(offers: tuple[Offer, ...]) -> list[str]:
    return [offer.id for offer in offers]


def test_an_offer_is_found_by_its_id_without_regard_to_case() -> None:
    offer = world.catalogue().offer("MiniMax/minimax-m2")
    assert offer is not None
    assert (offer.id, offer.provider_id, offer.model, offer.family) == (
        "minimax/MiniMax-M2",
        "minimax",
        "MiniMax-M2",
        "minimax-m2",
    )
    assert world.catalogue().offer("minimax/MiniMax-M9") is None


def test_offers_are_found_by_provider() -> None:
    assert found(world.catalogue().of_provider("minimax")) == ["minimax/MiniMax-M2", "minimax/MiniMax-M3"]
    assert world.catalogue().of_provider("nobody") == ()


def test_offers_are_found_by_their_very_name() -> None:
    assert found(world.catalogue().of_name("GPT-4o")) == ["openai/gpt-4o"]
    assert found(world.catalogue().of_name("gpt-oss-120b")) == [
        "groq/openai/gpt-oss-120b",
        "together/openai/gpt-oss-120b",
    ]
    assert world.catalogue().of_name("mistral-large") == ()


def test_offers_are_found_by_their_family() -> None:
    assert found(world.catalogue().of_family("GPT-4o")) == ["openai/gpt-4o", "openai/gpt-4o-2024-08-06"]
    assert world.catalogue().of_family("gpt") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt-4oo", ["gpt-4o"]),
        ("gpt-4o-min", ["gpt-4o-mini", "gpt-4o"]),
        ("minimax/minimax-m1", ["minimax/MiniMax-M3", "minimax/MiniMax-M2"]),
        ("zzzz", []),
        ("", []),
        ("gpt-4o" * 100, []),
    ],
)
def test_near_names_are_offered(text: str, expected: list[str]) -> None:
    assert world.catalogue().near(text) == expected


def test_a_catalogue_says_what_it_is() -> None:
    assert repr(world.catalogue()) == f"Catalogue({len(world.catalogue().offers)} offers, version test-1)"
    assert world.catalogue().version == "test-1"


# --- models that the map does not have ------------------------------------------------------------------------------


def test_an_open_offer_is_a_chat_model_of_which_nothing_is_known() -> None:
    offer = open_offer(world.provider("openrouter"), "openai/GPT-X-2026-01-02")
    assert offer.id == "openrouter/openai/GPT-X-2026-01-02"
    assert offer.is_chat
    assert offer.family == "gpt-x"
    assert not offer.prices.known
    assert (offer.max_input_tokens, offer.capabilities, offer.deprecated_on) == (None, {}, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt-4o", True),
        ("a/b:c@d", True),
        ("x" * 200, True),
        ("x" * 201, False),
        ("", False),
        ("a b", False),
        ("a\n", False),
    ],
)
def test_a_models_name_has_no_white_space_and_an_end(text: str, expected: bool) -> None:
    assert is_model_name(text) is expected
