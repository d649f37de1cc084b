"""The migrations make exactly the tables of keystore.tables, on both databases, all or nothing."""

import asyncio
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, MetaData, inspect
from sqlalchemy.exc import IntegrityError

from keystore import migrate as migrating
from keystore.engine import Database, make_room
from keystore.errors import DatabaseUnavailable
from keystore.migrate import SchemaState, migrate
from keystore.tables import VERSION_TABLE, metadata
from tests.keystore.conftest import World

ALL = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012"]


def test_revisions_are_those_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", "keystore:migrations")
    config.set_main_option("path_separator", "os")
    found = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    assert migrating.revisions() == found[::-1] == ALL


async def in_database(url: str, work: Any, *arguments: Any) -> Any:
    make_room(url, create=True)
    database = Database(url)
    try:
        async with database.write() as connection:
            return await connection.run_sync(work, *arguments)
    finally:
        await database.close()


def differences(connection: Connection) -> list[Any]:
    options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
    found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    return found


def shape(connection: Connection) -> dict[str, Any]:
    """Everything the database itself says about our tables: what comparison by Alembic leaves out as well."""
    look: Inspector = inspect(connection)
    return {
        name: {
            "columns": [(column["name"], str(column["type"]), column["nullable"]) for column in look.get_columns(name)],
            "primary": look.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted(str(each["column_names"]) for each in look.get_unique_constraints(name)),
            "checks": sorted((str(each["name"]), str(each["sqltext"])) for each in look.get_check_constraints(name)),
            "foreign": sorted(str((each["name"], each["referred_table"])) for each in look.get_foreign_keys(name)),
            "indexes": sorted(
                f"{each['name']} {each['column_names']} {each['unique']} {_where(each)}"
                for each in look.get_indexes(name)
            ),
        }
        for name in metadata.tables
    }


def _where(index: Any) -> list[str]:
    return [str(value) for value in index.get("dialect_options", {}).values()]


def downgrade(connection: Connection) -> list[str]:
    """Undo every migration; the tables of ours that are left."""
    command.downgrade(migrating._config(connection), "base")
    return [name for name in inspect(connection).get_table_names() if name in metadata.tables]


def upgrade_to(connection: Connection, revision: str) -> None:
    command.upgrade(migrating._config(connection), revision)


async def test_migrations_make_the_tables(world: World) -> None:
    assert await in_database(world.url, differences) == []


async def test_migrations_make_the_same_as_the_tables_would(world: World) -> None:
    migrated = await in_database(world.url, shape)
    await in_database(world.url, downgrade)
    await in_database(world.url, metadata.create_all)
    assert migrated == await in_database(world.url, shape)


async def test_difference_is_seen_when_there_is_one(world: World) -> None:
    await world.sql("ALTER TABLE wardgate_tenants ADD COLUMN colour TEXT")
    assert len(await in_database(world.url, differences)) == 1


async def test_migrate_says_what_it_applied(empty_world: World) -> None:
    assert await migrate(empty_world.url) == ALL
    assert await migrate(empty_world.url) == []


async def test_migrate_works_once_when_started_three_times_at_once(empty_world: World) -> None:
    applied = await asyncio.gather(*(migrate(empty_world.url) for _ in range(3)))
    assert sorted(applied, key=len) == [[], [], ALL]


async def test_migrate_says_what_is_missing_when_the_revision_is_current(world: World) -> None:
    """As in a database of before our tables carried our name."""
    await world.sql("ALTER TABLE wardgate_tokens RENAME TO tokens")
    for work in (migrate(world.url), world.open()):
        with pytest.raises(DatabaseUnavailable, match=r"says that its schema is current.*lacks.* wardgate_tokens:"):
            await work
    await world.sql("ALTER TABLE tokens RENAME TO wardgate_tokens")
    assert await migrate(world.url) == []


async def test_tables_are_found_when_another_schema_stands_before_theirs(pg_world: World) -> None:
    await pg_world.sql("CREATE SCHEMA front")
    assert await migrate(pg_world.url + "&options=-csearch_path%3Dfront,public") == []


async def test_downgrade_leaves_nothing(world: World) -> None:
    assert await in_database(world.url, downgrade) == []


async def test_migration_leaves_other_tables_alone(empty_world: World) -> None:
    await in_database(empty_world.url, MetaData().create_all)
    await empty_world.sql(
        "CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)",
        "INSERT INTO tenant_settings VALUES ('a', 'b', 'c')",
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('of-another-application')",
    )
    keystore = await empty_world.open()
    await keystore.close()
    assert await empty_world.sql("SELECT * FROM tenant_settings") == [("a", "b", "c")]
    assert await empty_world.sql("SELECT * FROM alembic_version") == [("of-another-application",)]


async def test_rows_of_an_earlier_schema_live_on(empty_world: World) -> None:
    """From each earlier schema: what stood there stands there still, under the new one's rules."""
    now: object = "2026-11-20 12:00:00.000000" if empty_world.is_sqlite else empty_world.clock()
    await in_database(empty_world.url, upgrade_to, "0001")
    await empty_world.sql(
        "INSERT INTO wardgate_tenants VALUES ('t', 'acme', 'Acme', 'team', NULL, :now, :now)",
        CREDENTIAL + "('c', 't', 'K', 'p', 1, 'active', '', 'e', 'hint', :blob, 'set', :now, :now)",
        TOKEN + "('i', 'live', 't', 'n', '', :blob, :now, NULL, NULL)",
        blob=b"12345678",
        now=now,
    )
    assert await migrate(empty_world.url) == ALL[1:]
    assert await empty_world.sql(
        "SELECT envelope, label, weight, position, grace_until, quarantine FROM wardgate_credentials"
    ) == [("e", "", 1, 0, None, None)]
    assert await empty_world.sql("SELECT name, mac, allowed_models FROM wardgate_tokens") == [("n", None, None)]


@pytest.mark.parametrize(
    ("current", "tables", "state"),
    [
        (None, [], SchemaState.EMPTY),
        (None, ["wardgate_tenants"], SchemaState.FOREIGN),
        ("0001", ["wardgate_tenants"], SchemaState.BEHIND),
        ("0002", ["wardgate_tenants"], SchemaState.BEHIND),
        ("0003", ["wardgate_tenants"], SchemaState.BEHIND),
        ("0006", ["wardgate_tenants"], SchemaState.BEHIND),
        ("0007", ["wardgate_tenants"], SchemaState.BEHIND),
        (ALL[-1], list(metadata.tables), SchemaState.CURRENT),
        (ALL[-1], [], SchemaState.INCOMPLETE),
        (ALL[-1], ["wardgate_tenants"], SchemaState.INCOMPLETE),
        ("9999", ["wardgate_tenants"], SchemaState.NEWER),
        ("abcdef", [], SchemaState.NEWER),
    ],
)
def test_schema_is_judged_by_its_revision(current: str | None, tables: list[str], state: SchemaState) -> None:
    assert migrating._verdict(current, ALL, tables) is state


CREDENTIAL = (
    "INSERT INTO wardgate_credentials (credential_id, tenant_id, setting_key, provider_id, version, state, label,"
    " envelope, hint, fingerprint, source, created_at, updated_at) VALUES "
)
TOKEN = (
    "INSERT INTO wardgate_tokens (id, kind, tenant_id, name, scopes, hash, created_at, expires_at, revoked_at) VALUES "
)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO wardgate_root_keys VALUES ('k1', 'active', :blob, :now), ('k2', 'active', :blob, :now)",
        "INSERT INTO wardgate_root_keys VALUES ('k1', 'lost', :blob, :now)",
        TOKEN + "('i', 'admin', 't', '', '', :blob, :now, NULL, NULL)",
        TOKEN + "('i', 'live', NULL, '', '', :blob, :now, NULL, NULL)",
        TOKEN + "('i', 'root', 't', '', '', :blob, :now, NULL, NULL)",
        CREDENTIAL + "('c', 't', 'K', 'p', 0, 'active', '', 'e', '', :blob, 'set', :now, :now)",
        CREDENTIAL + "('c', 't', 'K', 'p', 1, 'active', '', NULL, '', :blob, 'set', :now, :now)",
        CREDENTIAL + "('c', 't', 'K', 'p', 1, 'removed', '', 'e', '', :blob, 'set', :now, :now)",
        CREDENTIAL + "('c', 't', 'K', 'p', 1, 'active', '', 'e', '', :blob, 'set', :now, :now),"
        " ('d', 't', 'K', 'p', 2, 'active', '', 'e', '', :blob, 'set', :now, :now)",
        CREDENTIAL + "('c', 't', 'K', 'p', 1, 'superseded', '', 'e', '', :blob, 'set', :now, :now),"
        " ('d', 't', 'K', 'p', 1, 'superseded', '', 'e', '', :blob, 'set', :now, :now)",
        CREDENTIAL + "('c', 't', 'K', 'p', 1, 'quarantined', '', 'e', '', :blob, 'set', :now, :now)",
        "INSERT INTO wardgate_tenants VALUES"
        " ('a', 's', '', '', NULL, :now, :now, NULL), ('b', 's', '', '', NULL, :now, :now, NULL)",
    ],
)
async def test_database_refuses_when_a_row_breaks_a_rule(world: World, statement: str) -> None:
    now: object = "2026-11-20 12:00:00.000000" if world.is_sqlite else world.clock()
    with pytest.raises(IntegrityError):
        await world.sql(statement, blob=b"12345678", now=now)


def test_migrations_are_found_when_only_the_packages_are_there(tmp_path: Path) -> None:
    """As in a wheel: providers.toml and the migrations travel with the package."""
    package = tmp_path / "keystore"
    source = Path(str(files("keystore")))
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import asyncio, keystore, sys; from keystore.migrate import migrate;"
        "from keystore.providers import load_registry; load_registry();"
        "print(keystore.__file__, asyncio.run(migrate(sys.argv[1])))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.strip() == f"{package / '__init__.py'} {ALL}"
