"""What a request says about routing, read; each wrong value is named."""

import json
from dataclasses import fields
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import PreferenceError
from router.preferences import read_preferences
from router.query import NO_PREFERENCES, Preferences
from tests.router import world
from tests.router.vectors import Row, rows


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Decimal) else value


@pytest.mark.parametrize("row", rows("preferences", "case"))
def test_a_body_is_read_as_its_row_says(row: Row) -> None:
    body = json.loads(row["body"])
    if "found" in row:
        found = read_preferences(body, world.registry())
        default = Preferences()
        told = {each.name: getattr(found, each.name) for each in fields(Preferences)}
        assert {name: plain(value) for name, value in told.items() if value != getattr(default, name)} == row["found"]
        return
    with pytest.raises(PreferenceError) as refused:
        read_preferences(body, world.registry())
    assert refused.value.param == row["param"]
    assert row["says"] in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
FIELDS = st.sampled_from(["order", "only", "ignore", "sort", "max_price", "allow_fallbacks", "min_quality", "zdr", "x"])


@given(st.dictionaries(st.sampled_from(["provider", "wardgate"]), st.dictionaries(FIELDS, JSON) | JSON))
def test_whatever_is_sent_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        found = read_preferences(body, world.registry())
    except PreferenceError as refused:
        assert refused.param.partition(".")[0] in ("provider", "wardgate")
        assert len(str(refused)) < 500
        return
    assert found == NO_PREFERENCES or any(body.values())
