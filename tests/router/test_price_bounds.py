"""router.price_bounds: what of a new list may go live. Rules are rows of tests/vectors/price_bounds.toml."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.price_bounds import Bounds, Judgement, Why, amounts, judge, refusal
from router.price_feeds import Feed, FeedKind, read_feed
from tests.prices import bundled_rows, few_rows
from tests.router.vectors import Row, rows

OTHERS = ", ".join(f'"other-{number}": {{"mode": "chat"}}' for number in range(20))
NAME = "acme/one"


def listed(text: str) -> Feed:
    return read_feed(text.encode())


def judged(live: str | None, offered: str | None) -> Judgement:
    """One row among twenty that stay as they are."""
    before = f'{{{OTHERS}, "{NAME}": {live}}}' if live else f"{{{OTHERS}}}"
    after = f'{{{OTHERS}, "{NAME}": {offered}}}' if offered else f"{{{OTHERS}}}"
    known: Any = listed(before).rows
    return judge(known, listed(after), Bounds())


@pytest.mark.parametrize("row", rows("price_bounds", "row"))
def test_row_is_taken_or_waits(row: Row) -> None:
    judgement = judged(row.get("live"), row.get("offered"))
    assert judgement.refused is None
    live = listed(f'{{"x": {row["live"]}}}').rows["x"] if "live" in row else None
    if "why" not in row:
        assert judgement.quarantined == ()
        assert judgement.rows[NAME] == listed(f'{{"x": {row["offered"]}}}').rows["x"]
        return
    (waiting,) = judgement.quarantined
    assert (waiting.name, waiting.why) == (NAME, row["why"])
    assert waiting.detail == row.get("detail", waiting.detail)
    assert judgement.rows.get(NAME) == live  # its live value, or away when it is new
    assert (waiting.proposed is not None) == (waiting.why.approvable and waiting.why is not Why.VANISHED)


def test_every_reason_has_a_row() -> None:
    assert {row.values[0].get("why") for row in rows("price_bounds", "row")} >= set(Why)


@pytest.mark.parametrize(
    ("live", "offered", "said"),
    [
        pytest.param(10, 0, "it holds no model", id="none"),
        pytest.param(0, 0, "it holds no model", id="none where none was"),
        pytest.param(10, 9, None, id="a tenth goes"),
        pytest.param(10, 8, "it lacks 2 of 10 models, more than the share 0.1 that may go at once", id="a fifth goes"),
        pytest.param(10, 30, None, id="three times as many"),
        pytest.param(10, 31, "it holds 31 models where 10 are live, more than 3 times as many", id="more than that"),
        pytest.param(0, 1000, None, id="the first list"),
    ],
)
def test_list_is_refused_whole(live: int, offered: int, said: str | None) -> None:
    names = [str(number) for number in range(1000)]
    assert refusal(set(names[:live]), set(names[:offered]), Bounds()) == said


def test_refused_list_changes_nothing() -> None:
    live: Any = listed(f"{{{OTHERS}}}").rows
    judgement = judge(live, listed('{"other-1": {"mode": "chat", "input_cost_per_token": 1}}'), Bounds())
    assert judgement.refused and judgement.rows == live and judgement.quarantined == ()


def test_row_that_stands_twice_waits() -> None:
    live: Any = listed(f'{{{OTHERS}, "a": {{"mode": "chat"}}}}').rows
    twice = listed(f'{{{OTHERS}, "a": {{"mode": "chat"}}, "a": {{"mode": "embedding"}}}}')
    judgement = judge(live, twice, Bounds())
    assert [(row.name, row.why, row.proposed) for row in judgement.quarantined] == [("a", Why.DUPLICATE, None)]
    assert judgement.rows == live
    same = listed(f'{{{OTHERS}, "a": {{"mode": "chat"}}, "a": {{"mode": "chat"}}}}')
    assert judge(live, same, Bounds()).quarantined == ()


@pytest.mark.parametrize("name", ["", "a\\u0000b", "a\\nb", "\\ud800", "x" * 301])
def test_odd_names_are_left_out_and_counted(name: str) -> None:
    judgement = judge({}, listed(f'{{{OTHERS}, "{name}": {{"mode": "chat"}}}}'), Bounds())
    assert (judgement.odd_names, len(judgement.rows)) == (1, 20)


def test_reserved_rows_are_no_models() -> None:
    live: Any = {"sample_spec": {"mode": "x"}, **listed(f"{{{OTHERS}}}").rows}
    judgement = judge(live, listed(f'{{{OTHERS}, "sample_spec": {{"mode": "y"}}}}'), Bounds())
    assert judgement == Judgement(listed(f"{{{OTHERS}}}").rows)  # type: ignore[arg-type]


def test_bundled_map_passes_its_own_bounds() -> None:
    feed = Feed(FeedKind.LITELLM, bundled_rows())
    assert judge(bundled_rows(), feed, Bounds()) == Judgement(dict(sorted(bundled_rows().items())))
    assert judge({}, feed, Bounds()).quarantined == ()


def test_ten_times_every_price_takes_none() -> None:
    tenfold = {
        name: {field: value * 10 if field in amounts(row) else value for field, value in row.items()}
        for name, row in few_rows().items()
    }
    judgement = judge(few_rows(), Feed(FeedKind.LITELLM, tenfold), Bounds())
    moved = {name for name, row in few_rows().items() if any(row.get(field) for field in amounts(row))}
    assert {row.name for row in judgement.quarantined} == moved and len(moved) > 20
    assert judgement.rows == few_rows()


PRICE = st.one_of(
    st.decimals("0", "0.01", places=9).map(str), st.sampled_from(["NaN", "-1e-6", "null", '"1"', "1e99", "true"])
)
ROWS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.dictionaries(st.sampled_from(["input_cost_per_token", "mode", "x_cost"]), PRICE)
)


def text_of(made: dict[str, dict[str, str]], order: list[str]) -> str:
    inner = {name: ", ".join(f'"{field}": {value}' for field, value in made[name].items()) for name in order}
    return "{" + ", ".join(f'"{name}": {{{row}}}' for name, row in inner.items()) + "}"


@given(live=ROWS.filter(bool), offered=ROWS.filter(bool), data=st.data())
def test_what_goes_live_was_live_or_is_sound(live: Any, offered: Any, data: st.DataObject) -> None:
    before: Any = judge({}, listed(text_of(live, list(live))), Bounds()).rows
    bounds = Bounds(max_lost=Decimal(1), max_growth=Decimal(1000))
    judgement = judge(before, listed(text_of(offered, list(offered))), bounds)
    waiting = {row.name for row in judgement.quarantined}
    for name, row in judgement.rows.items():
        assert (row == before.get(name)) if name in waiting else name in offered
        assert all(amount >= 0 for amount in amounts(row).values())
    assert set(before) <= set(judgement.rows)  # nothing that is live goes by itself
    order = data.draw(st.permutations(list(offered)))
    assert json_of(judge(before, listed(text_of(offered, order)), bounds)) == json_of(judgement)


def json_of(judgement: Judgement) -> str:
    return json.dumps([judgement.rows, [(row.name, row.why, row.detail) for row in judgement.quarantined]], default=str)
