"""router.price_release and router.price_diff: one form for one content, and what differs between two."""

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import PriceMapError
from router.price_diff import Choice, PriceChange, Rerank, diff, reranked
from router.price_release import MOST_BYTES, decode, encode, number_of, pack, unpack, version_of
from tests.prices import bundled_rows

AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | AMOUNTS
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc/-", max_size=8), st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4)))
def test_rows_come_back_as_they_were(made: dict[str, Any]) -> None:
    packed = pack(made)
    assert unpack(packed.content, packed.digest) == made
    shuffled = dict(random.Random(7).sample(list(made.items()), len(made)))
    assert pack(shuffled) == packed


def test_bundled_map_comes_back() -> None:
    packed = pack(bundled_rows())
    assert unpack(packed.content, packed.digest) == bundled_rows()
    assert packed.rows == len(bundled_rows())
    assert len(packed.content) < 400_000


@pytest.mark.parametrize("text", ["0.0000002", "2E-7", "0.00000020", "2.0e-7"])
def test_one_number_has_one_form(text: str) -> None:
    assert encode({"a": Decimal(text)}) == b'{"a":2e-7}'


def test_zero_and_whole_decimals_stay_decimals() -> None:
    found: Any = decode(encode({"a": Decimal("0.00"), "b": Decimal(-3), "c": 3}))
    assert found == {"a": 0, "b": -3, "c": 3}
    assert [type(found[name]) for name in "abc"] == [Decimal, Decimal, int]


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), object(), 2**64, "\ud800"])
def test_what_no_json_has_is_not_kept(value: object) -> None:
    with pytest.raises(PriceMapError, match="cannot be kept"):
        pack({"a": {"b": value}})


def test_release_that_is_too_large_is_not_kept() -> None:
    with pytest.raises(PriceMapError, match=f"at most {MOST_BYTES} are kept"):
        pack({"a": {"b": "x" * MOST_BYTES}})


def test_damaged_release_is_not_read() -> None:
    packed = pack({"a": {"mode": "chat"}})
    for content, digest in (
        (b"", packed.digest),
        (b"no gzip", packed.digest),
        (packed.content[:-9], "0" * 64),
        (packed.content, "0" * 64),
        (pack({"a": {"b": "x" * 50}}).content, packed.digest),
    ):
        with pytest.raises(PriceMapError, match="cannot be read"):
            unpack(content, digest)


def test_version_names_number_and_digest() -> None:
    assert version_of(12, "1f3a9c0e55") == "release-12-1f3a9c0e"


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), (" 12 ", 12), ("release-12-1f3a9c0e", 12), ("release-12", 12)]
    + [
        (odd, None) for odd in ("", "twelve", "-1", "1.5", "bundled", "release-", "٣", "1" * 10, "bundled-1.106.2-6697")
    ],
)
def test_release_is_named_by_its_number(text: str, number: int | None) -> None:
    assert number_of(text) == number


# --- differences -----------------------------------------------------------------------------------------------------

BEFORE: dict[str, Any] = {
    "sample_spec": {"x_cost": 1},
    "gone": {"mode": "chat"},
    "same": {"input_cost_per_token": Decimal("1e-6")},
    "dearer": {"input_cost_per_token": Decimal("1e-6"), "output_cost_per_token": Decimal("3e-6")},
    "free": {"input_cost_per_token": Decimal("1e-6")},
    "unpriced": {"input_cost_per_token": Decimal("1e-6")},
    "priced": {"mode": "chat"},
    "larger": {"input_cost_per_token": Decimal("1e-6"), "max_input_tokens": 1},
}
AFTER: dict[str, Any] = {
    "added": {"mode": "chat"},
    "same": {"input_cost_per_token": Decimal("1e-6")},
    "dearer": {"input_cost_per_token": Decimal("2e-6"), "output_cost_per_token": Decimal("1e-6")},
    "free": {"input_cost_per_token": 0},
    "unpriced": {"mode": "chat"},
    "priced": {"input_cost_per_token": Decimal("1e-6")},
    "larger": {"input_cost_per_token": Decimal("1e-6"), "max_input_tokens": 2},
}


def test_difference_names_what_is_other() -> None:
    found = diff(BEFORE, AFTER)
    assert (found.added, found.gone, found.other) == (("added",), ("gone",), ("larger",))
    assert (found.became_free, found.lost_price) == (("free",), ("unpriced",))
    micro = Decimal("1e-6")
    assert found.changed == (
        PriceChange("dearer", "input_cost_per_token", micro, 2 * micro),
        PriceChange("dearer", "output_cost_per_token", 3 * micro, micro),
        PriceChange("free", "input_cost_per_token", micro, Decimal(0)),
        PriceChange("priced", "input_cost_per_token", None, micro),
        PriceChange("unpriced", "input_cost_per_token", micro, None),
    )
    assert [one.factor for one in found.changed] == [2, Decimal("0.3333"), 0, None, None]
    counts = {"added": 1, "gone": 1, "repriced": 4, "became_free": 1, "lost_price": 1, "other": 1}
    assert found.counts == counts


def test_no_difference_is_none() -> None:
    assert sum(diff(BEFORE, dict(reversed(BEFORE.items()))).counts.values()) == 0


def test_tenants_for_whom_auto_changes_alike_are_one_line() -> None:
    choices = [Choice(f"t{number}", "a/b", "c/d") for number in range(7)]
    choices += [Choice("same", "a/b", "a/b"), Choice("lost", "a/b", None), Choice("found", None, "c/d")]
    found = reranked(reversed(choices))
    assert found[0] == Rerank("a/b", "c/d", tuple(f"t{number}" for number in range(7)))
    assert [one.sentence for one in found] == [
        "for 7 tenants `auto` changes from a/b to c/d",
        "for 1 tenant `auto` changes from no model to c/d",
        "for 1 tenant `auto` changes from a/b to no model",
    ]
