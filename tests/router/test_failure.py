"""What follows from each kind of failure."""

import pytest

from router.failure import CONSEQUENCES, Failure, FailureKind
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
