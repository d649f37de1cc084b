"""`wardgate import` as an operator uses it: the real script, from a dry run to the scrub."""

import sqlite3
from pathlib import Path

import pytest

from tests.gateway.test_cli import Cli

TENANT = "31c06fc4-db22-4740-83ea-48ac14f25810"
KEY = "sk-very-secret-value-1234567890"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A database with Brennan's settings beside Wardgate's tables."""
    ready = Cli(tmp_path)
    ready("tenant", "add", "brennan", "--plan", "team", "--id", TENANT)
    fill(tmp_path / "w.db")
    return ready


def fill(path: Path, *more: tuple[str, str, str]) -> None:
    rows = [
        (TENANT, "MINIMAX_2_7_API_KEY", KEY),
        (TENANT, "MINIMAX_API_KEY", "<same_value_as_MINIMAX_2_7_API_KEY>"),
        (TENANT, "timezone", "Europe/Berlin"),
        *more,
    ]
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    database.executemany("INSERT INTO tenant_settings VALUES (?, ?, ?)", rows)
    database.commit()
    database.close()


def test_a_table_is_adopted_in_place_from_dry_run_to_scrub(cli: Cli, tmp_path: Path) -> None:
    planned = cli("import", "plan")
    assert "3 rows" in planned and "placeholder" in planned and KEY not in planned
    assert (tmp_path / "wardgate-import.jsonl").stat().st_mode & 0o777 == 0o600
    applied = cli.json("import", "apply", "--manifest", "wardgate-import.jsonl")
    assert isinstance(applied, dict) and (applied["taken"], applied["since_plan"]) == (3, 0)
    verified = cli("import", "verify")
    assert "All gates hold." in verified and "MINIMAX_2_7_API_KEY" in verified and KEY not in verified
    assert "--yes" in cli("import", "scrub", code=2)
    scrubbed = cli("import", "scrub", "--yes")
    assert "Took the plain text out of 2 rows." in scrubbed and "files: 0." in scrubbed
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    listed = cli.json("import", "list")
    assert isinstance(listed, list) and [each["state"] for each in listed] == ["scrubbed"]


def test_rows_without_a_tenant_are_findings_until_their_plan_is_stated(cli: Cli, tmp_path: Path) -> None:
    fill(tmp_path / "other.db", ("nova", "OPENAI_API_KEY", KEY + "-nova"))
    source = ("--from", f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    assert "Secrets of no tenant here: nova." in cli("import", "plan", "--from", "-", stdin=f"{source[1]}\n", code=3)
    assert "Made tenants: nova." in cli("import", "apply", *source, "--create-tenants", "--plan", "team")
    assert "--tenants-table" in cli("import", "plan", "--tenant-plan-column", "plan", code=2)
