"""The command line as scripts and people use it: the real script in a process of its own."""

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.cli.running import no_sandbox
from gateway.rules import load_rules
from gateway.settings import Settings
from keystore.providers import load_registry
from tests.harness import run_cli

ENV = {"WARDGATE_SEALING_KEYS_FILE": "keys", "WARDGATE_DATABASE_URL": "sqlite+aiosqlite:///w.db"}


class Cli:
    """`wardgate` over a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, stdin: str | None = None, code: int = 0) -> str:
        done = run_cli(*arguments, stdin=stdin, env=ENV, cwd=self.folder)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout if code in (0, 3) else done.stderr

    def json(self, *arguments: str, stdin: str | None = None) -> object:
        return json.loads(self(*arguments, "--json", stdin=stdin))


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_operator_sets_up_a_tenant_with_json_all_the_way(cli: Cli) -> None:
    assert cli.json("migrate") == {
        "applied": ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012"],
        "sealed_tokens": [],
    }
    assert cli.json("migrate") == {"applied": [], "sealed_tokens": []}
    added = cli.json("tenant", "add", "acme", "--plan", "team", "--name", "Acme Ltd", "--id", "42")
    assert isinstance(added, dict)
    assert (added["slug"], added["plan"], added["name"], added["id"]) == ("acme", "team", "Acme Ltd", "42")
    stored = cli.json("key", "set", "acme", "MINIMAX_2_7_API_KEY", stdin="sk-very-secret-value-123\n")
    assert isinstance(stored, dict) and (stored["provider"], stored["version"]) == ("minimax", 1)
    made = cli.json("token", "create", "acme", "--name", "worker")
    assert isinstance(made, dict) and made["token"].startswith(f"wg_live_{made['id']}_")
    assert isinstance(listed := cli.json("token", "list", "acme"), list) and listed[0]["name"] == "worker"
    assert isinstance(keys := cli.json("key", "list", "acme"), list) and keys[0]["setting_key"] == "MINIMAX_2_7_API_KEY"
    shown = cli.json("tenant", "show", "acme")
    assert isinstance(shown, dict) and shown["providers"]["minimax"]["via"] == "former"
    assert cli.json("token", "revoke", made["id"]) == {"id": made["id"], "revoked": True}
    moved = cli.json("tenant", "set-plan", "acme", "pro")
    assert isinstance(moved, dict) and moved["plan"] == "pro"
    removed = cli.json("key", "remove", "acme", "MINIMAX_2_7_API_KEY")
    assert isinstance(removed, dict) and removed["removed"] is True
    assert cli.json("key", "list", "acme") == []
    assert isinstance(tenants := cli.json("tenant", "list"), list) and [t["slug"] for t in tenants] == ["acme"]


def test_people_get_tables_and_sentences(cli: Cli) -> None:
    assert "There are no tenants" in cli("tenant", "list")
    assert "acme" in cli("tenant", "add", "acme", "--plan", "team")
    assert "sealed" in cli("key", "set", "acme", "MINIMAX_API_KEY", stdin="sk-very-secret-value-123")
    for arguments in (("tenant", "list"), ("tenant", "show", "acme"), ("key", "list", "acme")):
        assert "sk-very-secret-value" not in cli(*arguments)
    assert "MINIMAX_2_7_API_KEY" in cli("provider", "list")
    assert "enterprise" in (plans := cli("plan", "list")) and "4,000,000" in plans and "USD/month" in plans
    assert "It is not used" not in cli("key", "set", "acme", "OPENAI_API_KEY", stdin="sk-very-secret-value-123")
    cli("tenant", "set-plan", "acme", "free")
    stored = cli("key", "set", "acme", "OPENAI_API_KEY", stdin="sk-very-secret-value-124")
    assert "It is not used: plan free takes no keys of tenants" in stored
    cli("tenant", "set-plan", "acme", "team")
    assert cli("token", "create", "acme").startswith("wg_live_")
    assert cli("token", "create", "--kind", "admin").startswith("wg_admin_")
    assert "admin" in cli("token", "list")


REFUSED = {
    "unknown tenant": (("tenant", "show", "acne"), None, "acme"),
    "unknown plan": (("tenant", "add", "x", "--plan", "teem"), None, "team"),
    "taken slug": (("tenant", "add", "acme", "--plan", "team"), None, "acme"),
    "bad slug": (("tenant", "add", "No Spaces", "--plan", "team"), None, "slug"),
    "unknown setting": (("key", "set", "acme", "MINIMAXX_API_KEY"), "sk-value-123456", "MINIMAX_API_KEY"),
    "placeholder": (("key", "set", "acme", "MINIMAX_API_KEY"), "<same_value_as_MINIMAX_2_7_API_KEY>", "placeholder"),
    "reference": (("key", "set", "acme", "MINIMAX_API_KEY"), "os.environ/CANARY", "reference"),
    "empty": (("key", "set", "acme", "MINIMAX_API_KEY"), "", "empty"),
    "no such key": (("key", "remove", "acme", "MINIMAX_API_KEY"), None, "MINIMAX_API_KEY"),
    "no such token": (("token", "revoke", "nope"), None, "nope"),
    "unknown kind": (("token", "create", "acme", "--kind", "root"), None, "root"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_is_one_sentence_that_helps_and_shows_no_value(cli: Cli, name: str) -> None:
    arguments, stdin, hint = REFUSED[name]
    cli("tenant", "add", "acme", "--plan", "team")
    said = cli(*arguments, stdin=stdin, code=1)
    assert said.startswith("wardgate: ") and hint in said, said
    assert "CANARY" not in said and "sk-value" not in said


SENTENCES = {
    "no name of a model": (("explain", "--tenant", "acme", "--model", ""), "1 to 256 characters"),
    "name of a model over a body": (("explain", "--tenant", "acme", "--model", " ", "--body", "good.json"), "1 to 256"),
    "body that is no JSON": (("explain", "--tenant", "acme", "--body", "bad.json"), "not valid JSON"),
    "body that is absent": (("explain", "--tenant", "acme", "--body", "nosuch"), "nosuch"),
    "body that is a folder": (("explain", "--tenant", "acme", "--body", "."), "directory"),
    "plan that has gone": (("explain", "--tenant", "lost", "--model", "auto"), "teem"),
    "days that are none": (("token", "create", "acme", "--expires-in-days", "nan"), "--expires-in-days"),
    "days without end": (("token", "create", "acme", "--expires-in-days", "1e12"), "--expires-in-days"),
    "action that is none": (("audit", "list", "--action", "keys.set"), 'did you mean "key.set"'),
    "outcome that is none": (("audit", "list", "--outcome", "foo"), "known: begun, denied, done"),
    "file of rows that is absent": (("provider", "diff", "next.toml"), "next.toml: there is no such file\n"),
    "source that is no URL": (("import", "plan", "--from", "nonsense"), "not a URL; see --from"),
    "source that is empty": (("import", "plan", "--from", ""), "not a URL; see --from"),
    "source that is absent": (("import", "plan", "--from", "sqlite:///no.db"), "see --from"),
    "days gone by": (("token", "create", "acme", "--expires-in-days", "-1"), "--expires-in-days"),
}


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A command line over a tenant, and one whose plan has gone."""
    cli = Cli(tmp_path_factory.mktemp("cli"))
    for slug in ("acme", "lost"):
        cli("tenant", "add", slug, "--plan", "team")
    with sqlite3.connect(cli.folder / "w.db") as connection:
        connection.execute("UPDATE wardgate_tenants SET plan = 'teem' WHERE slug = 'lost'")
    connection.close()
    (cli.folder / "bad.json").write_text("{")
    (cli.folder / "good.json").write_text('{"model": "auto", "messages": [{"role": "user", "content": "a"}]}')
    return cli


@pytest.mark.parametrize("name", SENTENCES)
def test_what_goes_wrong_is_one_sentence_and_no_traceback(stocked: Cli, name: str) -> None:
    arguments, hint = SENTENCES[name]
    said = stocked(*arguments, code=1)
    assert said.startswith("wardgate: ") and said.count("\n") == 1 and hint.lower() in said.lower(), said


def test_audit_is_listed_page_by_page_with_what_was_made(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    made = cli.json("token", "create", "acme")
    assert isinstance(made, dict) and f" {made['id']} " in cli("audit", "list")
    assert re.search(r" \d\d:\d\d:\d\d ", cli("audit", "list"))
    done = run_cli("audit", "list", "--limit", "2", env=ENV, cwd=cli.folder)
    page = re.fullmatch(r"These are the newest 2; the next page: --before (\d+)\n", done.stderr)
    assert page and f"\n{page[1]} " in done.stdout
    assert cli("audit", "list", "--actor", "nobody") == "No row is of this kind.\n"


def test_what_a_token_may_do_is_told_when_it_is_made_and_listed(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    limits = ("--allow-model", "nonsense-model", "--allow-model", "minimax/*", "--allow-address", "10.0.0.0/8")
    done = run_cli("token", "create", "acme", *limits, env=ENV, cwd=cli.folder)
    assert (
        "Note: 'nonsense-model' matches no model of the catalogue" in done.stderr and "'minimax/*'" not in done.stderr
    )
    assert "Scopes: inference; models: nonsense-model, minimax/*; addresses: 10.0.0.0/8." in done.stderr
    token_id = done.stdout.split("_")[2]
    (line,) = [line for line in cli("token", "list").splitlines() if line.startswith(token_id)]
    assert " inference " in line and " nonsense-model, minimax/* " in line and " 10.0.0.0/8 " in line
    assert cli("token", "revoke", token_id) == f"Revoked {token_id}.\n"
    assert cli("token", "revoke", token_id) == f"{token_id} was revoked already.\n"


def test_demo_on_another_port_says_how_to_get_one() -> None:
    rows = load_registry({"minimax": {"base_url": "http://127.0.0.1:9277/v1", "hosts": ["127.0.0.1:9277"]}})
    rules = load_rules(Settings(config=None))
    said = no_sandbox(replace(rules, registry=rows), 9278)
    assert (
        "at 127.0.0.1:9277; the sandbox is to listen on 9278" in said and "start with --sandbox-port 9277, or" in said
    )
    assert "--sandbox-port" not in no_sandbox(rules, 9278) and "delete wardgate.toml" in no_sandbox(rules, 9278)


def test_what_changes_nothing_says_so(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    assert "acme holds no provider key of minimax." in cli("key", "doctor", "acme", "--provider", "minimax")
    again = cli("tenant", "add", "acme", "--plan", "team", code=1)
    assert again == 'wardgate: a tenant with the slug or id "acme", or a spelling of one, exists\n'
    for said in ("version 1), sealed.", "holds this value already (version 1): no new version was made."):
        assert said in cli("key", "set", "acme", "MINIMAX_API_KEY", stdin="sk-very-secret-value-123")
    assert isinstance(found := cli.json("key", "versions", "acme", "MINIMAX_API_KEY"), list)
    assert found[0]["source"] == "set"
    assert "position" in cli("key", "list", "acme") and "weight" in cli("key", "versions", "acme", "MINIMAX_API_KEY")


def test_lines_that_are_piped_on_end_where_their_words_end(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    for arguments in (("tenant", "list"), ("provider", "list"), ("explain", "--tenant", "acme", "--model", "auto")):
        told = cli(*arguments, code=3 if arguments[0] == "explain" else 0)
        assert told.count("\n") > 1
        assert [line for line in told.splitlines() if line != line.rstrip()] == []


def test_brackets_in_a_name_are_shown_as_they_are(cli: Cli) -> None:
    name = "[red]Acme[/red] [/] \\[x] :smile:"
    cli("tenant", "add", "acme", "--plan", "team", "--name", name)
    assert name in cli("tenant", "list") and name in cli("tenant", "show", "acme")
    cli("token", "create", "acme", "--name", "[/nope]")
    assert "[/nope]" in cli("token", "list", "acme")


def test_sealing_keys_of_the_environment_are_read(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    cli("key", "set", "acme", "MINIMAX_API_KEY", stdin="sk-very-secret-value-123")
    ring = (cli.folder / "keys").read_text()
    env = {"WARDGATE_DATABASE_URL": ENV["WARDGATE_DATABASE_URL"], "WARDGATE_SEALING_KEYS": ring}
    done = run_cli("tenant", "show", "acme", "--json", env=env, cwd=cli.folder)
    assert json.loads(done.stdout)["providers"]["minimax"]["setting_key"] == "MINIMAX_API_KEY", done.stderr


def test_wrong_usage_is_exit_code_2(cli: Cli) -> None:
    assert "slug" in cli("token", "create", code=2)
    assert "--model" in cli("explain", "--tenant", "x", code=2)
    assert "No such command" in cli("tenantt", code=2)


def test_a_value_is_never_taken_from_an_argument(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    assert "sk-on-the-command-line" not in cli("key", "list", "acme")
    said = cli("key", "set", "acme", "MINIMAX_API_KEY", "sk-on-the-command-line", code=2)
    assert "extra argument" in said.lower()


def test_explain_reads_a_body_and_exits_3_when_nothing_is_left(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5})
    said = cli("explain", "--tenant", "acme", "--body", "-", stdin=body, code=3)
    assert "openai needs a key" in said.lower() and "OPENAI_API_KEY" in said


def test_plan_lint_lists_what_matches_nothing_and_fails_on_errors_alone(cli: Cli) -> None:
    (cli.folder / "wardgate.toml").write_text(
        '[plans.team]\nmanaged_models = ["no-such-model"]\nnarrower_than_lower = true\n'
    )
    findings = json.loads(cli("plan", "lint", "--json"))
    assert any(f["plan"] == "team" and "no-such-model" in f["finding"] for f in findings)
    assert {f["severity"] for f in findings} == {"warning"}
    (cli.folder / "wardgate.toml").write_text('[plans.team]\ndefault_model = "minimax/no-such-model"\n')
    assert "no-such-model" in cli("plan", "lint", code=3)


@pytest.mark.parametrize("arguments", [[], ["tenant"], ["key"], ["token"], ["provider"], ["plan"], ["serve"], ["demo"]])
def test_help_of_every_command_says_what_it_does(cli: Cli, arguments: list[str]) -> None:
    assert len(cli(*arguments, "--help")) > 100
