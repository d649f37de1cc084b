"""One gateway per test over a sandbox upstream. The database is SQLite unless a test asks for another."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.sandbox.server import SandboxServer
from tests import services
from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.control import Control, Found, prepared, routes_of
from tests.scenarios.surfaces import Stage, stage


@pytest.fixture
def gateway(tmp_path: Path, sandbox: SandboxServer) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as running:
        yield running


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One stage for a module, with what it says in TABLES."""
    with stage(tmp_path_factory.mktemp("gw"), tables=getattr(request.module, "TABLES", "")) as running:
        yield running


@pytest.fixture
def scene(shared: Stage) -> Stage:
    """The module's stage, as if nothing had been asked yet."""
    shared.clear()
    return shared


@pytest.fixture(scope="module")
def token(shared: Stage) -> str:
    return shared.token()


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def control(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer
) -> Iterator[Control]:
    """One gateway for all tests of the control plane, on each database. No test counts on being alone."""
    folder = tmp_path_factory.mktemp("control")
    with ExitStack() as stack:
        url = ""
        if request.param == "postgres":
            url = stack.enter_context(services.database(request.getfixturevalue("pg_dsn")))
        config = sandbox_config(running_sandbox.url, '[prices]\nurls = ["file:/nowhere/prices.json"]\n')
        running = stack.enter_context(RunningGateway(folder, config, url))
        ready = prepared(running)
        stack.enter_context(ready.client)
        yield ready


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """Every route of the application."""
    folder = tmp_path_factory.mktemp("routes")
    return routes_of(RunningGateway(folder, "").settings)
