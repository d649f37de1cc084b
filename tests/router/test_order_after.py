"""Who is asked next after a failure: rows of failed kind, remaining providers, and the order that follows."""

import pytest

from router.failure import Failure, FailureKind
from router.retry import order_after

ROWS = [
    (FailureKind.SERVER_ERROR, ["a", "a", "b", "a", "c"], [2, 4, 0, 1, 3]),
    (FailureKind.TIMEOUT, ["a", "b"], [1, 0]),
    (FailureKind.RATE_LIMITED, ["a", "a"], [0, 1]),
    (FailureKind.MALFORMED, ["b", "a"], [0, 1]),
    (FailureKind.TRUNCATED, ["a", "b"], [1, 0]),
    (FailureKind.KEY_REJECTED, ["a", "b", "a"], [1]),
    (FailureKind.CONNECT, ["a", "a"], []),
    (FailureKind.MODEL_UNAVAILABLE, ["a", "b"], [0, 1]),
    (FailureKind.UNSUPPORTED_PARAMETER, ["a", "b", "a"], [0, 1, 2]),
]


@pytest.mark.parametrize(("kind", "providers", "order"), ROWS)
def test_another_provider_is_asked_first_when_this_one_is_in_trouble(
    kind: FailureKind, providers: list[str], order: list[int]
) -> None:
    assert order_after(Failure(kind, "a", "m"), providers) == order


def test_the_order_that_the_request_names_is_kept() -> None:
    failure = Failure(FailureKind.SERVER_ERROR, "a", "m")
    assert order_after(failure, ["a", "b"], in_order=True) == [0, 1]
    assert order_after(Failure(FailureKind.CONNECT, "a", "m"), ["a", "b", "a"], in_order=True) == [1]
