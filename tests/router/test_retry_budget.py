"""The retry budget: a tenth of the requests or the floor, whichever is more, in any ten seconds."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.retry_budget import RetryBudget


def extras(budget: RetryBudget, times: Iterable[float], each: int = 2) -> int:
    """How many extra attempts are made when every request at these times wants `each`."""
    made = 0
    for now in times:
        budget.request(now)
        for _ in range(each):
            if budget.left(now):
                budget.take(now)
                made += 1
    return made


def test_quiet_gateway_may_fail_over() -> None:
    assert extras(RetryBudget(), [0.0] * 5) == 10


def test_outage_of_everything_costs_a_tenth_more() -> None:
    """RELIABILITY G7 in small: 200 requests a second for 60 s, every attempt fails."""
    times = [number / 200 for number in range(200 * 60)]
    assert extras(RetryBudget(), times) <= 0.10 * len(times) + 10


def test_budget_comes_back_when_time_goes_on() -> None:
    budget = RetryBudget()
    assert extras(budget, [0.0] * 20) == 10
    assert not budget.left(9.9)
    assert budget.left(10.0)
    assert extras(budget, [10.0] * 20) == 10


@pytest.mark.parametrize(("replicas", "floor"), [(1, 10), (2, 5), (4, 2), (100, 1), (0, 10)])
def test_floor_is_divided_among_the_processes(replicas: int, floor: int) -> None:
    budget = RetryBudget()
    budget.replicas = replicas
    assert extras(budget, [0.0] * 9) == floor


@given(st.lists(st.floats(0, 60), max_size=300).map(sorted))
def test_no_ten_seconds_have_more_than_the_budget(times: list[float]) -> None:
    budget, made = RetryBudget(), list[int]()
    for now in times:
        budget.request(now)
        if budget.left(now):
            budget.take(now)
            made.append(int(now))
    for end in range(60):
        inside = sum(end - 10 < second <= end for second in made)
        asked = sum(end - 10 < int(now) <= end for now in times)
        assert inside <= max(10, 0.1 * asked)
