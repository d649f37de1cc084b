"""The command line in this process: as fast as it can be, for tests that need many commands."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.ends import sentence_of
from gateway.cli.root import app

ENVIRONMENT = {
    "WARDGATE_DATABASE_URL": "sqlite+aiosqlite:///w.db",
    "WARDGATE_SEALING_KEYS_FILE": "keys",
    "COLUMNS": "200",
}


class Commands:
    """`wardgate` over a database of its own in `folder`; as tests.gateway.test_cli.Cli."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        self.folder = folder

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints, or the sentence in which it fails."""
        done = CliRunner().invoke(app, list(arguments), env=dict(os.environ))
        failed = done.exception if isinstance(done.exception, Exception) else None
        sentence = None if failed is None else sentence_of(failed)
        if failed is not None and sentence is None:
            raise failed
        assert done.exit_code == code, done.output
        return done.output if sentence is None else sentence

    def json(self, *arguments: str) -> object:
        return json.loads(self(*arguments, "--json"))
