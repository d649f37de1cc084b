"""The schema's state, and bringing it up to date.

Owns the running of the packaged Alembic migrations (keystore/migrations) and the verdict on a database's schema. Must
not know what the tables hold.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

from sqlalchemy import Connection, String, column, false, inspect, select, table, update

from keystore.engine import Database, Lock, make_room
from keystore.errors import DatabaseUnavailable, SchemaBehind, SchemaNewer
from keystore.money_tables import metadata
from keystore.tables import VERSION_TABLE

_MIGRATION: Final = re.compile(r"(\d{4})_\w+\.py")  # its file is named for its revision


class SchemaState(StrEnum):
    """How a database's schema stands to this Wardgate."""

    EMPTY = "empty"
    FOREIGN = "foreign"
    BEHIND = "behind"
    CURRENT = "current"
    INCOMPLETE = "incomplete"  # current by its revision, but tables are missing
    NEWER = "newer"


async def migrate(database_url: str) -> list[str]:
    """Bring the database's schema up to date, making an SQLite file that is not there; returns the revisions applied,
    oldest first. All or nothing. Raises SchemaNewer, or DatabaseUnavailable when tables of our names are not ours, or
    tables are missing that its revision says are there."""
    make_room(database_url, create=True)
    database = Database(database_url, command_s=None)
    try:
        return await upgrade(database)
    finally:
        await database.close()


async def upgrade(database: Database) -> list[str]:
    """`migrate` on a database that is open."""
    await database.use_wal()
    async with database.write(lock=Lock.SCHEMA) as connection:
        return await connection.run_sync(_upgrade, database.name)


def _upgrade(connection: Connection, name: str) -> list[str]:
    current, known = _current(connection), revisions()
    tables = _our_tables(connection)
    state = _verdict(current, known, tables)
    _refuse_unusable(state, name, tables)
    if state is SchemaState.CURRENT:
        return []
    _run_migrations(connection)
    return known[known.index(current) + 1 :] if current else known


def _run_migrations(connection: Connection) -> None:
    """Alembic is imported for this alone: most starts find the schema as it must be."""
    from alembic import command

    command.upgrade(_config(connection), "head")


def _config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "keystore:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def ensure_schema(database: Database, *, create: bool) -> None:
    """Have the schema that this Wardgate needs, or say why not: an empty database is migrated when `create`, one that
    is behind, ahead, or cannot be written is refused."""
    async with database.read() as connection:
        state, tables = await connection.run_sync(_state)
    _refuse_unusable(state, database.name, tables)
    match state:
        case SchemaState.BEHIND:
            raise SchemaBehind(f"{database.name} has an older schema than this Wardgate; run `wardgate migrate`")
        case SchemaState.EMPTY if not create:
            raise SchemaBehind(f"{database.name} has no Wardgate tables; run `wardgate migrate`")
        case SchemaState.EMPTY:
            await upgrade(database)
        case SchemaState.CURRENT:
            await database.use_wal()
    await _probe_writing(database)


def _refuse_unusable(state: SchemaState, name: str, tables: Collection[str]) -> None:
    """A schema that no migration can mend stops here."""
    match state:
        case SchemaState.NEWER:
            raise SchemaNewer(_newer(name))
        case SchemaState.FOREIGN:
            raise DatabaseUnavailable(_foreign(name, tables))
        case SchemaState.INCOMPLETE:
            raise DatabaseUnavailable(_incomplete(name, tables))


async def _probe_writing(database: Database) -> None:
    """Every table can be written: an update of no row, rolled back. Read-only files, replicas and roles fail here."""
    async with database.write() as connection:
        for ours in metadata.sorted_tables:
            key = next(iter(ours.primary_key.columns))
            await connection.execute(update(ours).where(false()).values({key.name: key}))
        await connection.rollback()


def _state(connection: Connection) -> tuple[SchemaState, list[str]]:
    ours = _our_tables(connection)
    return _verdict(_current(connection), revisions(), ours), ours


def _verdict(current: str | None, known: list[str], our_tables: Collection[str]) -> SchemaState:
    if current is None:
        return SchemaState.FOREIGN if our_tables else SchemaState.EMPTY
    if current not in known:
        return SchemaState.NEWER
    if current != known[-1]:
        return SchemaState.BEHIND
    return SchemaState.CURRENT if set(our_tables) == set(metadata.tables) else SchemaState.INCOMPLETE


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(column("version_num", String)).select_from(table(VERSION_TABLE))).scalar()


def revisions() -> list[str]:
    """Every revision of the packaged migrations, oldest first."""
    names = (_MIGRATION.fullmatch(file.name) for file in files("keystore.migrations").joinpath("versions").iterdir())
    return sorted(name[1] for name in names if name)


def _our_tables(connection: Connection) -> list[str]:
    """Which of our names are taken: where our tables would be made, in the first schema of the search path, or, once
    they are made, anywhere on it."""
    inspector = inspect(connection)
    present = set(inspector.get_table_names(schema=connection.dialect.default_schema_name)) & set(metadata.tables)
    if inspector.has_table(VERSION_TABLE):
        present |= {name for name in set(metadata.tables) - present if inspector.has_table(name)}
    return sorted(present)


def _newer(name: str) -> str:
    return f"{name} was migrated by a newer Wardgate; run that version, or restore the database from before it"


def _foreign(name: str, tables: Collection[str]) -> str:
    return (
        f"{name} has tables that Wardgate did not make, with the names it needs: {', '.join(tables)};"
        " give Wardgate a database of its own, or a PostgreSQL role whose search_path begins with a schema of its own"
    )


def _incomplete(name: str, tables: Collection[str]) -> str:
    lacking = ", ".join(sorted(set(metadata.tables) - set(tables)))
    return (
        f"{name} says that its schema is current, but lacks the tables {lacking}: they were removed or renamed, or made"
        " by an unfinished version of Wardgate; restore them from a backup, or begin with an empty database"
    )
