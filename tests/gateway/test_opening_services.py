"""A start that fails leaves nothing open and nothing behind."""

import asyncio
import os
from pathlib import Path

import pytest
import structlog

from gateway.opening import open_services
from gateway.settings import read_settings
from router.errors import ModelError
from tests.gateway.commands import Commands
from tests.harness import sandbox_config

NO_SUCH_MODEL = '[models."minimax/there-is-none".prices]\ninput = "1"\n'


def test_journal_is_closed_when_the_prices_stop_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of `[models]` are looked at when the journal is open already."""
    Commands(tmp_path, monkeypatch)
    Path("wardgate.toml").write_text(sandbox_config("http://127.0.0.1:9", NO_SUCH_MODEL))
    files = open_files()
    with pytest.raises(ModelError):
        asyncio.run(open_services(read_settings(os.environ), lambda *_: None, structlog.get_logger()))
    assert list(Path("journal").iterdir()) == []
    assert open_files() == files


def open_files() -> set[str]:
    """Of this process, that lie where the test is."""
    own = Path("/proc/self/fd")
    found = {each.readlink() for each in own.iterdir() if each.exists()}
    return {str(each) for each in found if each.is_relative_to(Path.cwd())}
