"""The tables, as SQLAlchemy Core metadata that means the same on SQLite and PostgreSQL.

Owns names, types and constraints. The migrations make the same tables (a test compares them). Must not know how rows
are read or written, nor what is inside an envelope.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

VERSION_TABLE: Final = "wardgate_schema"  # not "alembic_version": the database may hold another application's

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC on both databases; SQLite keeps no zone, so it is put back when a row is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time needs a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        aware: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC)


tenants = Table(
    "wardgate_tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("slug", String(63), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("plan", String(64), nullable=False),
    Column("default_model", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

# Every id and slug in its canonical form (tenants.canonical): no two tenants may be taken for each other.
tenant_names = Table(
    "wardgate_tenant_names",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), nullable=False, index=True),
)

# Which root keys (KEKs) seal this database. The keys are outside it; a check value tells the right from the wrong.
root_keys = Table(
    "wardgate_root_keys",
    metadata,
    Column("kek_id", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("kcv", LargeBinary(8), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("state IN ('pending', 'active', 'decrypt', 'retired')", name="state"),
)
Index(
    "uq_wardgate_root_keys_active",
    root_keys.c.state,
    unique=True,
    sqlite_where=text("state = 'active'"),
    postgresql_where=text("state = 'active'"),
)

# One data key (DEK) per tenant, wrapped by a root key.
tenant_keys = Table(
    "wardgate_tenant_keys",
    metadata,
    Column("dek_id", String(32), primary_key=True),
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), nullable=False, index=True),
    Column("kek_id", String(32), ForeignKey("wardgate_root_keys.kek_id"), nullable=False, index=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("seals", Integer, nullable=False),  # how many values were sealed with it
    Column("state", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("state IN ('active', 'decrypt')", name="state"),
)
Index(
    "uq_wardgate_tenant_keys_active",
    tenant_keys.c.tenant_id,
    unique=True,
    sqlite_where=text("state = 'active'"),
    postgresql_where=text("state = 'active'"),
)

# A new value is a new row: updates never overwrite an envelope. A removed row has lost its envelope.
credentials = Table(
    "wardgate_credentials",
    metadata,
    Column("credential_id", String(36), primary_key=True),
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), nullable=False),
    Column("setting_key", String(128), nullable=False),  # the name as it was stored; part of the associated data
    Column("provider_id", String(64), nullable=False),  # whose name it was when it was stored
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("label", Text, nullable=False),
    Column("envelope", Text),
    Column("hint", String(4), nullable=False),
    Column("fingerprint", LargeBinary(8), nullable=False),
    Column("source", String(16), nullable=False),  # how it came: set, or imported
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("tenant_id", "setting_key", "version"),
    CheckConstraint("state IN ('active', 'superseded', 'removed', 'quarantined')", name="state"),
    CheckConstraint("(state = 'removed') = (envelope IS NULL)", name="envelope"),
    CheckConstraint("version > 0", name="version"),
)
Index(
    "uq_wardgate_credentials_active",
    credentials.c.tenant_id,
    credentials.c.setting_key,
    unique=True,
    sqlite_where=text("state = 'active'"),
    postgresql_where=text("state = 'active'"),
)

tokens = Table(
    "wardgate_tokens",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), index=True),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # space-separated; empty: all that the kind may do
    Column("hash", LargeBinary(32), nullable=False),  # SHA-256 of the secret part
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    CheckConstraint("kind IN ('live', 'test', 'admin')", name="kind"),
    CheckConstraint("(kind = 'admin') = (tenant_id IS NULL)", name="tenant"),
)
