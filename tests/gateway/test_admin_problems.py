"""The table from the keystore's errors to answers."""

import pytest

from gateway.admin.problems import TABLE, TooManyTenants, problem_of, texts_in
from gateway.control.gate import NotAllowed
from gateway.errors import TYPE_OF_STATUS
from keystore import errors
from router.reasons import Fault

# Never met by an operation of the API: they stop the start, or have an answer of their own.
ELSEWHERE = {
    errors.KeystoreError,
    errors.TenantError,
    errors.TokenError,
    errors.TokenRefused,
    errors.CredentialUnusable,
    errors.IdempotencyError,
}


def every(kind: type[errors.KeystoreError]) -> list[type[errors.KeystoreError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in every(child))]


OURS = ("keystore.errors", "gateway.admin.problems", "gateway.control.gate")
MET = [kind for kind in every(errors.KeystoreError) if kind.__module__ in OURS and kind not in ELSEWHERE]


@pytest.mark.parametrize("kind", MET, ids=[kind.__name__ for kind in MET])
def test_every_error_has_its_answer(kind: type[errors.KeystoreError]) -> None:
    problem = problem_of(kind("what was sent"), ["what was sent"])
    assert problem.code != "internal_error", "a row is missing in gateway.admin.problems.TABLE"
    assert "what was sent" not in problem.message.lower()
    assert problem.body()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotAllowed(), 403, "not_allowed"),
        (TooManyTenants(), 409, "too_many_tenants"),
        (errors.TenantUnknown(), 404, "tenant_unknown"),
        (errors.TenantExists(), 409, "tenant_exists"),
        (errors.CredentialConflict(), 409, "key_conflict"),
        (errors.SealingRefused(), 409, "sealing_refused"),
        (errors.RingMissing(), 503, "sealing_unavailable"),
        (errors.DatabaseUnavailable(), 503, "keystore_unavailable"),
        (errors.IdempotencyBusy(), 409, "idempotency_in_progress"),
        (errors.KeystoreError(), 500, "internal_error"),
    ],
)
def test_status_and_word(error: errors.KeystoreError, status: int, code: str) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code) == (status, code)
    assert (problem.fault is Fault.GATEWAY) == (status >= 500)


def test_outage_says_when_to_ask_again() -> None:
    headers = problem_of(errors.DatabaseUnavailable()).response_headers()
    assert (headers["retry-after"], headers["x-should-retry"]) == ("2", "true")


def test_own_words_are_told_unless_they_repeat_the_body() -> None:
    error = errors.CredentialRefused("the label Zebra is no label")
    assert problem_of(error, [{"value": "x"}]).message == "The label Zebra is no label."
    for body in ({"label": "Zebra"}, {"Zebra": 1}, [["Zebra"]]):
        assert "Zebra" not in problem_of(error, [body]).message


def test_texts_are_found_at_any_depth() -> None:
    assert set(texts_in({"one": ["two", {"three": "four"}, 5, None, "ab"]})) == {"one", "two", "three", "four"}


def test_table_has_known_statuses_and_sentences() -> None:
    for row in TABLE.values():
        assert row.status in TYPE_OF_STATUS
        assert row.sentence.endswith(".")
    assert len({row.code for row in TABLE.values()}) == len(TABLE)
