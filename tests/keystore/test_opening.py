"""Opening the keystore: what a first start makes, and every database or ring that stops the start."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from keystore.engine import Database, parse_url, sqlite_path
from keystore.errors import (
    DatabaseUnavailable,
    KeystoreError,
    RingDamaged,
    RingExposed,
    RingMismatch,
    RingMissing,
    SchemaBehind,
    SchemaNewer,
    SealingError,
)
from keystore.keystore import Keystore, SealingSource
from keystore.providers import Registry
from keystore.secret import Secret
from tests.keystore.conftest import FakeClock, World, administer
from tests.keystore.test_rootkeys import NEW, OLD, WRONG, line

NOBODY = 65534


async def filled(world: World) -> str:
    """A database with one tenant's sealed key in it; the tenant's slug."""
    keystore = await world.open()
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-0123456789")
    await keystore.close()
    return tenant.slug


async def opens_to(world: World, slug: str) -> str:
    keystore = await world.open()
    try:
        ring = await keystore.keyring(await keystore.tenants.get(slug))
        return keystore.unseal(ring, "minimax").secret.reveal()
    finally:
        await keystore.close()


async def refusal(world: World, **changes: object) -> KeystoreError:
    with pytest.raises(KeystoreError) as refused:
        await world.open(**changes)
    return refused.value


# --- first start ---------------------------------------------------------------------------------------------------


async def test_first_start_makes_tables_and_ring(empty_world: World) -> None:
    keystore = await empty_world.open()
    await keystore.ping()
    await keystore.close()
    assert stat.S_IMODE(empty_world.ring.stat().st_mode) == 0o600
    rows = await empty_world.sql("SELECT kek_id, state FROM wardgate_root_keys")
    assert rows == [("k202611a", "active")]
    path = sqlite_path(parse_url(empty_world.url))
    if path is not None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await empty_world.sql("PRAGMA journal_mode") == [("wal",)]


async def test_second_start_finds_everything_again(empty_world: World) -> None:
    slug = await filled(empty_world)
    before = empty_world.ring.read_bytes()
    assert await opens_to(empty_world, slug) == "mm-0123456789"
    assert await opens_to(empty_world, slug) == "mm-0123456789"
    assert empty_world.ring.read_bytes() == before


async def test_first_start_makes_one_ring_when_two_start_at_once(empty_world: World) -> None:
    first, second = await asyncio.gather(empty_world.open(), empty_world.open())
    tenant = await first.tenants.add("acme", "team")
    await first.credentials.set(tenant, "MINIMAX_API_KEY", "mm-0123456789")
    ring = await second.keyring(await second.tenants.get("acme"))
    assert second.unseal(ring, "minimax").secret.reveal() == "mm-0123456789"
    assert await empty_world.sql("SELECT count(*) FROM wardgate_root_keys") == [(1,)]
    await first.close()
    await second.close()


async def test_first_start_takes_the_newest_key_when_the_ring_has_two(world: World) -> None:
    world.ring.write_text(f"{line('k202606a', OLD)}\n{line('k202611a', NEW)}\n")
    world.ring.chmod(0o600)
    await filled(world)
    rows = await world.sql("SELECT kek_id, state FROM wardgate_root_keys ORDER BY kek_id")
    assert rows == [("k202606a", "decrypt"), ("k202611a", "active")]
    assert await world.sql("SELECT kek_id FROM wardgate_tenant_keys") == [("k202611a",)]


async def test_start_makes_no_file_when_the_ring_is_given_as_text(world: World) -> None:
    keystore = await world.open(sealing=SealingSource(Secret(line("k202611a", NEW)), world.ring))
    await keystore.close()
    assert not world.ring.exists()


async def test_database_directory_is_made_when_it_stands_in_the_working_directory(
    tmp_path: Path, clock: FakeClock, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world = World("sqlite+aiosqlite:///var/wardgate.db", Path("var/sealing.keys"), clock, registry)
    keystore = await world.open()
    await keystore.close()
    assert {path.name for path in (tmp_path / "var").iterdir()} >= {"wardgate.db", "sealing.keys"}
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700


# --- the ring that is not the right one ----------------------------------------------------------------------------


async def test_start_stops_when_the_ring_is_gone(world: World) -> None:
    await filled(world)
    world.ring.unlink()
    error = await refusal(world)
    assert isinstance(error, RingMissing)
    assert str(world.ring) in str(error)
    assert "k202611a" in str(error)
    assert not world.ring.exists()


async def test_start_stops_when_the_ring_is_gone_before_anything_was_sealed(world: World) -> None:
    keystore = await world.open()
    await keystore.close()
    world.ring.unlink()
    assert isinstance(await refusal(world), RingMissing)
    assert not world.ring.exists()


async def test_start_stops_when_there_is_no_ring_and_none_may_be_made(world: World) -> None:
    assert isinstance(await refusal(world, create=False), RingMissing)
    assert not world.ring.exists()
    assert await world.sql("SELECT count(*) FROM wardgate_root_keys") == [(0,)]


async def test_start_stops_when_the_ring_cannot_be_made(world: World, tmp_path: Path) -> None:
    error = await refusal(world, sealing=SealingSource(None, tmp_path / "no" / "such" / "sealing.keys"))
    assert isinstance(error, SealingError)
    assert "there is no directory" in str(error)
    assert await world.sql("SELECT count(*) FROM wardgate_root_keys") == [(0,)]


RINGS: dict[str, tuple[Callable[[bytes], bytes], int, type[SealingError]]] = {
    "another key of the same id": (lambda ring: line("k202611a", WRONG).encode(), 0o600, RingMismatch),
    "a key of another id": (lambda ring: line("k202612a", NEW).encode(), 0o600, RingMissing),
    "emptied": (lambda ring: b"", 0o600, RingDamaged),
    "cut short": (lambda ring: ring[:-10], 0o600, RingDamaged),
    "one letter lost": (lambda ring: ring.replace(b"k202611a:", b"k202611a"), 0o600, RingDamaged),
    "not text": (lambda ring: b"\x80\x81" + ring, 0o600, RingDamaged),
    "readable by others": (lambda ring: ring, 0o644, RingExposed),
}


@pytest.mark.parametrize(("spoil", "mode", "error"), RINGS.values(), ids=list(RINGS))
async def test_start_stops_and_writes_nothing_when_the_ring_is_wrong(
    world: World, spoil: Callable[[bytes], bytes], mode: int, error: type[SealingError]
) -> None:
    slug = await filled(world)
    right = world.ring.read_bytes()
    world.ring.write_bytes(spoil(right))
    world.ring.chmod(mode)
    wrong = world.ring.read_bytes()
    tables = ("wardgate_root_keys", "wardgate_tenant_keys", "wardgate_credentials")
    before = [await world.sql(f"SELECT * FROM {table}") for table in tables]

    assert isinstance(await refusal(world), error)

    assert world.ring.read_bytes() == wrong
    assert stat.S_IMODE(world.ring.stat().st_mode) == mode
    assert [await world.sql(f"SELECT * FROM {table}") for table in tables] == before
    world.ring.write_bytes(right)
    world.ring.chmod(0o600)
    assert await opens_to(world, slug) == "mm-0123456789"


async def test_start_stops_when_the_database_forgot_its_ring(world: World) -> None:
    await filled(world)
    await world.sql("DELETE FROM wardgate_root_keys")
    assert isinstance(await refusal(world), RingMismatch)
    assert await world.sql("SELECT count(*) FROM wardgate_root_keys") == [(0,)]


async def test_start_goes_on_when_a_key_was_added_to_the_ring(world: World) -> None:
    slug = await filled(world)
    with world.ring.open("a") as ring:
        ring.write(line("k202612a", NEW) + "\n")
    assert await opens_to(world, slug) == "mm-0123456789"
    assert await world.sql("SELECT kek_id FROM wardgate_root_keys") == [("k202611a",)]


# --- the database that is not there, not ours, or not writable -----------------------------------------------------


async def test_start_stops_when_the_schema_is_newer(world: World) -> None:
    await world.sql("UPDATE wardgate_schema SET version_num = '9999'")
    error = await refusal(world)
    assert isinstance(error, SchemaNewer)
    assert "newer Wardgate" in str(error)
    assert await world.sql("SELECT version_num FROM wardgate_schema") == [("9999",)]
    assert not world.ring.exists()


async def test_start_stops_when_the_database_is_empty_and_nothing_may_be_made(empty_world: World) -> None:
    error = await refusal(empty_world, create=False)
    assert "wardgate migrate" in str(error)
    path = sqlite_path(parse_url(empty_world.url))
    if path is None:
        assert isinstance(error, SchemaBehind)
    else:
        assert isinstance(error, DatabaseUnavailable)
        assert not path.exists()


async def test_start_stops_when_other_tables_have_our_names(empty_world: World, tmp_path: Path) -> None:
    path = sqlite_path(parse_url(empty_world.url))
    if path is not None:
        path.touch()
    await empty_world.sql("CREATE TABLE wardgate_tenants (id integer)")
    error = await refusal(empty_world)
    assert isinstance(error, DatabaseUnavailable)
    assert "did not make" in str(error)
    assert "wardgate_tenants" in str(error)


def world_at(url: str, tmp_path: Path, registry: Registry) -> World:
    return World(url, tmp_path / "sealing.keys", FakeClock(), registry)


async def test_start_stops_when_the_directory_is_missing(tmp_path: Path, registry: Registry) -> None:
    world = world_at(f"sqlite+aiosqlite:///{tmp_path}/no/such/wardgate.db", tmp_path, registry)
    error = await refusal(world)
    assert isinstance(error, DatabaseUnavailable)
    assert "there is no directory" in str(error)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("content", [b"this is no database, it is a letter" * 100, b"\x00" * 5000])
async def test_start_stops_when_the_file_is_no_database(tmp_path: Path, registry: Registry, content: bytes) -> None:
    path = tmp_path / "letter.db"
    path.write_bytes(content)
    error = await refusal(world_at(f"sqlite+aiosqlite:///{path}", tmp_path, registry))
    assert isinstance(error, DatabaseUnavailable)
    assert "not a database" in str(error)
    assert path.read_bytes() == content


async def test_start_stops_when_the_path_is_a_directory(tmp_path: Path, registry: Registry) -> None:
    error = await refusal(world_at(f"sqlite+aiosqlite:///{tmp_path}", tmp_path, registry))
    assert isinstance(error, DatabaseUnavailable)
    assert "cannot be opened" in str(error)


async def test_start_stops_when_sqlite_is_opened_read_only(
    migrated_sqlite: Path, tmp_path: Path, registry: Registry
) -> None:
    world = world_at(f"sqlite+aiosqlite:///file:{migrated_sqlite}?mode=ro&uri=true", tmp_path, registry)
    error = await refusal(world)
    assert isinstance(error, DatabaseUnavailable)
    assert "is read-only" in str(error)
    assert not world.ring.exists()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


OPEN_AS_NOBODY = """
import asyncio, os, sys
from pathlib import Path
from keystore.errors import DatabaseUnavailable
from keystore.keystore import Keystore, SealingSource
from keystore.providers import load_registry

async def start(url, ring):
    keystore = await Keystore.open(database_url=url, sealing=SealingSource(None, Path(ring)),
                                   registry=load_registry(), known_plans=[], create=True)
    await keystore.close()

other, url, nobody = sys.argv[1:]
asyncio.run(start(other, other.partition("///")[2] + ".ring"))  # what is to be imported, is; nobody may not read it all
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(nobody))
    os.setuid(int(nobody))
try:
    asyncio.run(start(url, "/nowhere/ring"))
except DatabaseUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_start_stops_when_the_file_system_says_read_only(
    journal: str, open_directory: Path, migrated_sqlite: Path, tmp_path: Path
) -> None:
    """A user who may read the file but not write it: run by root, the child becomes such a user."""
    path = open_directory / "wardgate.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
    path.chmod(0o444)
    open_directory.chmod(0o555)
    urls = [f"sqlite+aiosqlite:///{tmp_path / 'other.db'}", f"sqlite+aiosqlite:///{path}"]
    run = subprocess.run(
        [sys.executable, "-c", OPEN_AS_NOBODY, *urls, str(NOBODY)], capture_output=True, text=True, check=False
    )
    open_directory.chmod(0o755)
    assert run.stderr == ""
    assert run.stdout.startswith(f'SQLite database "{path}" is read-only')


@pytest.mark.services
async def test_start_stops_when_postgres_is_read_only(pg_world: World) -> None:
    database = urlsplit(pg_world.url).path[1:]
    administer(pg_world.url, f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    error = await refusal(pg_world)
    assert isinstance(error, DatabaseUnavailable)
    assert "is read-only" in str(error)
    assert not pg_world.ring.exists()


@pytest.mark.services
async def test_start_stops_when_the_role_may_not_write(pg_world: World) -> None:
    role = f"reader_{os.getpid()}"
    administer(pg_world.url, f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        reader = pg_world.url.replace("postgres@", f"{role}:hunter2@")
        error = await refusal(pg_world, database_url=reader)
    finally:
        administer(pg_world.url, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert isinstance(error, DatabaseUnavailable)
    assert "does not let this role read and write" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.services
async def test_start_stops_when_the_database_does_not_exist(pg_dsn: str, tmp_path: Path, registry: Registry) -> None:
    world = World(pg_dsn.replace("/postgres?", "/nothing?"), tmp_path / "ring", FakeClock(), registry)
    error = await refusal(world)
    assert isinstance(error, DatabaseUnavailable)
    assert '"nothing"' in str(error)
    assert "does not exist" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@127.0.0.1:1/wardgate",
        "postgres://user:hunter2@/wardgate?host=/nowhere",
        "postgresql+asyncpg://user:hunter2@127.0.0.1:1/wardgate?sslmode=disable",
    ],
)
async def test_start_stops_when_postgres_does_not_answer(url: str, tmp_path: Path, registry: Registry) -> None:
    error = await refusal(World(url, tmp_path / "ring", FakeClock(), registry))
    assert isinstance(error, DatabaseUnavailable)
    assert 'PostgreSQL database "wardgate" at' in str(error)
    assert "does not answer" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("hunter2", "not a URL"),
        ("", "not a URL"),
        ("mysql://user:hunter2@db/wardgate", "mysql"),
        ("postgresql+psycopg://user:hunter2@db/wardgate", "psycopg"),
        ("sqlite+aiosqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("postgresql://user:hunter2@127.0.0.1:1/wardgate?colour=hunter2", "parameter"),
        ("postgresql://user:hunter2@127.0.0.1:port/wardgate", "not a URL"),
        ("postgresql://user:hunter2@ho\x00st/wardgate", "not a URL"),
        ("postgresql://user:hunter2@/wardgate?host=/nowhere&port=hunter2", "parameter"),
    ],
)
async def test_start_stops_when_the_url_is_wrong(url: str, word: str, tmp_path: Path, registry: Registry) -> None:
    error = await refusal(World(url, tmp_path / "ring", FakeClock(), registry))
    assert isinstance(error, DatabaseUnavailable)
    assert word in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.services
async def test_url_means_what_it_means_to_libpq(pg_world: World) -> None:
    words = "sslmode=prefer&application_name=shop&connect_timeout=3&options=-csearch_path%3Dpublic%20-c%20jit%3Doff"
    keystore = await pg_world.open(database_url=pg_world.url.replace("postgresql:", "postgres:") + "&" + words)
    seen = await pg_world.sql(
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"
    )
    async with keystore._database.read() as connection:
        jit = (await connection.execute(text("SHOW jit"))).scalar_one()
    await keystore.close()
    assert ("shop",) in seen
    assert jit == "off"


@pytest.mark.services
async def test_keystore_goes_on_when_its_connections_were_cut(pg_world: World) -> None:
    keystore = await pg_world.open()
    await keystore.ping()
    administer(pg_world.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    await keystore.ping()
    await keystore.close()


async def test_keystore_says_so_when_the_database_goes_away(world: World) -> None:
    keystore = await world.open()
    await world.sql("ALTER TABLE wardgate_tenants RENAME TO gone")
    with pytest.raises(DatabaseUnavailable):
        await keystore.tenants.list()
    await keystore.close()


async def test_keystore_shows_no_secret_when_shown(world: World) -> None:
    keystore: Keystore = await world.open()
    key = world.ring.read_text().rpartition(":")[2].strip()
    assert key not in repr(keystore)
    await keystore.close()


# --- a root key is lost ---------------------------------------------------------------------------------------------


async def half_lost(world: World) -> None:
    """Two tenants, one wrapped by each of two root keys; the second, which also wraps the service keys, is lost."""
    await filled(world)
    keystore = await world.open()
    second = await keystore.sealing.add()
    await keystore.sealing.activate(second)
    beta = await keystore.tenants.add("beta", "team")
    await keystore.credentials.set(beta, "MINIMAX_API_KEY", "mm-9876543210")
    await keystore.close()
    await world.sql(f"UPDATE wardgate_root_keys SET kek_id = kek_id WHERE kek_id = '{second}'")
    kept = [each for each in world.ring.read_text().splitlines() if not each.startswith(f"{second}:")]
    world.ring.write_text("\n".join(kept) + "\n")


async def test_looking_goes_on_with_the_root_keys_that_are_left(world: World) -> None:
    await half_lost(world)
    assert "put it back" in str(await refusal(world))
    keystore = await world.open(partial=True)
    try:
        assert len(keystore.lacking) == 1
        assert {one.present: one.tenant_keys for one in await keystore.sealing.status()} == {True: 1, False: 1}
        tally = await keystore.sealing.verify()
        assert tally.failed == 2 and tally.succeeded >= 2
        tenants = {one.slug: one for one in await keystore.tenants.list()}
        held = {slug: (await keystore.credentials.list(one))[0].unusable for slug, one in tenants.items()}
        assert (held["acme"], str(held["beta"])) == (None, "damaged")
    finally:
        await keystore.close()


async def test_wrong_root_key_is_refused_even_for_looking(world: World) -> None:
    await half_lost(world)
    lost = await world.sql("SELECT kek_id FROM wardgate_root_keys WHERE state = 'active'")
    world.ring.write_text(world.ring.read_text() + line(lost[0][0], WRONG))
    assert isinstance(await refusal(world, partial=True), RingMismatch)


@pytest.mark.services
@pytest.mark.parametrize(("commits", "as_it_is"), [("off", "on"), ("remote_apply", "remote_apply"), ("on", "on")])
async def test_sessions_see_what_is_committed_and_commit_to_the_disk(
    commits: str, as_it_is: str, pg_world: World
) -> None:
    """Whatever was set for the role: budgets are counted by what others committed, and journals go after a commit."""
    options = f"-c default_transaction_isolation=serializable -c synchronous_commit={commits}"
    database = Database(parse_url(pg_world.url).update_query_dict({"options": options}).render_as_string(False))
    shown = []
    async with database.write() as connection:
        for name in ("transaction_isolation", "synchronous_commit"):
            shown.append((await connection.execute(text(f"SHOW {name}"))).scalar_one())
    await database.close()
    assert shown == ["read committed", as_it_is]
