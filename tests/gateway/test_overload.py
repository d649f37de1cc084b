"""How many are let in: falls while the loop stays late, grows back when it is in time, bulk always first."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.overload import (
    BULK_FIRST,
    BULK_LATE_S,
    BULK_LEAST,
    IN_TIME_S,
    LATE_S,
    LEAST,
    SUSTAINED,
    Load,
    Overload,
    abreast_after,
    after,
)

MOST = 4_000


def ticked(load: Load, lags: list[float], busy: int = MOST, most: int = MOST) -> Load:
    for lag in lags:
        load = after(load, most, busy, lag)
    return load


def test_loop_that_is_late_once_turns_nobody_away_and_one_that_stays_late_does() -> None:
    assert ticked(Load(MOST), [LATE_S * 9, 0.0] * 9).allowed == MOST
    assert ticked(Load(MOST), [LATE_S] * (SUSTAINED - 1)).allowed == MOST
    assert ticked(Load(MOST), [LATE_S] * SUSTAINED).allowed == MOST * 9 // 10
    assert ticked(Load(MOST), [LATE_S] * SUSTAINED, busy=1_000).allowed == 900, "what was not used is no measure"


def test_it_does_not_swing_between_the_two_signs() -> None:
    load = ticked(Load(MOST), [LATE_S] * 9)
    between = (IN_TIME_S + LATE_S) / 2
    assert ticked(load, [between] * 50).allowed == load.allowed


def test_everybody_is_let_in_again_within_five_seconds() -> None:
    lowest = ticked(Load(MOST), [1.0] * 500, busy=0)
    assert lowest.allowed == LEAST
    assert ticked(lowest, [0.0] * 50).allowed == MOST


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(0, 5, allow_nan=False), st.integers(0, 10_000)), max_size=100),
)
def test_some_are_always_let_in_never_more_than_the_most_and_bulk_is_refused_first(
    most: int, ticks: list[tuple[float, int]]
) -> None:
    told: list[bool] = []
    overload = Overload(most, lambda one: told.append(one.shedding))
    for lag_s, busy in ticks:
        before = overload.allowed
        overload.tick(lag_s, busy)
        assert min(LEAST, most) <= overload.allowed <= most
        if lag_s < LATE_S:
            assert overload.allowed >= before
        for number in (0, overload.allowed - 1, overload.allowed, busy):
            assert overload.refuses(number, bulk=False) is (number >= overload.allowed)
            assert overload.refuses(number, bulk=True) or not overload.refuses(number, bulk=False)
        assert not overload.refuses(0, bulk=True)
    assert told == [number % 2 == 0 for number in range(len(told))], "began and ended in turn"
    assert bool(told and told[-1]) is overload.shedding


def test_bulk_begins_slowly_grows_while_it_is_used_and_yields_before_anybody_feels_it() -> None:
    abreast = BULK_FIRST
    for _ in range(30):
        abreast = abreast_after(abreast, 256, abreast, 0.0)
    assert abreast == 256
    assert abreast_after(256, 256, 256, BULK_LATE_S) == 192
    assert abreast_after(256, 256, 40, BULK_LATE_S) == 30, "what did not run is no measure"
    assert abreast_after(256, 256, 40, 0.0) == 40, "and after a pause it begins slowly again"
    assert abreast_after(256, 256, 0, 0.0) == BULK_FIRST


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1, allow_nan=False)), max_size=60),
)
def test_bulk_is_never_more_than_its_places_nor_shut_out(most: int, ticks: list[tuple[int, float]]) -> None:
    abreast = min(most, BULK_FIRST)
    for running, lag_s in ticks:
        before = abreast
        abreast = abreast_after(abreast, most, min(running, before), lag_s)
        assert min(most, BULK_LEAST) <= abreast <= most
        assert abreast <= before or lag_s < BULK_LATE_S
