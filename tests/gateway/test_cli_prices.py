"""`wardgate price` as an operator uses it, over a list in a file."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.root import app
from gateway.opening import open_keystore
from gateway.rules import load_rules
from gateway.settings import read_settings
from keystore.errors import PriceConflict, PriceReleaseUnknown
from tests.prices import JUMPS, M2, begin_with_few, published, times

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process over a database with forty rows live, as release 1."""
    environment = {"DATABASE_URL": "sqlite+aiosqlite:///w.db", "SEALING_KEYS_FILE": "keys", "CONFIG": "wardgate.toml"}
    for name, value in environment.items():
        monkeypatch.setenv(f"WARDGATE_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    Path("wardgate.toml").write_text('[prices]\nurls = ["file:prices.json"]\n')

    async def begin() -> None:
        settings = read_settings(os.environ)
        keystore = await open_keystore(settings, load_rules(settings), create=True)
        await keystore.tenants.add("acme", "team")
        await begin_with_few(keystore)
        await keystore.close()

    asyncio.run(begin())

    def command(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["price", *arguments], env=dict(os.environ))
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    return command


def of(text: str) -> Any:
    return json.loads(text)


def test_release_from_refresh_to_roll_back(run: Run) -> None:
    assert "No list was asked for yet." in run("status")
    broken: dict[str, object] = {"input_cost_per_token": -1}
    added: dict[str, object] = {"litellm_provider": "minimax", "mode": "chat"}
    content = published(
        **{M2: times(M2, "2"), JUMPS: times(JUMPS, "10"), "gpt-4o": broken, "minimax/MiniMax-New": added}
    )
    Path("prices.json").write_bytes(content)
    said = run("refresh", code=3)
    assert "Live: release 2, approved by the rule within-bounds." in said
    assert "1 added, 1 repriced, 2 waiting" in said and "2 rows wait: wardgate price show 2" in said

    shown = run("show", "2")
    assert "input_cost_per_token is negative" in shown and "went from 0.0000003 to 0.000003" in shown
    changed = run("diff", "2")
    assert "0.0000003  0.0000006  2.0000" in changed and "Added: minimax/MiniMax-New." in changed
    document = of(run("diff", "2", "--json"))
    assert document["counts"]["repriced"] == 1 and document["changed"][0]["factor"] == "2.0000"

    assert "Release 3 is live." in run("approve", "2", "--row", JUMPS)
    with pytest.raises(PriceConflict, match="only one that is staged"):
        run("approve", "3")
    assert [(one["release"], one["state"]) for one in of(run("list", "--json"))] == [
        (3, "live"),
        (2, "superseded"),
        (1, "superseded"),
    ]
    assert "operator" in run("list")
    status = of(run("status", "--json"))
    assert (status["live"]["release"], status["replicas"]) == (3, [])
    assert [row["name"] for row in status["waiting_rows"]] == ["gpt-4o"]
    assert "1 row waits: `wardgate price show 3`" in run("status")
    assert "Nothing changed: price release 3 is the same." in run("refresh", code=3)

    assert of(run("rollback", "--json"))["release"] == 2
    assert run("rollback", "bundled").startswith("Live: bundled-")
    assert "Live: release-3-" in run("rollback", "3")
    assert "rolled_back by operator" in run("as-of", "2100-01-01T00:00:00Z")
    assert "no release had been live by then" in run("as-of", "2020-01-01T00:00:00+01:00")
    assert of(run("as-of", "2100-01-01T00:00:00Z", "--json"))["release"] == 3


def test_staged_release_is_rejected(run: Run) -> None:
    Path("wardgate.toml").write_text('[prices]\nurls = ["file:prices.json"]\nauto_approve = "never"\n')
    Path("prices.json").write_bytes(published(**{M2: times(M2, "2")}))
    assert "Staged: release 2. To look: wardgate price diff 2" in run("refresh")
    assert "Staged: release 2" in run("status")
    assert of(run("reject", "2", "--json"))["state"] == "refused"
    assert "rejected by operator" in run("list")
    assert of(run("refresh", "--json"))["release"]["release"] == 3
    assert "Release 3 is live." in run("approve", of(run("show", "3", "--json"))["version"])


def test_list_that_is_refused_says_so(run: Run) -> None:
    Path("prices.json").write_text("{}")
    said = run("refresh", code=1)
    assert "it holds no model" in said and "What was live stays live." in said
    Path("prices.json").write_bytes(published(**dict.fromkeys([M2, JUMPS])))
    assert "2 rows wait" in run("refresh", code=3)
    Path("prices.json").write_text("{")
    assert of(run("refresh", "--json", code=1))["sources"][0]["outcome"] == "refused"


def test_what_is_named_wrongly_is_said(run: Run) -> None:
    for named in ("77", "the last"):
        with pytest.raises(PriceReleaseUnknown):
            run("show", named)
    for moment in ("yesterday", "2026-11-20T12:00:00"):
        run("as-of", moment, code=2)
