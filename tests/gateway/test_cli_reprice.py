"""`wardgate usage reprice`: what was used, at the prices of another release; the ledger stays as it is."""

import asyncio
import csv
import io
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.opening import open_keystore
from gateway.rules import load_rules
from gateway.settings import read_settings
from keystore.ledger_row import LedgerRow, State
from keystore.price_releases import NewRelease
from router.price_release import pack
from tests.gateway.commands import Commands

PRICES = {"input_cost_per_token": Decimal("0.0000005"), "output_cost_per_token": Decimal("0.000002")}
RELEASE = {"minimax/MiniMax-M2": {"litellm_provider": "minimax", "mode": "chat"} | PRICES}
LINES = [["input", "1000", "0.0000003", 300_000], ["output", "7", "0.0000012", 8_400]]
FAILED = ["minimax", "MiniMax-M2", "timeout", None, 9, 3_000, [["input", "10", "0.0000003", 3_000]], "default"]
OK = ["minimax", "MiniMax-M2", "ok", 200, 9, 308_400]
TIME = ("--from", "2026-03-01", "--to", "2026-04-01")


def row(number: int, detail: dict[str, object], cost_nano: int | None, **fields: object) -> LedgerRow:
    facts: dict[str, object] = {
        **{"request_id": f"req_{number:032x}", "tenant_id": "acme", "token_id": "A" * 12, "endpoint": "chat"},
        **{"began_at": datetime(2026, 3, 5, number, tzinfo=UTC), "state": State.SETTLED, "outcome": "ok"},
        **{"provider": "minimax", "model": "MiniMax-M2", "cost_nano": cost_nano},
        "detail": orjson.dumps(detail).decode(),
    }
    return LedgerRow(**facts | fields)  # type: ignore[arg-type]


ROWS = [
    row(1, {"lines": LINES}, 308_400),
    row(2, {"lines": LINES, "attempts": [FAILED, OK]}, 311_400, state=State.ESTIMATED),
    row(3, {"lines": LINES}, 308_400, model="gone"),
    row(4, {"lines": [LINES[0], ["output", "7", None, None]]}, None, tenant_id="beta"),
    row(5, {}, 70_000, state=State.ESTIMATED, outcome="lost"),
    row(6, {"lines": []}, None),  # it searched
    row(7, {"lines": []}, 0, state=State.RELEASED),
    row(8, {"lines": LINES}, 308_400, began_at=datetime(2026, 4, 1, tzinfo=UTC)),
]
SAME, WITH_FAILED = 500_000 + 14_000, 500_000 + 14_000 + 5_000


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands(tmp_path, monkeypatch)

    async def begin() -> None:
        settings = read_settings(os.environ)
        keystore = await open_keystore(settings, load_rules(settings), create=True)
        for slug in ("acme", "beta"):
            await keystore.tenants.add(slug, "team", id=slug)
        await keystore.ledger.write("j", 0, ROWS)
        packed = pack(RELEASE)
        await keystore.prices.stage(NewRelease(packed.content, packed.digest, packed.rows, None, "bundled"), "test")
        await keystore.close()

    asyncio.run(begin())
    return made


def ledger() -> list[Any]:
    with closing(sqlite3.connect("w.db")) as database:
        return database.execute("SELECT * FROM wardgate_ledger ORDER BY 1").fetchall()


def test_report_tells_both_costs_their_difference_and_what_cannot_be_compared(cli: Commands) -> None:
    before = ledger()
    found: Any = cli.json("usage", "reprice", "--release", "1", *TIME)
    total = found["total"]
    assert (total["requests"], total["compared_requests"], total["unpriced_requests"]) == (6, 2, 1)
    assert nano(total, "cost_usd") == 308_400 + 311_400
    assert nano(total, "other_cost_usd") == SAME + WITH_FAILED
    assert nano(total, "difference_usd") == SAME + WITH_FAILED - 619_800
    assert (total["only_then_requests"], nano(total, "only_then_cost_usd")) == (2, 308_400 + 70_000)
    assert (total["only_other_requests"], nano(total, "only_other_cost_usd")) == (1, SAME)
    assert [(one["provider"], one["model"], one["requests"]) for one in found["rows"]] == [
        ("minimax", "MiniMax-M2", 5),
        ("minimax", "gone", 1),
    ]
    assert {name: sum(nano(one, name) for one in found["rows"]) for name in total if name.endswith("usd")} == {
        name: nano(total, name) for name in total if name.endswith("usd")
    }
    assert ledger() == before, "a report, never a rewrite"
    used: Any = cli.json("usage", "--month", "2026-03")
    assert nano(used["total"], "cost_usd") == nano(total, "cost_usd") + nano(total, "only_then_cost_usd")


def nano(told: Any, name: str) -> int:
    return int(Decimal(told[name]).scaleb(9))


def test_report_is_of_one_tenant_for_people_and_for_spreadsheets(cli: Commands) -> None:
    beta: Any = cli.json("usage", "reprice", "--release", "1", "--tenant", "beta", "--month", "2026-03")
    assert (beta["total"]["requests"], beta["total"]["only_other_requests"]) == (1, 1)
    told = cli("usage", "reprice", "--release", "1", *TIME)
    for words in (
        "What was used from 2026-03-01 until 2026-04-01, UTC, at the prices of release-1-",
        "minimax/MiniMax-M2  5         2         0.0006198  0.001033   0.0004132",
        "2 requests that cost 0.0003784 USD cannot be priced again: ",
        "1 request whose cost nobody knew would cost 0.000514 USD.",
        "The cost of 1 request is not known either way.",
    ):
        assert words in told, told
    (first, *_) = csv.DictReader(io.StringIO(cli("usage", "reprice", "--release", "1", *TIME, "--csv")))
    assert (first["model"], first["difference_usd"]) == ("MiniMax-M2", "0.0004132")
    assert "Nothing was used" in cli("usage", "reprice", "--release", "bundled", "--day", "2026-01-01")


def test_what_cannot_be_asked_is_said(cli: Commands) -> None:
    assert "there is no price release 9" in cli("usage", "reprice", "--release", "9", code=1)
    assert "named by its number" in cli("usage", "reprice", "--release", "next", code=1)
    assert "two forms" in cli("usage", "reprice", "--release", "1", "--json", "--csv", code=2)
    assert "--day: it must be a date" in cli("usage", "reprice", "--release", "1", "--day", "x", code=1)
