"""`wardgate webhook` as scripts and people use it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.root import app
from tests.gateway.alerting.test_signing import documented
from tests.gateway.commands import Commands
from tests.receiver import Receiver, receiver


@pytest.fixture
def heard() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Receiver) -> Commands:
    (tmp_path / "wardgate.toml").write_text(f'[alerts]\nwebhook_hosts = ["{heard.host}"]\n')
    return Commands(tmp_path, monkeypatch)


def read(cli: Commands, *arguments: str) -> dict[str, Any]:
    found = cli.json("webhook", *arguments)
    assert isinstance(found, dict)
    return found


def test_operator_adds_tests_rotates_and_removes(cli: Commands, heard: Receiver) -> None:
    made = read(cli, "add", heard.url + "/path-secret", "--name", "pager")
    webhook, secret = made.pop("id"), made.pop("secret")
    assert (made["name"], made["host"]) == ("pager", heard.host)
    tried = read(cli, "test", webhook)
    assert tried == {"id": webhook, "delivered": True, "status": 204, "why": None}
    assert documented()(secret, heard.heard[0].headers, heard.heard[0].body)
    assert (heard.heard[0].path, heard.heard[0].message["data"]) == ("/path-secret", {"webhook": webhook})

    another = read(cli, "rotate", webhook, "--overlap-hours", "1")["secret"]
    assert another != secret
    read(cli, "test", webhook)
    assert all(documented()(each, heard.heard[1].headers, heard.heard[1].body) for each in (secret, another))
    another = read(cli, "rotate", webhook, "--overlap-hours", "0")["secret"]
    read(cli, "test", webhook)
    signed = [documented()(each, heard.heard[2].headers, heard.heard[2].body) for each in (secret, another)]
    assert signed == [False, True]

    listed = cli("webhook", "list") + cli("webhook", "list", "--json") + cli("audit", "list", "--json")
    assert webhook in listed and "path-secret" not in listed and "whsec_" not in listed
    assert f"{webhook} at {heard.host} is removed." in cli("webhook", "remove", webhook)
    assert "There are no webhooks" in cli("webhook", "list")
    assert f"there is no webhook '{webhook}'" in cli("webhook", "test", webhook, code=1)


def test_receiver_that_refuses_is_told_with_exit_code_3(cli: Commands, heard: Receiver) -> None:
    webhook, heard.statuses = read(cli, "add", heard.url)["id"], [500]
    assert f"{webhook}: not delivered: the receiver answered 500." in cli("webhook", "test", webhook, code=3)


@pytest.mark.parametrize("url", ["https://127.0.0.1/path-secret", "http://hooks.example/path-secret", "path-secret"])
def test_url_that_may_not_be_asked_is_not_stored_and_not_quoted(cli: Commands, url: str) -> None:
    said = cli("webhook", "add", url, code=1)
    assert "webhook" in said or "URL" in said
    assert "path-secret" not in said
    assert "There are no webhooks" in cli("webhook", "list")


def test_overlap_that_is_none_is_refused(cli: Commands, heard: Receiver) -> None:
    webhook = read(cli, "add", heard.url)["id"]
    for hours in ("-1", "169", "nan"):
        assert "--overlap-hours must be from 0 to 168" in cli(
            "webhook", "rotate", webhook, f"--overlap-hours={hours}", code=1
        )


def test_url_may_come_from_stdin(cli: Commands, heard: Receiver) -> None:
    done = CliRunner().invoke(
        app, ["webhook", "add", "-", "--json"], input=heard.url + "/path-secret\n", env=dict(os.environ)
    )
    assert done.exit_code == 0 and json.loads(done.stdout)["host"] == heard.host
