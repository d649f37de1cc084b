"""Parts that hang or fail when they are closed: told by name, and none keeps the others from closing."""

import asyncio
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.closing import REPEATS_S, close_services
from gateway.logs import configure_logs
from gateway.opening import open_services
from gateway.sandbox.server import SandboxServer
from keystore.errors import DatabaseUnavailable
from tests.harness import RunningGateway, sandbox_config


class Hanging:
    """Does not close, and says when it was told to leave it."""

    cancelled = False

    async def close(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


class Failing:
    """Cannot be closed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def close(self) -> None:
        raise self._error


async def test_what_hangs_and_what_fails_is_told_and_the_rest_is_closed(tmp_path: Path, sandbox: SandboxServer) -> None:
    said = io.StringIO()
    log = configure_logs("info", said)
    services = await open_services(RunningGateway(tmp_path, sandbox_config(sandbox.url)).settings, lambda *_: None, log)
    hanging: Any = Hanging()
    budgets: Any = Failing(DatabaseUnavailable("the database is away"))
    keeper: Any = Failing(RuntimeError("odd"))
    journal = list((tmp_path / "journal").iterdir())
    began = time.monotonic()
    await close_services(replace(services, repeats=hanging, budgets=budgets, keeper=keeper), log)
    assert REPEATS_S <= time.monotonic() - began < REPEATS_S + 3
    assert hanging.cancelled
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    told = {line["what"]: line for line in lines if line["event"] == "stop.not_done"}
    assert told.keys() == {"repeats", "decisions", "budgets"}
    assert told["repeats"]["after_s"] == REPEATS_S
    assert told["budgets"]["why"] == "the database is away"
    assert "RuntimeError: odd" in told["decisions"]["exception"]
    assert journal and not list((tmp_path / "journal").iterdir()), "it was finished, and is gone"
