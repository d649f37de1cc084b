"""Again, or stop; and which failure the caller is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bound_state import provider_bound
from router.failure import Failure, FailureKind
from router.retry import (
    MAX_ATTEMPTS,
    Progress,
    again,
    asks_to_wait,
    lets_former_stand_in,
    most_useful,
    pause_s,
    shares_fate,
    stop,
    wants_another_key,
)
from tests.router.vectors import Row, rows


def failure(kind: str, provider_id: str = "minimax") -> Failure:
    return Failure(FailureKind(kind), provider_id, "m")


@pytest.mark.parametrize("row", rows("retry", "again"))
def test_the_next_candidate_is_asked_or_not(row: Row) -> None:
    progress = Progress(
        attempts=row.get("attempts", 1),
        first_byte_sent=row.get("first_byte_sent", False),
        deadline_left_s=float(row.get("deadline_left_s", 30)),
        remaining_candidates=row.get("remaining_candidates", 1),
    )
    assert again(failure(row["kind"]), progress, max_attempts=row.get("max_attempts", MAX_ATTEMPTS)) is row["again"]


@pytest.mark.parametrize("row", rows("retry", "stop"))
def test_what_stands_against_another_attempt(row: Row) -> None:
    progress = Progress(
        attempts=row.get("attempts", 1),
        first_byte_sent=row.get("first_byte_sent", False),
        deadline_left_s=float(row.get("deadline_left_s", 30)),
        remaining_candidates=row.get("remaining_candidates", 1),
        bound=row.get("bound", False),
        budget_left=row.get("budget_left", True),
    )
    assert (stop(failure(row.get("kind", "server_error")), progress) or "") == row["why"]


def _asked(row: Row, kind: str) -> Failure:
    wait = row.get("wait")
    return Failure(
        FailureKind(row.get("kind", kind)), "minimax", "m", retry_after_s=None if wait is None else float(wait)
    )


@pytest.mark.parametrize("row", rows("retry", "pause"))
def test_pause_before_the_next_attempt(row: Row) -> None:
    found = pause_s(
        _asked(row, "server_error"),
        row.get("next", "minimax"),
        attempts=row.get("attempts", 1),
        other_key=row.get("other_key", False),
        jitter=0.5,
    )
    assert found == row["seconds"]


@pytest.mark.parametrize("row", rows("retry", "asks_to_wait"))
def test_a_short_wait_is_worth_it(row: Row) -> None:
    assert asks_to_wait(_asked(row, "rate_limited")) is row["asks"]


@pytest.mark.parametrize("row", rows("retry", "another_key"))
def test_the_tenants_next_key_is_worth_asking_with(row: Row) -> None:
    assert wants_another_key(failure(row["kind"])) is row["wants"]
    assert lets_former_stand_in(failure(row["kind"])) is row["former"]


@pytest.mark.parametrize("row", rows("retry", "bound"))
def test_a_request_is_bound_to_a_provider_or_not(row: Row) -> None:
    assert (provider_bound(json.loads(row["body"])) or "") == row["field"]


PROGRESS = st.builds(
    Progress,
    attempts=st.integers(1, 5),
    first_byte_sent=st.booleans(),
    deadline_left_s=st.floats(-5, 5),
    remaining_candidates=st.integers(0, 3),
    bound=st.booleans(),
    budget_left=st.booleans(),
)


@given(st.sampled_from(FailureKind), PROGRESS)
def test_again_means_that_nothing_stands_against_it(kind: FailureKind, progress: Progress) -> None:
    found = Failure(kind, "minimax", "m")
    if again(found, progress):
        assert not progress.first_byte_sent
        assert progress.attempts < MAX_ATTEMPTS
        assert progress.deadline_left_s > 0
        assert progress.remaining_candidates > 0
        assert found.consequence.try_next
        assert progress.budget_left and not progress.bound


@pytest.mark.parametrize("row", rows("retry", "shares_fate"))
def test_a_candidate_shares_the_fate_of_its_providers_key_and_way(row: Row) -> None:
    assert shares_fate(failure(row["kind"], "minimax"), row["provider"]) is row["shares"]


@pytest.mark.parametrize("row", rows("retry", "most_useful"))
def test_the_most_useful_failure_is_told(row: Row) -> None:
    failures = [failure(kind, f"provider-{place}") for place, kind in enumerate(row["kinds"])]
    assert most_useful(failures) is failures[row["first"]]


@given(st.lists(st.sampled_from(FailureKind), min_size=1, max_size=5))
def test_the_most_useful_failure_is_one_of_them(kinds: list[FailureKind]) -> None:
    failures = [Failure(kind, "minimax", "m") for kind in kinds]
    assert most_useful(failures) in failures


def test_there_is_no_most_useful_of_no_failures() -> None:
    with pytest.raises(ValueError, match="no failure"):
        most_useful([])
