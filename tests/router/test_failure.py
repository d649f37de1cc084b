"""What follows from each kind of failure."""

import pytest

from router.failure import CANCELLED, CHARGED_FROM, CONSEQUENCES, Failure, FailureKind, Reached, perhaps_charged
from tests.router.vectors import Row, rows, vectors


@pytest.mark.parametrize("row", rows("retry", "consequence", "kind"))
def test_a_kind_has_its_consequence(row: Row) -> None:
    found = Failure(FailureKind(row["kind"]), "minimax", "MiniMax-M2").consequence
    assert {
        "kind": row["kind"],
        "fault": found.fault.value,
        "status": found.status,
        "code": found.code,
        "try_next": found.try_next,
        "caller_may_retry": found.caller_may_retry,
    } == row


def test_every_kind_has_a_consequence_and_a_row() -> None:
    assert set(CONSEQUENCES) == set(FailureKind)
    assert {row["kind"] for row in vectors("retry")["consequence"]} == {kind.value for kind in FailureKind}


def test_no_consequence_takes_the_gateways_own_401() -> None:
    assert 401 not in {each.status for each in CONSEQUENCES.values()}


def test_codes_are_words_and_differ() -> None:
    codes = [each.code for each in CONSEQUENCES.values()]
    assert len(set(codes)) == len(codes)


REFUSED_BEFORE_WORK = (
    FailureKind.CONNECT,
    FailureKind.RATE_LIMITED,
    FailureKind.KEY_REJECTED,
    FailureKind.KEY_UNUSABLE,
    FailureKind.MODEL_UNAVAILABLE,
    FailureKind.BAD_REQUEST,
    FailureKind.CONTEXT_LENGTH,
    FailureKind.UNSUPPORTED_PARAMETER,
    FailureKind.QUOTA_EXHAUSTED,
    FailureKind.GATEWAY,
)


def test_every_kind_is_free_or_charged_from_somewhere_on() -> None:
    assert {*REFUSED_BEFORE_WORK, *map(FailureKind, CHARGED_FROM.keys() - {CANCELLED})} == set(FailureKind)
    assert not any(perhaps_charged(kind.value, reached) for kind in REFUSED_BEFORE_WORK for reached in Reached)


@pytest.mark.parametrize("reached", Reached)
def test_only_silence_is_charged_before_an_answer_and_no_error_status_is(reached: Reached) -> None:
    found = {word for word in CHARGED_FROM if perhaps_charged(word, reached)}
    expected = {
        Reached.UNSENT: set(),
        Reached.REFUSED: set(),
        Reached.SENT: {"timeout", "cancelled"},
        Reached.ANSWERED: {"timeout", "cancelled", "malformed", "truncated", "server_error", "content_filter"},
    }
    assert found == expected[reached]
    assert not perhaps_charged("ok", reached)
