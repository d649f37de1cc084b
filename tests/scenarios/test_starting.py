"""What stops a start, and that it stops with a sentence and harms nothing."""

import sqlite3
import time
from pathlib import Path

import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, run_cli, sandbox_config

HELLO = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}


def serve(folder: Path, **env: str) -> tuple[int, str]:
    """The real `wardgate serve` that is expected to stop by itself."""
    here = {
        "WARDGATE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/wardgate.db",
        "WARDGATE_SEALING_KEYS_FILE": str(folder / "sealing-keys"),
        "WARDGATE_PORT": "0",
        "WARDGATE_METRICS_PORT": "0",
    }
    done = run_cli("serve", env=here | env, cwd=folder)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def stocked(tmp_path: Path, sandbox: SandboxServer) -> Path:
    """A folder with a database that holds a sealed key, and its ring."""
    RunningGateway(tmp_path, sandbox_config(sandbox.url)).tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    return tmp_path


def test_missing_ring_stops_the_start_and_none_is_made(stocked: Path) -> None:
    (stocked / "sealing-keys").unlink()
    code, said = serve(stocked)
    assert code == 1 and "sealing" in said.lower()
    assert not (stocked / "sealing-keys").exists()


def test_damaged_or_wrong_ring_stops_the_start_and_is_not_overwritten(
    stocked: Path, tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxServer
) -> None:
    ring = stocked / "sealing-keys"
    other = tmp_path_factory.mktemp("other")
    RunningGateway(other, sandbox_config(sandbox.url)).tenant("acme")
    for text in ("garbage", "", (other / "sealing-keys").read_text()):
        ring.write_text(text)
        before = (stocked / "wardgate.db").read_bytes()
        code, said = serve(stocked)
        assert code == 1 and said.startswith("wardgate: "), said
        assert ring.read_text() == text and (stocked / "wardgate.db").read_bytes() == before


def test_database_that_cannot_be_reached_stops_the_start(tmp_path: Path) -> None:
    for url in (
        f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/w.db",
        "postgresql://nobody:hunter2@127.0.0.1:9/none",
        "mysql://x/y",
        "nonsense",
    ):
        code, said = serve(tmp_path, WARDGATE_DATABASE_URL=url)
        assert code == 1 and said.startswith("wardgate: ") and "hunter2" not in said, said


def test_newer_schema_stops_the_start(stocked: Path) -> None:
    with sqlite3.connect(stocked / "wardgate.db") as connection:
        connection.execute("UPDATE wardgate_schema SET version_num = '9999'")
    connection.close()
    code, said = serve(stocked)
    assert code == 1 and "newer" in said


def test_file_that_is_no_database_stops_the_start_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "wardgate.db").write_bytes(b"this is my diary, not a database" * 100)
    code, said = serve(tmp_path)
    assert code == 1 and said.startswith("wardgate: ")
    assert (tmp_path / "wardgate.db").read_bytes().startswith(b"this is my diary")


def test_unknown_plan_of_a_tenant_stops_the_start(stocked: Path) -> None:
    with sqlite3.connect(stocked / "wardgate.db") as connection:
        connection.execute("UPDATE wardgate_tenants SET plan = 'teem'")
    connection.close()
    code, said = serve(stocked)
    assert code == 1 and "teem" in said


CONFIGS = {
    "unknown table": ("[provider.x]\n", "providers"),
    "unknown field": ('[providers.minimax]\nbase_ur = "http://x"\n', "base_url"),
    "unknown limit": ("[limits]\nmax_attemps = 2\n", "max_attempts"),
    "limit of wrong type": ('[limits]\nmax_attempts = "2"\n', "max_attempts"),
    "unknown plan field": ("[plans.team]\nbyokk = true\n", "byok"),
    "incomplete plan": ("[plans.gold]\nbyok = true\n", "gold"),
    "incomplete provider": ('[providers.acme]\nname = "Acme"\n', "acme"),
    "host not allowed": ('[providers.minimax]\nbase_url = "http://127.0.0.1:1/v1"\n', "hosts"),
    "not TOML": ("[providers\n", "TOML"),
    "alias": ('[models.fast]\nobjektive = "best"\n', "objective"),
    "unknown model field": ('[models."openai/gpt-4o"]\nmax_input_token = 1\n', "max_input_tokens"),
    "model of an unknown provider": ('[models."opena/gpt-4o"]\ndisabled = true\n', "openai"),
    "model that the map does not have": ('[models."openai/gpt-4oo"]\ndisabled = true\n', "openai/gpt-4o"),
    "not yet": ("[prices]\nx = 1\n", "prices"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_wrong_configuration_stops_the_start_with_the_nearest_name(tmp_path: Path, name: str) -> None:
    text, hint = CONFIGS[name]
    (tmp_path / "wardgate.toml").write_text(text)
    code, said = serve(tmp_path)
    assert code == 1 and said.startswith("wardgate: ") and hint in said, said


def test_named_configuration_that_is_absent_stops_the_start(tmp_path: Path) -> None:
    code, said = serve(tmp_path, WARDGATE_CONFIG=str(tmp_path / "none.toml"))
    assert code == 1 and "none.toml" in said


def test_wrong_setting_stops_the_start_and_is_named_without_its_value(tmp_path: Path) -> None:
    code, said = serve(tmp_path, WARDGATE_PORT="eighty-secret")
    assert code == 1 and "WARDGATE_PORT" in said and "eighty-secret" not in said
    code, said = serve(tmp_path, WARDGATE_LOG_LEVEL="loud")
    assert code == 1 and "WARDGATE_LOG_LEVEL" in said


def test_unknown_setting_stops_the_start_with_the_nearest_name(tmp_path: Path) -> None:
    code, said = serve(tmp_path, WARDGATE_SEALING_KEYFILE="hunter2")
    assert code == 1 and "WARDGATE_SEALING_KEYS_FILE" in said and "hunter2" not in said


def test_limit_that_is_no_number_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "wardgate.toml").write_text("[limits]\nanswer_timeout_s = nan\n")
    code, said = serve(tmp_path)
    assert code == 1 and "limits.answer_timeout_s" in said and "finite" in said


def test_keystore_that_goes_away_is_named_in_the_log_at_most_once_a_second(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme")
    with sqlite3.connect(gateway.folder / "wardgate.db") as connection:
        connection.execute("ALTER TABLE wardgate_tokens RENAME TO gone")
    connection.close()
    started = time.monotonic()
    answers = [gateway.post("/v1/chat/completions", token, HELLO) for _ in range(4)]
    seconds = time.monotonic() - started
    assert {answer.json()["error"]["code"] for answer in answers} == {"keystore_unavailable"}
    lines = gateway.logs.records("request.not_served")
    assert 1 <= len(lines) <= 1 + seconds
    assert str(lines[0]["cause"]).startswith("DatabaseUnavailable") and len(str(lines[0]["why"])) > 20
    assert token not in gateway.logs.getvalue()


def test_taken_port_stops_the_start(gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> None:
    for variable, url in (("WARDGATE_PORT", gateway.url), ("WARDGATE_METRICS_PORT", gateway.metrics_url)):
        port = url.rsplit(":", 1)[1]
        code, said = serve(tmp_path_factory.mktemp("other"), **{variable: port})
        assert code == 1 and port in said, said


def test_postgresql_serves_like_sqlite(tmp_path: Path, sandbox: SandboxServer, fresh_database: str) -> None:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url), database_url=fresh_database) as gateway:
        token = gateway.tenant("brennan", "team", {"MINIMAX_2_7_API_KEY": "sk-sandbox-p"})
        answer = gateway.post("/v1/chat/completions", token, HELLO)
        assert (answer.status_code, answer.headers["x-wardgate-key"]) == (200, "byok:former"), answer.text
        listed = gateway.cli("key", "list", "brennan", "--json")
        assert "MINIMAX_2_7_API_KEY" in listed.stdout and "sk-sandbox-p" not in listed.stdout


def test_database_of_an_application_with_tables_of_its_own_is_shared(tmp_path: Path, sandbox: SandboxServer) -> None:
    database = tmp_path / "wardgate.db"
    with sqlite3.connect(database) as connection:
        for name in ("tenants", "credentials", "tokens", "alembic_version"):
            connection.execute(f"CREATE TABLE {name} (theirs TEXT)")
            connection.execute(f"INSERT INTO {name} VALUES ('untouched')")
    connection.close()
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
        assert gateway.post("/v1/chat/completions", token, HELLO).status_code == 200
    with sqlite3.connect(database) as connection:
        for name in ("tenants", "credentials", "tokens", "alembic_version"):
            assert connection.execute(f"SELECT * FROM {name}").fetchall() == [("untouched",)]
    connection.close()


def test_keys_survive_a_restart(tmp_path: Path, sandbox: SandboxServer) -> None:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        assert gateway.post("/v1/chat/completions", token, HELLO).status_code == 200
    stored = (tmp_path / "wardgate.db").read_bytes()
    assert b"sk-sandbox-a" not in stored and token.encode()[-49:-6] not in stored
    assert (tmp_path / "sealing-keys").stat().st_mode & 0o777 == 0o600


def test_key_bound_to_one_host_is_refused_when_the_row_moves_to_another(tmp_path: Path, sandbox: SandboxServer) -> None:
    with RunningGateway(tmp_path, sandbox_config("http://127.0.0.1:9", providers={"minimax": "/v1"})) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        answer = gateway.post("/v1/chat/completions", token, HELLO)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "provider_key_unusable")
    assert "MINIMAX_API_KEY" in error["message"] and "host" in error["message"]
    assert not sandbox.requests()
