"""`wardgate usage receipt` and `wardgate ledger check`, over rows that were written as the gateway writes them."""

import asyncio
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from gateway.opening import open_keystore
from gateway.receipts import record_of
from gateway.rules import load_rules
from gateway.settings import read_settings
from keystore.errors import DecisionUnknown
from keystore.ledger_row import LedgerRow, State
from tests.gateway.commands import Commands

DAY = "2026-03-05"
FIRST, UNPRICED, REFUSED, DIED = ("req_" + digit * 32 for digit in "1235")
LINES = [["input", "1000", "0.0000003", 300_000], ["output", "7", "0.000001200000001", 8_400]]
TRIED = [["openai", "gpt-4o", "rate_limited", 429, 7], ["minimax", "MiniMax-M2", "ok", 200, 9]]


def row(request_id: str, detail: dict[str, object], **fields: object) -> LedgerRow:
    facts: dict[str, object] = {
        **{"request_id": request_id, "tenant_id": "acme", "token_id": "AAAAAAAAAAAA", "endpoint": "chat_completions"},
        **{"began_at": datetime(2026, 3, 5, 8, tzinfo=UTC), "state": State.SETTLED, "outcome": "ok", "status": 200},
        "detail": orjson.dumps(detail).decode(),
    }
    asked: dict[str, object] = {"provider": "minimax", "model": "MiniMax-M2", "key_source": "byok", "key_via": "former"}
    asked |= {"setting_key": "MINIMAX_2_7_API_KEY", "catalogue": "release-7", "attempts": 1}
    return LedgerRow(**facts | (asked if fields.get("attempts") != 0 else {}) | fields)  # type: ignore[arg-type]


ROWS = (
    row(FIRST, {"lines": LINES, "attempts": TRIED, "dropped": ["seed"]}, attempts=2, cost_nano=308_400),
    row(UNPRICED, {"lines": [LINES[0], ["output", "5", None, None]]}, state=State.ESTIMATED),
    row(DIED, {}, attempts=0, state=State.ESTIMATED, outcome="lost", status=0, cost_nano=603_900,
        provider="minimax", model="MiniMax-M2", key_source="byok", key_via="former", setting_key="MINIMAX_API_KEY"),
    row(REFUSED, {"lines": []}, attempts=0, state=State.RELEASED, outcome="refused", status=403, cost_nano=0),
)  # fmt: skip


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command line over a database with a tenant and three rows."""
    made = Commands(tmp_path, monkeypatch)

    async def begin() -> None:
        settings = read_settings(os.environ)
        keystore = await open_keystore(settings, load_rules(settings), create=True)
        await keystore.tenants.add("acme", "team", id="acme")
        await keystore.ledger.write("j", 0, ROWS)
        await keystore.close()

    asyncio.run(begin())
    return made


def test_receipt_tells_lines_attempts_key_release_and_total(cli: Commands) -> None:
    found = cli.json("usage", "receipt", FIRST)
    assert isinstance(found, dict)
    assert (found["tenant"], found["began_at"]) == ("acme", "2026-03-05T08:00:00+00:00")
    assert [list(line.values()) for line in found["lines"]] == [
        [*LINES[0], "0.0003"],
        [*LINES[1], "0.0000084"],
    ]
    assert sum(line["cost_nano"] for line in found["lines"]) == found["cost_nano"] == 308_400
    assert [list(one.values())[:5] for one in found["attempts"]] == TRIED
    told = cli("usage", "receipt", FIRST)
    for words in (
        f"Request {FIRST} of acme came 2026-03-05 08:00:00 UTC and ended ok.",
        "Asked last: minimax/MiniMax-M2 with the key byok:former, stored as MINIMAX_2_7_API_KEY.",
        "Left out of the request: seed.",
        "rate_limited  429",
        "0.000001200000001",
        "Total: 0.0003084 USD; the provider counted. Prices: release-7.",
    ):
        assert words in told, told


def test_receipt_says_what_is_not_known(cli: Commands) -> None:
    told = cli("usage", "receipt", UNPRICED)
    assert "Total: unknown, 0.0003 USD without what has no price; nobody counted all of it" in told
    assert "unknown" in next(line for line in told.splitlines() if line.startswith("output"))
    told = cli("usage", "receipt", REFUSED)
    assert "No provider was asked." in told and "Total: 0 USD; nothing was used. Prices: none." in told
    assert "the ledger has no row of this request id" in cli("usage", "receipt", "req_" + "9" * 32, code=1)


def test_receipt_of_a_request_whose_process_died_says_what_is_booked(cli: Commands) -> None:
    told = cli("usage", "receipt", DIED)
    assert "died before it ended" in told
    assert "In no line: 0.0006039 USD, which the call was expected to cost before it was made." in told
    assert "Total: 0.0006039 USD; nobody counted all of it, so it is estimated." in told
    assert "No provider was asked" not in told and "Nothing is charged" not in told
    found = cli.json("usage", "receipt", DIED)
    assert isinstance(found, dict)
    assert (found["lines"], found["unlisted_nano"], found["cost_nano"]) == ([], 603_900, 603_900)
    whole = cli.json("usage", "receipt", FIRST)
    assert isinstance(whole, dict) and (whole["unlisted_nano"], whole["unlisted_usd"]) == (None, None)


def test_request_without_a_decision_is_told_from_its_row(cli: Commands) -> None:
    record = cli.json("explain", "--request", FIRST)
    assert isinstance(record, dict)
    assert (record["tenant"], record["decision"], record["receipt"]["cost_nano"]) == ("acme", None, 308_400)
    assert [one["outcome"] for one in record["attempts"]] == ["rate_limited", "ok"]
    told = cli("explain", "--request", FIRST)
    assert "It ended ok with status 200." in told
    assert f"kept no longer. What it cost: wardgate usage receipt {FIRST}" in told
    assert "no decision is kept" in cli("explain", "--request", "req_" + "9" * 32, code=1)


def test_request_that_ended_just_now_waits_for_its_decision(cli: Commands) -> None:
    """Else it would be told without one, and a moment later with it."""

    async def told(after: timedelta) -> bytes:
        settings = read_settings(os.environ)
        keystore = await open_keystore(settings, load_rules(settings), create=False)
        try:
            return await record_of(keystore, FIRST, now=lambda: ROWS[0].began_at + after)
        finally:
            await keystore.close()

    assert orjson.loads(asyncio.run(told(timedelta(seconds=11))))["id"] == FIRST
    with pytest.raises(DecisionUnknown):
        asyncio.run(told(timedelta(seconds=9)))


def test_options_of_usage_before_receipt_are_refused(cli: Commands) -> None:
    assert "mean nothing before `receipt`" in cli("usage", "--tenant", "acme", "receipt", FIRST, code=2)
    assert cli("usage", "--day", DAY, "--by", "model").startswith("Usage from 2026-03-05")


def test_rejected_rows_are_shown_and_tried_again(cli: Commands) -> None:
    assert "No row was rejected." in cli("ledger", "rejected")
    late = row("req_" + "4" * 32, {"lines": LINES}, cost_nano=308_400)
    folder = Path("journal")
    folder.mkdir(exist_ok=True)
    said = {"at": "2026-03-05T08:00:01Z", "journal": "j", "position": 7, "why": "DataError"}
    (folder / "rejected.jsonl").write_bytes(orjson.dumps(said | {"line": late.line().decode()}) + b"\n")
    told = cli("ledger", "rejected", code=3)
    assert "DataError" in told and "0.0003084" in told and "missing" in told
    assert "2026-03-05T08:00:00+00:00" in told and late.request_id in told
    for _ in range(2):
        (found,) = orjson.loads(cli("ledger", "rejected", "--replay", "--json"))
        assert (found["standing"], found["cost_nano"]) == ("written", 308_400)
    assert cli.json("usage", "receipt", late.request_id)
    assert "to the nano-dollar" in cli("ledger", "check", "--day", DAY)


def test_ledger_agrees_with_usage_until_somebody_changes_it(cli: Commands) -> None:
    said = cli("ledger", "check", "--day", DAY)
    assert said == (
        "The usage of 2026-03-05 is the sum of the ledger's rows, and that of 2026-03 is the sum of its days, to the"
        " nano-dollar.\n"
    )
    assert cli.json("ledger", "check", "--day", DAY) == {
        **{"day": DAY, "rows_kept": True, "agrees": True, "differences": []},
    }
    with closing(sqlite3.connect("w.db")) as database, database:
        one = "period = 'day' AND outcome = 'ok' AND cost_nano > 0"
        database.execute(f"UPDATE wardgate_usage SET cost_nano = cost_nano + 1 WHERE {one}")
    told = cli("ledger", "check", "--day", DAY, code=3)
    assert "2 sums of 2026-03-05 or its month differ" in told and "cost_nano  308400    308401" in told
    found = orjson.loads(cli("ledger", "check", "--day", DAY, "--json", code=3))
    assert found["agrees"] is False
    costs = {one["period"]: (one["parts"]["cost_nano"], one["usage"]["cost_nano"]) for one in found["differences"]}
    assert costs == {"day": (308_400, 308_401), "month": (308_401, 308_400)}
    assert "date such as" in cli("ledger", "check", "--day", "yesterday", code=1)
    assert "to the nano-dollar" in cli("ledger", "check")
