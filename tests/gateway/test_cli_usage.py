"""`wardgate usage`: a table and a chart for people, JSON and CSV for their programs."""

import asyncio
import contextlib
import csv
import io
import itertools
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import CliRunner

from gateway.cli.bars import Bar, bar_lines
from gateway.cli.root import app
from gateway.config import ConfigError
from gateway.opening import open_keystore
from gateway.rules import load_rules
from gateway.settings import read_settings
from keystore.errors import TenantUnknown
from keystore.money_tables import usage
from tests.harness import run_cli
from tests.keystore.test_usage import row, with_months

Run = Callable[..., str]
URL = "sqlite+aiosqlite:///w.db"
ENVIRONMENT = {"WARDGATE_DATABASE_URL": URL, "WARDGATE_SEALING_KEYS_FILE": "keys"}
MARCH = ("--since", "2025-03-01", "--until", "2025-04-01")
EVIL = "=1\x1b[31m"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process, over a database with two tenants."""
    for name, value in (ENVIRONMENT | {"COLUMNS": "100"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    async def begin() -> None:
        settings = read_settings(os.environ)
        keystore = await open_keystore(settings, load_rules(settings), create=True)
        for slug in ("acme", "beta"):
            await keystore.tenants.add(slug, "team", id=slug)
        await keystore.close()

    asyncio.run(begin())

    def command(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["usage", *arguments], env=dict(os.environ))
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    return command


def used(*days: dict[str, Any]) -> None:
    async def write(rows: Sequence[dict[str, Any]]) -> None:
        engine = create_async_engine(URL)
        async with engine.begin() as connection:
            await connection.execute(insert(usage), rows)
        await engine.dispose()

    asyncio.run(write(with_months(days)))


def march(number: int, tenant: str = "acme", **values: Any) -> dict[str, Any]:
    return row(date(2025, 3, number), tenant, **values)


def test_people_see_a_table_and_a_bar_for_each_day(run: Run) -> None:
    used(
        march(1, cost_nano=10**9, requests=1_234, input_tokens=50, output_tokens=7),
        march(3, cost_nano=500_000_001, requests=2),
        march(3, "beta", cost_nano=500_000_000),
    )
    told = run(*MARCH)
    assert "Usage from 2025-03-01 until 2025-04-01" in told
    lines = [line.rstrip() for line in told.splitlines()]
    head = next(line for line in lines if line.startswith("day "))
    assert head.split() == ["day", "requests", "prompt", "completion", "total", "cost", "usd"]
    rows = [line.split() for line in lines if line.startswith(("2025-03-01  ", "2025-03-03  ", "total"))]
    assert rows == [
        ["2025-03-01", "1,234", "50", "7", "57", "1.000000000"],
        ["2025-03-03", "3", "0", "0", "0", "1.000000001"],
        ["total", "1,237", "50", "7", "57", "2.000000001"],
    ]
    chart = lines[lines.index("Dollars per day") + 1 :]
    assert [line.partition("|")[0].strip() for line in chart] == ["2025-03-01", "2025-03-02", "2025-03-03"]
    assert chart[1].split() == ["2025-03-02", "|", "0.000000000"]
    assert chart[0].count("#") > 50 and max(map(len, chart)) == 100
    assert chart[0].count("#") <= chart[2].count("#")
    assert told.isascii() and "\x1b" not in told


def test_one_tenant_is_one_and_groups_are_set_by_cost(run: Run) -> None:
    used(march(1, model="dear", cost_nano=9), march(2, model="cheap", cost_nano=1), march(1, "beta", cost_nano=10**9))
    told = run(*MARCH, "--tenant", "acme", "--by", "model")
    assert "Usage of acme from" in told and "beta" not in told and "1.00" not in told
    chart = told.partition("Dollars per model\n")[2].splitlines()
    assert [line.split()[0] for line in chart] == ["dear", "cheap"]
    with pytest.raises(TenantUnknown, match="acme"):
        run("--tenant", "acne")


def test_chart_is_of_requests_where_no_cost_is_known_which_is_said(run: Run) -> None:
    used(march(1, requests=3, unpriced=3, estimated=1))
    told = run(*MARCH, "--by", "month,model")
    assert "Requests per month" in told
    assert "The cost of 3 requests is not known, and is not in the sums." in told
    assert "Tokens of 1 request were estimated" in told
    assert "unknown" in next(line for line in told.splitlines() if line.startswith("total"))


def test_without_any_usage_a_sentence_says_so(run: Run) -> None:
    told = run()
    assert told.startswith("There is no usage from ") and told.count("\n") == 1
    assert f"{datetime.now(UTC):%Y-%m}-01" in told
    empty = json.loads(run("--json"))
    assert (empty["rows"], empty["total"]["requests"], empty["total"]["cost_usd"]) == ([], 0, "0")
    empty = CliRunner().invoke(app, ["usage", "--csv"]).stdout_bytes
    assert empty.startswith(b"day,requests,") and empty.count(b"\r\n") == 1


def test_programs_get_json_and_csv(run: Run) -> None:
    used(march(1, model=EVIL, cost_nano=1), march(2, "beta", model="", provider="", outcome="refused"))
    told = json.loads(run(*MARCH, "--by", "tenant,model", "--json"))
    assert [(one["tenant"], one["model"], one["cost_usd"]) for one in told["rows"]] == [
        ("acme", EVIL, "0.000000001"),
        ("beta", None, "0"),
    ]
    lines = list(csv.reader(io.StringIO(run(*MARCH, "--by", "tenant,model", "--csv"), newline="")))
    assert [line[:3] for line in lines[1:]] == [["acme", "'" + EVIL, "1"], ["beta", "", "1"]]
    shown = run(*MARCH, "--by", "model")
    assert "\x1b" not in shown and "=1?[31m" in shown
    run("--json", "--csv", code=2)


def test_rows_that_are_left_out_are_told(run: Run) -> None:
    used(*[march(number, cost_nano=number) for number in (1, 2, 3)])
    told = run(*MARCH, "--limit", "2")
    assert "These are the first 2 rows of more" in told and "2025-03-03" not in told
    assert "0.000000006" in next(line for line in told.splitlines() if line.startswith("total"))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--by", "modle"), '--by: .*did you mean "model"'),
        (("--since", "yesterday"), "--since: it must be a date"),
        (("--key-source", "mine"), "--key-source: .*byok, managed"),
        (("--provider", "minimxa"), '--provider: .*did you mean "minimax"'),
    ],
)
def test_what_is_not_known_is_refused(run: Run, arguments: tuple[str, ...], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        run(*arguments)


def on_terminal(columns: int, *arguments: str) -> str:
    """What the real script prints on a terminal without colour that is so wide."""
    script = Path(sys.executable).with_name("wardgate")
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(columns)} | ENVIRONMENT
    read, (terminal, theirs) = b"", pty.openpty()
    command = [sys.executable, str(script), "usage", *MARCH, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(terminal, 4096):
                read += more
    os.close(terminal)
    assert process.returncode == 0, read
    return read.decode()


def test_terminal_without_colour_gets_none(run: Run) -> None:
    """The real script on a terminal, as wide as it is."""
    used(march(1, cost_nano=10**9))
    told = on_terminal(70)
    assert "\x1b[3" not in told and "\x1b[9" not in told
    chart = told.partition("Dollars per day")[2].split("\r\n")[1]
    assert len(chart) == 70 and chart.count("#") > 40


def test_narrow_terminal_breaks_no_figure(run: Run) -> None:
    used(march(1, cost_nano=1_234_567_890_123, requests=1_234_567))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(30, "--by", "day,model,provider,outcome")).split("\r\n")
    row = next(line for line in lines if line.startswith("2025-03-01"))
    assert row.split()[4] == "1,234,567" and row.split()[-1] == "1,234.567890123"
    total = next(line for line in lines if line.startswith("total"))
    assert total.index("1,234,567") == row.index("1,234,567")


def test_installed_script_prints_a_wrong_word_in_one_sentence(run: Run) -> None:
    done = run_cli("usage", "--by", "modle", env=ENVIRONMENT, cwd=Path.cwd())
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("wardgate: --by: ") and 'did you mean "model"?' in done.stderr


# --- bars ------------------------------------------------------------------------------------------------------------

BARS = st.builds(Bar, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), st.integers(0, 2**70),
                 st.integers(0, 10**9).map(str))  # fmt: skip


@given(st.lists(BARS, max_size=8), st.integers(1, 200))
def test_bars_fit_and_are_as_long_as_their_sizes(bars: list[Bar], width: int) -> None:
    lines = bar_lines(bars, width)
    marks = [line.rpartition("|")[2].count("#") for line in lines]
    assert len(lines) == len(bars)
    if width >= 60:
        assert all(len(line) <= width for line in lines)
    for bar, count in zip(bars, marks, strict=True):
        assert (count > 0) == (bar.size > 0)
    for one, other in itertools.pairwise(bars):
        first, second = (marks[bars.index(each)] for each in (one, other))
        assert (first <= second) or one.size > other.size


def test_name_that_is_too_long_is_cut_and_wide_letters_are_as_wide_as_they_are() -> None:
    long, wide = bar_lines([Bar("m" * 80, 1, "1"), Bar("模型", 2, "2")], 40)
    assert "m..." in long and len(long) == 40
    assert len(wide) == 38 and wide.startswith("模型 ")
