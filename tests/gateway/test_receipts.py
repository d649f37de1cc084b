"""What a receipt says of a row of the ledger, and what it does not claim to know."""

from datetime import UTC, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.receipts import receipt
from keystore.ledger_row import LedgerRow, State

BEGAN = datetime(2026, 11, 21, 8, tzinfo=UTC)


def row(**fields: object) -> LedgerRow:
    facts: dict[str, object] = {
        **{"request_id": "req_" + "1" * 32, "began_at": BEGAN, "tenant_id": "acme", "token_id": "t", "endpoint": "x"},
        **{"state": State.SETTLED, "outcome": "ok", "status": 200, "provider": "openai", "model": "gpt-4o"},
        **{"attempts": 1, "upstream_ms": 12, "cost_nano": 0},
    }
    return LedgerRow(**facts | fields)  # type: ignore[arg-type]


def detail(**fields: object) -> str:
    return orjson.dumps({"lines": []} | fields).decode()


LINES = st.lists(st.tuples(st.sampled_from(["input", "output"]), st.integers(1, 9**9).map(str), st.just("0.1"),
                           st.integers(0, 10**15)), max_size=6)  # fmt: skip


@given(LINES)
def test_lines_add_up_to_the_total_to_the_nano_dollar(lines: list[tuple[str, str, str, int]]) -> None:
    told = receipt(row(cost_nano=sum(line[3] for line in lines), detail=detail(lines=lines)))
    assert sum(line["cost_nano"] for line in told["lines"]) == told["cost_nano"]
    assert [(one["class"], one["units"], one["price_usd"], one["cost_nano"]) for one in told["lines"]] == lines


def test_what_no_line_says_is_told_beside_them() -> None:
    """Of a process that died: what was booked for its call."""
    lost = receipt(row(outcome="lost", state=State.ESTIMATED, status=0, attempts=0, cost_nano=603_900))
    assert (lost["lines"], lost["unlisted_nano"], lost["unlisted_usd"]) == ([], 603_900, "0.0006039")
    failed = [["openai", "gpt-4o", "timeout", None, 7, 40, [["input", "1", "0.00000004", 40]]]]
    told = receipt(row(cost_nano=100, detail=detail(lines=[["input", "10", "0.000000006", 60]], attempts=failed)))
    assert (told["unlisted_nano"], told["unlisted_usd"]) == (None, None)


def test_what_nobody_knows_is_null_and_never_zero() -> None:
    lines = [["input", "10", "0.000001", 10_000], ["output", "5", None, None]]
    told = receipt(row(cost_nano=None, detail=detail(lines=lines)))
    assert (told["cost_nano"], told["cost_usd"]) == (None, None)
    assert [(one["cost_nano"], one["cost_usd"]) for one in told["lines"]] == [(10_000, "0.00001"), (None, None)]


def test_attempts_are_told_as_far_as_the_row_knows_them() -> None:
    tried = [["openai", "gpt-4o", "rate_limited", 429, 7], ["minimax", "M2", "ok", 200, 9]]
    named = receipt(row(attempts=2, detail=detail(attempts=tried, dropped=["seed"])))
    assert [tuple(one.values())[:5] for one in named["attempts"]] == [tuple(one) for one in tried]
    assert [(one["cost_nano"], one["lines"]) for one in named["attempts"]] == [(None, []), (None, [])]  # it is not said
    assert named["dropped"] == ["seed"]
    only = receipt(row(detail=detail()))["attempts"]
    assert [tuple(one.values())[:6] for one in only] == [("openai", "gpt-4o", "ok", 200, 12, 0)]
    lost = receipt(row(outcome="cut", state=State.ESTIMATED, status=0))["attempts"]  # its process died: no detail
    assert [tuple(one.values())[:5] for one in lost] == [("openai", "gpt-4o", None, None, 12)]
    assert receipt(row(attempts=0, outcome="refused", status=403, detail=detail()))["attempts"] == []
