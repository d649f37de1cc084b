"""When Redis is asked, when it is left alone, and how it comes back."""

import pytest

from gateway.limiting.breaker import RETURNING_S, TRIALS, Breaker, State
from tests.gateway.limiting.test_limiter import Clock


class Heard:
    """A breaker, and what it told."""

    def __init__(self, chance: float = 0.0) -> None:
        self.clock = Clock()
        self.told: list[tuple[State, str]] = []
        self.breaker = Breaker(self.clock, lambda: chance, lambda state, why: self.told.append((state, why)))

    def state(self) -> State:
        return self.breaker.state

    def is_due(self) -> bool:
        return self.breaker.is_due

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.failed("TimeoutError")


def test_breaker_opens_after_failures_in_a_row_and_no_sooner() -> None:
    heard = Heard()
    heard.fail(TRIALS - 1)
    heard.breaker.answered()
    heard.fail(TRIALS - 1)
    assert heard.state() is State.CLOSED
    heard.fail(1)
    assert heard.state() is State.OPEN
    assert heard.told == [(State.OPEN, "TimeoutError")]


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 5.0), (0.5, 5.5), (1.0, 6.0)])
def test_trial_is_due_after_five_seconds_and_some_chance(chance: float, wait_s: float) -> None:
    heard = Heard(chance)
    heard.fail(TRIALS)
    heard.clock.now += wait_s - 0.01
    assert not heard.is_due()
    assert heard.breaker.next_trial_ms in (9, 10)
    heard.clock.now += 0.02
    assert heard.is_due()
    heard.fail(1)
    assert not heard.is_due()


def test_return_ends_by_itself_and_one_failure_ends_it_at_once() -> None:
    heard = Heard()
    heard.fail(TRIALS)
    heard.breaker.returned()
    heard.clock.now += RETURNING_S - 0.1
    assert heard.state() is State.RETURNING
    heard.clock.now += 0.2
    assert heard.state() is State.CLOSED
    heard.fail(TRIALS)
    heard.breaker.returned()
    heard.fail(1)
    assert [state for state, _ in heard.told] == [
        State.OPEN, State.RETURNING, State.CLOSED, State.OPEN, State.RETURNING, State.OPEN,
    ]  # fmt: skip
