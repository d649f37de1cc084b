"""SIGTERM while PostgreSQL is silent: the process ends in the time that is documented, says what it could not do, and
its journal keeps what could not be shipped."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from gateway.closing import CLOSING_S
from gateway.ending import FAREWELL_S
from gateway.sandbox.server import SandboxServer
from tests import services
from tests.gateway.limiting.link import link_to
from tests.harness import eventually, sandbox_config
from tests.scenarios.replicas import replica
from tests.scenarios.truth import select
from tests.served import Served, process_of

pytestmark = pytest.mark.services
LIMITS = "[limits]\ndrain_notice_s = 0\ndrain_s = 0\n"
ROWS = "SELECT count(*) AS rows FROM wardgate_ledger WHERE outcome = 'ok'"


def waits(gateway: Served) -> bool:
    """Rows wait for PostgreSQL."""
    return gateway.metric("wardgate_ledger_pending_lines") > 0


@pytest.mark.parametrize("told", [True, False])
async def test_stop_while_postgres_is_silent(tmp_path: Path, sandbox: SandboxServer, told: bool) -> None:
    """Before anybody noticed, and after it was told."""
    with services.stoppable_postgres() as server:
        path = server.dsn.partition("host=")[2] + "/.s.PGSQL.5432"
        async with link_to(path) as line:
            url = f"postgresql://postgres@127.0.0.1:{line.port}/postgres"
            home = replica(tmp_path, sandbox_config(sandbox.url, LIMITS), url, None, 0)
            token = await asyncio.to_thread(home.tenant, "acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})

            def stopped() -> float:
                with process_of(home, token) as gateway:
                    assert gateway.ask("tokens=2").status_code == 200
                    line.silent = True
                    assert gateway.ask("tokens=2").status_code == 200
                    eventually(lambda: waits(gateway))
                    if told:
                        eventually(lambda: bool(gateway.records("keystore.not_tended")), 60)
                        asked = line.requests
                        eventually(lambda: line.requests > asked + 2, 60)
                    began = time.monotonic()
                    gateway.process.send_signal(signal.SIGTERM)
                    assert gateway.process.wait(90) == 0
                    assert gateway.records("stop.not_done")
                    assert gateway.records("ledger.waiting")
                    return time.monotonic() - began

            assert await asyncio.to_thread(stopped) < FAREWELL_S + CLOSING_S
            assert list((home.folder / "journal").iterdir()), "what could not be shipped is kept"
            line.silent = False

            def shipped() -> None:
                with process_of(home, token):
                    eventually(lambda: asyncio.run(select(home, ROWS))[0]["rows"] == 2, 30)

            await asyncio.to_thread(shipped)
