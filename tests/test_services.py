"""The real servers of the test session: they answer, they are empty, they leave nothing behind, they never hide."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import redis

from tests import services
from tests.conftest import SKIP_VARIABLE

STARTS_AND_WAITS = """
import sys
from tests import services
with services.{server}() as location:
    print(location, flush=True)
    sys.stdin.read()
"""


async def _value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_postgres_answers_when_asked(pg_dsn: str) -> None:
    assert await _value(pg_dsn, "SELECT 6 * 7") == 42


async def test_fresh_database_is_empty_and_gone_when_left(pg_dsn: str) -> None:
    with services.database(pg_dsn) as dsn:
        assert await _value(dsn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert await _value(dsn, "CREATE TABLE t (n int)") is None
        still_connected = await asyncpg.connect(dsn)
    still_connected.terminate()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn)


async def test_fresh_database_is_another_one_when_used_twice(fresh_database: str, pg_dsn: str) -> None:
    with services.database(pg_dsn) as other:
        assert len({fresh_database, other, pg_dsn}) == 3


def test_valkey_answers_when_asked(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_fresh_redis_is_empty_when_something_was_left(redis_url: str, request: pytest.FixtureRequest) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("left", "behind")
        assert request.getfixturevalue("fresh_redis") == redis_url
        assert client.dbsize() == 0


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_server_and_files_are_gone_when_the_test_process_is_killed(server: str) -> None:
    command = [sys.executable, "-c", STARTS_AND_WAITS.format(server=server)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=_without_servers(), text=True, **pipes) as process:  # type: ignore[call-overload]
        location = process.stdout.readline().strip()
        with _connected(location):
            process.kill()
            process.stderr.read()  # ends when the guard, which holds the other end, has finished
    with pytest.raises(OSError), _connected(location):
        pass
    if server == "postgres":
        assert not _socket_directory(location).exists()


@pytest.mark.parametrize(("skip", "outcome"), [("", "1 error"), ("1", "1 skipped")])
def test_missing_server_fails_unless_skipping_is_asked_for(skip: str, outcome: str, tmp_path: Path) -> None:
    test = f"{__file__}::test_postgres_answers_when_asked"
    environment = {**_without_servers(), services.PG_BIN_VARIABLE: str(tmp_path), SKIP_VARIABLE: skip}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", test]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert outcome in done.stdout
    assert f"no PostgreSQL binaries (looked in {tmp_path})" in done.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("worker", "expected"), [("gw3", "redis://h:1/3"), ("", "redis://h:1/0"), ("master", "redis://h:1/0")]
)
def test_shared_redis_gives_each_worker_its_own_database(worker: str, expected: str) -> None:
    assert services.own_redis_database("redis://h:1/0", worker) == expected


def _without_servers() -> dict[str, str]:
    """Our environment, without the servers that somebody may have set."""
    ours = {services.DATABASE_URL_VARIABLE, services.REDIS_URL_VARIABLE, services.PG_BIN_VARIABLE, SKIP_VARIABLE}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _socket_directory(dsn: str) -> Path:
    return Path(parse_qs(urlsplit(dsn).query)["host"][0])


def _connected(location: str) -> socket.socket:
    url = urlsplit(location)
    if url.scheme == "redis":
        return socket.create_connection((url.hostname, url.port), 5)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(_socket_directory(location) / ".s.PGSQL.5432"))
    except OSError:
        connection.close()
        raise
    return connection
