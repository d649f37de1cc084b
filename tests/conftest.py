"""Fixtures of the whole suite: the real servers and the sandbox upstream.

A server that is missing fails the test that wants it. WARDGATE_TEST_SKIP_SERVICES=1 is the one way to skip instead.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest
import redis

from gateway.garbage import spare_garbage_collection
from tests import services

if TYPE_CHECKING:
    from gateway.sandbox.server import SandboxServer

SKIP_VARIABLE = "WARDGATE_TEST_SKIP_SERVICES"
SERVICE_FIXTURES = frozenset({"pg_dsn", "redis_url", "fresh_database", "fresh_redis"})


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers that the fixtures here and slow tests use."""
    config.addinivalue_line("markers", "slow: takes seconds, because it imports LiteLLM")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server, so that `-m "not services"` leaves it out."""
    for item in items:
        if SERVICE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("services")


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every HTTP client reads all certificates that it trusts, 30 ms each time. Nobody here asks over TLS who does not
    bring certificates: one is enough."""
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    end = "-----END CERTIFICATE-----\n"
    path.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(scope="session", autouse=True)
def collecting_as_served() -> None:
    """As `wardgate serve` has it: else each full collection looks through all that the tests have imported, and every
    gateway and provider of this process stands still for 0.3 s."""
    spare_garbage_collection()


def _started(server: AbstractContextManager[str]) -> Iterator[str]:
    try:
        location = server.__enter__()
    except services.ServiceError as error:
        if isinstance(error, services.ServiceMissingError) and os.environ.get(SKIP_VARIABLE) == "1":
            pytest.skip(f"{error} ({SKIP_VARIABLE}=1)")
        pytest.fail(f"{error}. {SKIP_VARIABLE}=1 skips these tests where the server is not installed.", pytrace=False)
    try:
        yield location
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def pg_dsn() -> Iterator[str]:
    """A running PostgreSQL: `postgresql://postgres@/postgres?host=<directory>`, or WARDGATE_TEST_DATABASE_URL."""
    yield from _started(services.postgres())


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A running Valkey: `redis://127.0.0.1:<port>/0`, or WARDGATE_TEST_REDIS_URL."""
    yield from _started(services.valkey())


@pytest.fixture
def fresh_database(pg_dsn: str) -> Iterator[str]:
    """The DSN of a new empty database, dropped after the test."""
    with services.database(pg_dsn) as dsn:
        yield dsn


@pytest.fixture
def fresh_redis(redis_url: str) -> str:
    """The Valkey's URL, emptied."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator["SandboxServer"]:
    """One sandbox for the session; tests take `sandbox`."""
    from gateway.sandbox.server import SandboxServer

    with SandboxServer() as server:
        yield server


@pytest.fixture
def sandbox(running_sandbox: "SandboxServer") -> "SandboxServer":
    """The upstream stand-in on a real port, with nothing recorded and nothing scripted."""
    running_sandbox.clear()
    return running_sandbox
