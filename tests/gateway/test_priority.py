"""Who may say that a request is bulk, and who may not say otherwise."""

import pytest

from gateway.errors import ApiError
from gateway.priority import Priority, is_bulk, said

B, I = Priority.BULK, Priority.INTERACTIVE  # noqa: E741


def scope(*values: bytes) -> dict[str, object]:
    return {"headers": [(b"accept", b"x"), *((b"x-wardgate-priority", value) for value in values)]}


@pytest.mark.parametrize(
    ("values", "found"), [((), None), ((b"bulk",), B), ((b" Bulk ",), B), ((b"interactive",), I), ((b"bulk",) * 2, B)]
)
def test_header_is_one_of_two_words(values: tuple[bytes, ...], found: Priority | None) -> None:
    assert said(scope(*values)) is found


@pytest.mark.parametrize("values", [(b"",), (b"high",), (b"bulk, bulk",), (b"bulk", b"interactive"), (b"\xff",)])
def test_any_other_word_is_refused_with_the_two(values: tuple[bytes, ...]) -> None:
    with pytest.raises(ApiError, match=r"`bulk` or `interactive`") as caught:
        said(scope(*values))
    assert (caught.value.problem.status, caught.value.problem.param) == (400, "x-wardgate-priority")


@pytest.mark.parametrize(
    ("wanted", "token", "tier", "bulk"),
    [
        (None, False, None, False),
        (None, False, "flex", True),
        (None, False, ["flex"], False),
        (I, False, "flex", False),
        (B, False, "default", True),
        (I, True, "default", True),
        (None, True, None, True),
    ],
)
def test_token_goes_before_header_and_header_before_tier(
    wanted: Priority | None, token: bool, tier: object, bulk: bool
) -> None:
    assert is_bulk(wanted, token=token, tier=tier) is bulk
