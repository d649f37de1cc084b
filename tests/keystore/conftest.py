"""Fixtures of the keystore's tests: the same database twice, once SQLite and once PostgreSQL, empty or with our tables.

Both are migrated once for the session; SQLite's file is copied for each test, PostgreSQL's database emptied after each.
"""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from keystore.engine import parse_url
from keystore.keystore import Keystore, SealingSource
from keystore.migrate import migrate
from keystore.providers import Registry, load_registry
from keystore.tables import metadata

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BOTH = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.services)]


@dataclass
class FakeClock:
    """A clock that stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class World:
    """One database and one ring file, and how to open, ask and spoil them."""

    url: str
    ring: Path
    clock: FakeClock
    registry: Registry

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    async def open(self, **changes: Any) -> Keystore:
        wanted: dict[str, Any] = {
            "database_url": self.url,
            "sealing": SealingSource(None, self.ring),
            "registry": self.registry,
            "known_plans": ["free", "solo", "team"],
            "create": True,
            "now": self.clock,
        }
        return await Keystore.open(**(wanted | changes))

    async def sql(self, *statements: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run statements past the keystore, foreign keys aside; the rows of the last one, if it gives any."""
        engine = create_async_engine(parse_url(self.url))
        rows: list[tuple[Any, ...]] = []
        try:
            async with engine.begin() as connection:
                if not self.is_sqlite:
                    await connection.execute(text("SET session_replication_role = replica"))
                for statement in statements:
                    result = await connection.execute(text(statement), values)
                    rows = [tuple(row) for row in result] if result.returns_rows else []
        finally:
            await engine.dispose()
        return rows


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry()


# --- databases -----------------------------------------------------------------------------------------------------


def apart(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in a thread of its own: a fixture of the session has no event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


def administer(dsn: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    apart(run)


def named(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def migrated_postgres(pg_dsn: str) -> Iterator[tuple[str, str]]:
    """The server and the name of a database on it that has our tables, to be copied."""
    name = f"keystore_template_{uuid.uuid4().hex}"
    administer(pg_dsn, f'CREATE DATABASE "{name}"')
    apart(lambda: migrate(named(pg_dsn, name)))
    yield pg_dsn, name
    administer(pg_dsn, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keystore") / "migrated.db"
    apart(lambda: migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """An SQLite database with our tables and nothing in them."""
    path = tmp_path / "wardgate.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite+aiosqlite:///{path}"


@dataclass
class SharedPostgres:
    """One database for many tests: emptied after each, made anew after one that changed more than rows."""

    dsn: str
    template: str
    name: str
    shape: list[tuple[str, ...]] = field(default_factory=list)  # the template's, once it is known

    @property
    def url(self) -> str:
        return named(self.dsn, self.name)

    def make(self) -> None:
        administer(self.dsn, f'CREATE DATABASE "{self.name}" TEMPLATE "{self.template}" STRATEGY FILE_COPY')

    def drop(self) -> None:
        administer(self.dsn, f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    def clean(self) -> None:
        if not apart(self._emptied):
            self.drop()
            self.make()

    async def _emptied(self) -> bool:
        if not self.shape:
            self.shape = await shape_of(named(self.dsn, self.template))
        connection = await asyncpg.connect(self.url)
        try:
            await drop_months(connection)
            if await read_shape(connection) != self.shape:
                return False
            if used := [row["name"] for row in await connection.fetch(USED) if row["name"] in metadata.tables]:
                await connection.execute(f"TRUNCATE {', '.join(used)} CASCADE")
        finally:
            await connection.close()
        return True


MONTHS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass('wardgate_ledger')"
# Truncating a table takes a millisecond, also when nothing was ever written to it.
USED = (
    "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    " AND pg_relation_size(oid) > 0"
)
SHAPE = (
    "SELECT relname, attname, atttypid::regtype::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND NOT attisdropped"
    " UNION ALL SELECT 'revision', version_num, '' FROM wardgate_schema ORDER BY 1, 2"
)


async def drop_months(connection: "asyncpg.Connection[Any]") -> None:
    """Drop the ledger's partitions, which a test makes by writing rows."""
    for (name,) in await connection.fetch(MONTHS):
        await connection.execute(f"DROP TABLE {name}")


async def read_shape(connection: "asyncpg.Connection[Any]") -> list[tuple[str, ...]]:
    """The columns of a database and its schema's revision; empty when it has none."""
    try:
        return [tuple(row) for row in await connection.fetch(SHAPE)]
    except asyncpg.PostgresError:
        return []


async def shape_of(dsn: str) -> list[tuple[str, ...]]:
    """`read_shape` of a database."""
    connection = await asyncpg.connect(dsn)
    try:
        return await read_shape(connection)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def shared_postgres(migrated_postgres: tuple[str, str]) -> Iterator[SharedPostgres]:
    shared = SharedPostgres(*migrated_postgres, name=f"keystore_{uuid.uuid4().hex}")
    shared.make()
    yield shared
    shared.drop()


@pytest.fixture
def postgres_url(shared_postgres: SharedPostgres) -> Iterator[str]:
    """A PostgreSQL database with our tables and nothing in them."""
    yield shared_postgres.url
    shared_postgres.clean()


@pytest.fixture
def own_postgres_url(migrated_postgres: tuple[str, str]) -> Iterator[str]:
    """The same, for a test that sets what holds for a whole database."""
    own = SharedPostgres(*migrated_postgres, name=f"keystore_{uuid.uuid4().hex}")
    own.make()
    yield own.url
    own.drop()


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest) -> str:
    """A database with our tables and nothing in them: the test runs on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=BOTH)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table; the SQLite file is not there yet."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
        return
    dsn = request.getfixturevalue("pg_dsn")
    name = f"keystore_{uuid.uuid4().hex}"
    administer(dsn, f'CREATE DATABASE "{name}"')
    yield named(dsn, name)
    administer(dsn, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def world(database_url: str, tmp_path: Path, clock: FakeClock, registry: Registry) -> World:
    """A migrated database and no ring yet."""
    return World(database_url, tmp_path / "sealing.keys", clock, registry)


@pytest.fixture
def sqlite_world(sqlite_url: str, tmp_path: Path, clock: FakeClock, registry: Registry) -> World:
    """`world`, on SQLite alone."""
    return World(sqlite_url, tmp_path / "sealing.keys", clock, registry)


@pytest.fixture
def pg_world(own_postgres_url: str, tmp_path: Path, clock: FakeClock, registry: Registry) -> World:
    """`world`, on PostgreSQL alone, in a database of its own."""
    return World(own_postgres_url, tmp_path / "sealing.keys", clock, registry)


@pytest.fixture
def empty_world(empty_database_url: str, tmp_path: Path, clock: FakeClock, registry: Registry) -> World:
    """Nothing yet."""
    return World(empty_database_url, tmp_path / "sealing.keys", clock, registry)


@pytest.fixture
async def keystore(world: World) -> AsyncIterator[Keystore]:
    """An open keystore on `world`."""
    opened = await world.open()
    yield opened
    await opened.close()
