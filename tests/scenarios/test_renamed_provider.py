"""The founding story: a key stored under a name that the provider no longer has is found, used, and said to be so."""

import json
import sqlite3
from pathlib import Path

import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, sandbox_config

OLD, NEW = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY"
HELLO = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}
BRENNAN = "31c06fc4-db22-4740-83ea-48ac14f25810"


def legacy_row(database: Path, tenant_id: str, setting_key: str, value: str | None) -> None:
    """A row as the old application wrote it."""
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS tenant_settings"
            " (tenant_id TEXT, setting_key TEXT, setting_value TEXT, created_at TEXT, updated_at TEXT)"
        )
        row = (tenant_id, setting_key, value, "2026-01-01", "2026-01-01")
        connection.execute("INSERT INTO tenant_settings VALUES (?, ?, ?, ?, ?)", row)
    connection.close()


def test_sdk_is_answered_by_minimax_when_its_only_key_is_stored_under_the_former_name(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    client = gateway.client(gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"}))

    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "Hello"}]
    )

    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.prompt_tokens > 0
    assert raw.headers["x-wardgate-provider"] == "minimax"
    assert raw.headers["x-wardgate-key"] == "byok:former"
    assert raw.headers["x-wardgate-attempts"] == "1"
    assert raw.headers["x-wardgate-model"].startswith("MiniMax-")
    assert float(raw.headers["x-wardgate-cost-usd"]) > 0
    assert raw.headers["x-request-id"].startswith("req_")
    assert [request.key_tail for request in sandbox.requests()] == ["-old"]


def test_stream_is_answered_by_minimax_when_its_only_key_is_stored_under_the_former_name(
    gateway: RunningGateway,
) -> None:
    client = gateway.client(gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"}))

    raw = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(raw.parse())

    assert raw.headers["x-wardgate-provider"] == "minimax"
    assert raw.headers["x-wardgate-key"] == "byok:former"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


def test_former_name_shows_in_metric_and_log_but_never_its_value(gateway: RunningGateway) -> None:
    token = gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"})

    assert gateway.post("/v1/chat/completions", token, HELLO).status_code == 200

    assert gateway.settled("wardgate_key_resolutions_total", provider="minimax", via="former") == 1
    assert gateway.settled("wardgate_requests_total", endpoint="chat_completions", outcome="ok") == 1
    assert gateway.settled("wardgate_tokens_total", provider="minimax") > 0
    assert gateway.settled("wardgate_cost_usd_total", provider="minimax") > 0
    (line,) = gateway.logs.records("key.legacy_name")
    assert line["tenant"] == "brennan" and line["provider"] == "minimax"
    assert line["setting_key"] == OLD and line["canonical_name"] == NEW
    assert "sk-sandbox-old" not in gateway.logs.getvalue()


def test_legacy_table_row_is_used_and_left_as_it_was_when_it_holds_the_only_key(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    database = tmp_path / "wardgate.db"
    legacy_row(database, BRENNAN, OLD, "sk-sandbox-legacy")
    before = rows(database)
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        added = gateway.cli("tenant", "add", "brennan", "--plan", "team", "--id", BRENNAN)
        assert added.returncode == 0, added.stderr
        token = gateway.cli("token", "create", "brennan").stdout.strip()

        answer = gateway.post("/v1/chat/completions", token, HELLO)

        assert answer.status_code == 200, answer.text
        assert answer.headers["x-wardgate-key"] == "byok:former"
        assert gateway.settled("wardgate_legacy_reads_total", provider="minimax") == 1
        (line,) = gateway.logs.records("key.legacy_name")
        assert line["store"] == "legacy"
    assert [request.key_tail for request in sandbox.requests()] == ["gacy"]
    assert rows(database) == before


def rows(database: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT * FROM tenant_settings").fetchall()
        found += connection.execute("SELECT sql FROM sqlite_master WHERE name = 'tenant_settings'").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("stored", ["GOOGLE_FLASH_API_KEY", "GEMINI_FLASH_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"])
@pytest.mark.parametrize("asked", ["google/gemini-2.5-flash", "google_flash/gemini-2.5-flash"])
def test_google_is_answered_under_every_name_it_ever_had(
    gateway: RunningGateway, sandbox: SandboxServer, stored: str, asked: str
) -> None:
    token = gateway.tenant("acme", "solo", {stored: "sk-sandbox-goog"})

    answer = gateway.post("/v1/chat/completions", token, HELLO | {"model": asked})

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-wardgate-provider"] == "google"
    via = "canonical" if stored == "GOOGLE_API_KEY" else "former"
    assert answer.headers["x-wardgate-key"] == f"byok:{via}"
    assert [request.key_tail for request in sandbox.requests()] == ["goog"]


@pytest.mark.parametrize("row", ["", "[providers.minimax_2_7]\nretired = true\n", "live"])
def test_resolution_is_the_same_when_the_former_providers_row_is_there_retired_or_gone(
    tmp_path: Path, sandbox: SandboxServer, row: str
) -> None:
    host = sandbox.url.removeprefix("http://")
    full = (
        f'[providers.minimax_2_7]\nname = "MiniMax 2.7"\nwire = "openai"\nbase_url = "{sandbox.url}/v1"\n'
        f'hosts = ["{host}"]\nauth = "bearer"\napi_key_env_var = "MINIMAX_API_KEY"\n'
    )
    extra = "" if not row else full + ("retired = true\n" if "retired" in row else "")
    with RunningGateway(tmp_path, sandbox_config(sandbox.url, extra)) as gateway:
        token = gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"})
        answer = gateway.post("/v1/chat/completions", token, HELLO)
        assert (answer.status_code, answer.headers.get("x-wardgate-key")) == (200, "byok:former"), answer.text


def test_canonical_key_wins_at_once_when_it_is_added(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"})
    assert gateway.post("/v1/chat/completions", token, HELLO).headers["x-wardgate-key"] == "byok:former"

    done = gateway.cli("key", "set", "brennan", NEW, stdin="sk-sandbox-new")
    assert done.returncode == 0, done.stderr

    assert gateway.post("/v1/chat/completions", token, HELLO).headers["x-wardgate-key"] == "byok:canonical"
    assert [request.key_tail for request in sandbox.requests()] == ["-old", "-new"]


def test_placeholder_is_never_used_and_is_named_when_the_seeds_insert_was_run_verbatim(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    database = tmp_path / "wardgate.db"
    legacy_row(database, BRENNAN, NEW, f"<same_value_as_{OLD}>")
    legacy_row(database, BRENNAN, OLD, "sk-sandbox-old")
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        gateway.cli("tenant", "add", "brennan", "--plan", "team", "--id", BRENNAN)
        token = gateway.cli("token", "create", "brennan").stdout.strip()

        answer = gateway.post("/v1/chat/completions", token, HELLO)
        explained = gateway.post("/v1/route", token, HELLO).json()

    assert answer.headers["x-wardgate-key"] == "byok:former", answer.text
    assert NEW in str(explained["ranked"][0]["key"]) and "placeholder" in str(explained["ranked"][0]["key"])


def test_placeholder_alone_is_an_error_that_names_it(tmp_path: Path, sandbox: SandboxServer) -> None:
    legacy_row(tmp_path / "wardgate.db", BRENNAN, NEW, "<your key here>")
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        gateway.cli("tenant", "add", "brennan", "--plan", "team", "--id", BRENNAN)
        token = gateway.cli("token", "create", "brennan").stdout.strip()
        answer = gateway.post("/v1/chat/completions", token, HELLO)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["fault"]) == (403, "provider_key_unusable", "tenant_key")
    assert NEW in error["message"] and "placeholder" in error["message"]
    assert not sandbox.requests()


def test_pipeline_is_told_who_breaks_before_a_row_changes(gateway: RunningGateway) -> None:
    gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"})
    retire = gateway.cli("provider", "retire", "minimax", "--json")
    assert retire.returncode == 1
    verdict = json.loads(retire.stdout)
    assert [(one["tenant"], one["effect"]) for one in verdict["changes"]] == [("brennan", "lost")]
    assert "minimax/MiniMax-M2" in verdict["models_gone"]
    assert gateway.cli("provider", "rename", "minimax", "minimax_3").returncode == 0
    forgetful = gateway.folder / "next.toml"
    forgetful.write_text(
        (gateway.folder / "wardgate.toml")
        .read_text()
        .replace("[providers.minimax]\n", "[providers.minimax]\nformer_ids = []\n")
    )
    assert gateway.cli("provider", "diff", str(forgetful)).returncode == 1
    same = gateway.cli("provider", "diff", str(gateway.folder / "wardgate.toml"), "--json")
    assert (same.returncode, json.loads(same.stdout)["changes"]) == (0, [])


def test_rename_as_printed_keeps_every_key(gateway: RunningGateway, tmp_path: Path) -> None:
    """The rows that `provider rename` prints are a wardgate.toml that does what it says."""
    gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"})
    renamed = json.loads(gateway.cli("provider", "rename", "minimax", "minimax_3", "--json").stdout)
    file = gateway.folder / "next.toml"
    file.write_text(renamed["rows"])
    verdict = json.loads(gateway.cli("provider", "diff", str(file), "--json").stdout)
    assert [(one["tenant"], one["successor"], one["breaks"]) for one in verdict["changes"]] in (
        [],
        [("brennan", "minimax_3", False)],
    )
    assert verdict["breaks"] is False


def test_report_says_who_is_left_on_an_old_name(gateway: RunningGateway) -> None:
    gateway.tenant("brennan", "team", {OLD: "sk-sandbox-old"})
    report = json.loads(gateway.cli("key", "report", "--provider", "minimax", "--json").stdout)
    assert [(one["tenant"], one["setting_key"], one["via"]) for one in report["uses"]] == [("brennan", OLD, "former")]
    assert [(one["setting_key"], one["safe"]) for one in report["former_names"]] == [(OLD, False)]
    assert "needed by brennan" in gateway.cli("key", "report").stdout
    assert "No tenant holds" in gateway.cli("key", "conflicts").stdout
