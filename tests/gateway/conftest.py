"""The keystore's databases, for tests of the gateway that need one without a server."""

from tests.keystore.conftest import (
    clock,
    database_url,
    migrated_postgres,
    migrated_sqlite,
    postgres_url,
    registry,
    shared_postgres,
    sqlite_url,
    sqlite_world,
    world,
)

__all__ = [
    "clock",
    "database_url",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres_url",
    "registry",
    "shared_postgres",
    "sqlite_url",
    "sqlite_world",
    "world",
]
