"""The operator's models: over the price map's rows, and beside them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.catalogue import Catalogue, Cause, Offer, build_catalogue, check_overrides
from router.decision import route
from router.errors import ModelError
from router.overrides import NO_OVERRIDES, load_overrides
from router.quality import Quality
from router.reasons import Reason
from tests.router import world
from tests.router.test_prices import read_prices
from tests.router.vectors import Row, rows, vectors

GPT = "openai/gpt-4o"


def build(models: dict[str, Any], price_map: dict[str, Any] | None = None) -> Catalogue:
    overrides = load_overrides(models, world.registry())
    price_map = vectors("routing")["rows"] if price_map is None else price_map
    return build_catalogue(price_map, world.registry(), version="test-1", overrides=overrides)


def fact(offer: Offer, field: str) -> object:
    value = getattr(offer, field)
    match value:
        case Quality():
            return [value.score, value.source, str(value.dated)]
        case None:
            return ""
        case _:
            return str(value) if field == "deprecated_on" else value


@pytest.mark.parametrize("row", rows("overrides", "good"))
def test_a_row_changes_what_it_says_and_nothing_else(row: Row) -> None:
    name = row.get("model", GPT)
    catalogue = build({name: row["row"]})
    before = world.catalogue().offer(row["is"].get("id", name))
    after = catalogue.offer(row["is"].get("id", name))
    assert after is not None
    expected = dict(row["is"])
    if "prices" in expected:
        expected["prices"] = read_prices(expected["prices"])
    for field, value in expected.items():
        if field == "capabilities":
            assert {each: after.capabilities[each] for each in value} == value
        else:
            assert fact(after, field) == value
    if before is not None:
        unsaid = {"prices", "mode", "max_input_tokens", "max_output_tokens", "deprecated_on", "disabled"} - set(
            expected
        )
        assert {field: getattr(after, field) for field in unsaid} == {field: getattr(before, field) for field in unsaid}


@pytest.mark.parametrize("row", rows("overrides", "bad"))
def test_a_row_that_is_wrong_is_refused_with_the_nearest_word(row: Row) -> None:
    name = row.get("model", GPT).replace("LONG", "x" * 10_000)
    with pytest.raises(ModelError) as caught:
        load_overrides({name: row["row"]}, world.registry())
    assert row["says"] in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_row_that_is_no_table_is_refused() -> None:
    with pytest.raises(ModelError, match="a row is a table"):
        load_overrides({GPT: "x"}, world.registry())  # type: ignore[dict-item]


def test_two_rows_for_one_model_are_refused() -> None:
    models = {GPT: {"disabled": True}, "OpenAI/GPT-4o": {"disabled": False}}
    with pytest.raises(ModelError, match="another row is the same model, openai/gpt-4o"):
        load_overrides(models, world.registry())


def test_the_catalogues_version_follows_the_rows() -> None:
    versions = [
        build({}).version,
        build({GPT: {"disabled": True}}).version,
        build({GPT: {"disabled": False}}).version,
        build({GPT: {"disabled": True}, "openai/x": {"mode": "chat"}}).version,
    ]
    assert versions[0] == "test-1"
    assert len(set(versions)) == len(versions)
    assert all(version.startswith("test-1+") for version in versions[1:])
    assert build({GPT: {"disabled": True}}).version == versions[1]


def test_no_rows_are_no_overrides() -> None:
    assert load_overrides({}, world.registry()) == NO_OVERRIDES


def test_the_order_of_the_rows_does_not_matter() -> None:
    models: dict[str, dict[str, object]] = {GPT: {"disabled": True}, "openai/x": {"mode": "chat"}}
    other = build(dict(reversed(models.items())))
    assert (other.version, other.offers) == (build(models).version, build(models).offers)


def test_a_row_over_nothing_is_refused_with_the_nearest_model() -> None:
    overrides = load_overrides({"openai/gpt-4oo": {"disabled": True}}, world.registry())
    with pytest.raises(ModelError, match=r"'openai/gpt-4oo' is not in the price map; did you mean 'openai/gpt-4o'\?"):
        check_overrides(overrides, world.catalogue())


def test_a_row_over_nothing_like_it_is_refused() -> None:
    overrides = load_overrides({"openai/zzzzzzz": {"disabled": True}}, world.registry())
    with pytest.raises(ModelError, match=r'is not in the price map\. A model of your own says its mode: mode = "chat"'):
        check_overrides(overrides, world.catalogue())


def test_a_row_over_something_is_in_order() -> None:
    models: dict[str, dict[str, object]] = {GPT: {"disabled": True}, "openai/x": {"mode": "chat"}}
    check_overrides(load_overrides(models, world.registry()), build(models))


def test_a_row_whose_model_a_later_map_has_no_more_is_counted() -> None:
    catalogue = build({GPT: {"disabled": True}}, {})
    assert catalogue.offers == ()
    assert catalogue.notes == {Cause.OVERRIDE_UNMATCHED: 1}


def test_a_family_of_ones_own_finds_every_member() -> None:
    catalogue = build(
        {
            GPT: {"family": "house"},
            "ollama/llama-house": {"mode": "chat", "family": "house"},
            "minimax/MiniMax-M2": {"family": "acme/house"},
        }
    )
    assert {offer.id for offer in catalogue.of_family("house")} == {GPT, "ollama/llama-house", "minimax/MiniMax-M2"}
    assert GPT in {offer.id for offer in catalogue.of_name("gpt-4o")}


@pytest.mark.parametrize("model", [GPT, "gpt-4o"])
def test_a_model_that_is_switched_off_is_not_asked_for(model: str) -> None:
    asked = {"model": model, "held": ["openai"]}
    catalogue = build({GPT: {"disabled": True}, "openai/gpt-4o-2024-08-06": {"disabled": True}})
    decision = route(world.query(asked), catalogue, world.registry(), world.plans(), world.keys(asked))
    assert decision.ranked == ()
    assert {each.reason for each in decision.rejected} == {Reason.MODEL_DISABLED}
    assert decision.rejected[0].detail == "openai/gpt-4o is switched off by the operator"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["family", "mode", "prices", "max_input_tokens", "capabilities", "deprecated_on", "quality", "disabled"]
)


@given(st.dictionaries(FIELDS, JSON | st.dictionaries(st.sampled_from(["input", "tiers", "services", "tools"]), JSON)))
def test_nonsense_is_refused_or_read_and_never_anything_else(row: dict[str, Any]) -> None:
    try:
        load_overrides({GPT: row}, world.registry())
    except ModelError as error:
        assert "gpt-4o" in str(error)
