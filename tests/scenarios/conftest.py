"""One gateway per test over a sandbox upstream. The database is SQLite unless a test asks for another."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, sandbox_config


@pytest.fixture
def gateway(tmp_path: Path, sandbox: SandboxServer) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as running:
        yield running
