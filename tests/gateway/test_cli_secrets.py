"""A secret in the place of any argument of any command: not in the audit, and not told."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cli.late import COMMANDS
from gateway.control.targets import Target, may_be_said, noted, without_secrets
from gateway.rules import Rules, load_rules
from gateway.settings import Settings
from tests.gateway.test_cli import Cli
from tests.gateway.test_cli import cli as cli  # the fixture

SECRETS = (
    "sk-proj-Zq7wXv3RtYpL9mNbKd5s",
    "sk-or-v1-0d4f6a8b2c1e3f5a7b9c0d2e4f6a8b0c",
    "Zq7wXv3RtYpL9mNbKd5sJh2g",
    "hunter2&Tr0ub4dor",
)
GOOD = {
    "slug": "acme", "setting_key": "MINIMAX_API_KEY", "version": "1", "token_id": "AAAAAAAAAAAA", "kek_id": "k1",
    "provider_id": "minimax", "old": "minimax", "new": "minimax_3", "plan": "team", "tenant": "acme", "model": "auto",
    "amount": "1", "period": "day", "spend": "byok", "day": "2026-11-21", "request_id": "req_" + "0" * 32,
    "url": "https://hooks.example/x", "webhook_id": "wh_000000000000",
    "file": "next.toml", "batch": "00000000-0000-4000-8000-000000000000",
}  # fmt: skip
SERVES = {"serve", "demo", "sandbox"}
KEPT = {
    ("token create", "name"),
    ("webhook add", "name"),
    ("tenant add", "name"),
    ("tenant add", "default_model"),
}  # free text, told when stored
NAMED = {("import plan", "manifest"), ("import apply", "manifest")}  # a file of that name is written or read


def commands(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    inner = group.commands.items() if group else [(name, row.load(name)) for name, row in COMMANDS.items()]
    for name, command in inner:
        words = (*before, name)
        if hasattr(command, "commands"):
            yield from commands(command, words)
        if hasattr(command, "commands") and not command.invoke_without_command:
            continue
        if name not in SERVES:
            yield words, command


def lines() -> Iterator[tuple[str, str, list[str]]]:
    """A command line for each place of each command, with a secret in it; and an argument too many."""
    number = 0
    for words, command in commands():
        takes = [one for one in command.params if not getattr(one, "is_flag", False)]
        flags = [one.opts[0] for one in command.params if "--yes" in one.opts]
        for place in [*takes, None]:
            secret = SECRETS[number % len(SECRETS)]
            number += 1
            line = [*words, *flags]
            for one in takes:
                wanted = one is place or one.required
                value = secret if one is place else GOOD.get(one.name, "x")
                line += ([] if one.param_type_name == "argument" else [one.opts[0]] if wanted else []) + [
                    value
                ] * wanted
            yield " ".join(words), place.name if place else "", line if place else [*line, secret]


@pytest.fixture
def here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    cli("tenant", "add", "acme", "--plan", "team")
    monkeypatch.chdir(cli.folder)
    monkeypatch.setenv("WARDGATE_SEALING_KEYS_FILE", "keys")
    monkeypatch.setenv("WARDGATE_DATABASE_URL", "sqlite+aiosqlite:///w.db")
    monkeypatch.setenv("COLUMNS", "400")
    return cli.folder


def run(line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["wardgate", *line])
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-cp-a-good-value-0123456789"))
    with contextlib.suppress(SystemExit):
        main()
    told = capsys.readouterr()
    return told.out + told.err


def test_secret_in_the_place_of_an_argument_is_kept_and_told_nowhere(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    tried = list(lines())
    for name, place, line in tried:
        said = run(line, monkeypatch, capsys)
        if (name, place) not in KEPT | NAMED and any(secret in said for secret in SECRETS):
            told.append((name, place, said))
        assert "Traceback" not in said, (line, said)
    assert len(tried) > 100
    assert not told, "\n".join(map(repr, told))
    audit = run(["audit", "list", "--limit", "1000", "--json"], monkeypatch, capsys)
    assert audit.count('"seq"') > 60
    assert [secret for secret in SECRETS if secret in audit] == []
    assert "(not a name)" in audit
    assert os.environ["WARDGATE_DATABASE_URL"].encode() not in (here / "w.db").read_bytes()


def test_whole_token_is_taken_for_its_id(cli: Cli) -> None:
    cli("tenant", "add", "acme", "--plan", "team")
    first, second = cli("token", "create", "acme").strip(), cli("token", "create", "acme").strip()
    assert cli.json("token", "revoke", first) == {"id": first.split("_")[2], "revoked": True}
    rotated = cli("token", "rotate", f" {second} ")
    assert rotated.startswith("wg_live_") and rotated.strip() != second
    spoilt = second[:-1] + ("a" if second[-1] != "a" else "b")
    assert second[8:40] not in cli("token", "revoke", spoilt, code=1)
    listed = cli("audit", "list", "--json")
    assert first.split("_")[2] in listed and first.split("_")[3] not in listed and second.split("_")[3] not in listed


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules(Settings())


NAMES = {
    Target.KEY: ("OPENAI_API_KEY", "OPENAI_API_KEY (spare)", "STRIPE_SECRET", "stripe_secret"),
    Target.TENANT: ("acme", "a-1", "42"),
    Target.TOKEN: ("Ab3dEf6hIj9l",),
    Target.PROVIDER: ("openai", "minimax"),
    Target.CHANGE: ("retire minimax", "rename minimax minimax-3", "diff next.toml", "retire"),
    Target.PLAN: ("team", "enterprise"),
    Target.ROOT_KEY: ("k1", "k202611a"),
    Target.BATCH: ("7d3f0a34-4a44-4f5c-9f0e-7ed0a1a0b0c1",),
    Target.MODEL: ("auto", "openai/gpt-4o-mini", "vertex/google/gemini-2.5-flash"),
}


@pytest.mark.parametrize("kind", Target)
def test_target_is_noted_where_it_is_a_name_of_its_kind(kind: Target, rules: Rules) -> None:
    assert [noted(kind, name, rules) for name in NAMES.get(kind, ())] == list(NAMES.get(kind, ()))
    token = "wg_live_" + "A" * 12 + "_" + "b" * 49
    for text in (
        *SECRETS,
        token,
        "os.environ/X Y",
        "a\nb",
        f"rename minimax {SECRETS[0]}",
        f"OPENAI_API_KEY ({token})",
    ):
        assert noted(kind, text, rules) == "(not a name)"
    assert noted(kind, "", rules) == ""


def test_error_keeps_words_that_help_and_loses_secrets() -> None:
    assert without_secrets("there is no tenant 'acne'", ["acne"]) == "there is no tenant 'acne'"
    for secret in SECRETS:
        assert without_secrets(f"no key {secret!r}", ["key", f"--x={secret}"]) == "no key (not a name)"
        assert without_secrets(f"no {secret[:2]}{secret}", [f" {secret} "]) == f"no {secret[:2]}(not a name)"
    assert without_secrets("'it\\'s\\n\"' no", ["it's\n\""]) == "(not a name) no"
    assert may_be_said("/srv/wardgate/next.toml") and may_be_said("7d3f0a34-4a44-4f5c-9f0e-7ed0a1a0b0c1")
    assert not may_be_said("postgresql://me:pass@db/x")
