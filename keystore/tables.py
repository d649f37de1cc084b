"""The tables, as SQLAlchemy Core metadata that means the same on SQLite and PostgreSQL.

Owns names, types and constraints. The migrations make the same tables (a test compares them). Must not know how rows
are read or written, nor what is inside an envelope.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
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
    Column("aliases", Text),  # JSON: name -> fields, as [models.<alias>] of wardgate.toml
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
    Column("weight", Integer, nullable=False, server_default="1"),  # share among labels of the same position
    Column("position", Integer, nullable=False, server_default="0"),  # labels are tried in this order
    Column("grace_until", UtcDateTime),  # until when a superseded version stands in for its successor
    Column("quarantine", String(24)),  # why a quarantined row may not be used
    UniqueConstraint("tenant_id", "setting_key", "label", "version", name="uq_wardgate_credentials_version"),
    CheckConstraint("state IN ('pending', 'active', 'superseded', 'removed', 'quarantined')", name="state"),
    CheckConstraint("(state = 'quarantined') = (quarantine IS NOT NULL)", name="quarantine"),
    CheckConstraint("weight > 0", name="weight"),
    CheckConstraint("(state = 'removed') = (envelope IS NULL)", name="envelope"),
    CheckConstraint("version > 0", name="version"),
)
Index(
    "uq_wardgate_credentials_active",
    credentials.c.tenant_id,
    credentials.c.setting_key,
    credentials.c.label,
    unique=True,
    sqlite_where=text("state = 'active'"),
    postgresql_where=text("state = 'active'"),
)

Index(
    "ix_wardgate_credentials_grace_until",
    credentials.c.grace_until,
    sqlite_where=text("grace_until IS NOT NULL"),
    postgresql_where=text("grace_until IS NOT NULL"),
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
    Column("allowed_models", Text),  # space-separated names; NULL: every model of the plan
    Column("allowed_addresses", Text),  # space-separated networks; NULL: from anywhere
    Column("replaced_by", String(12)),  # the token that took its place when it was rotated
    Column("last_used_at", UtcDateTime),  # not under the seal: written behind
    Column("mac", LargeBinary(32)),  # seal over what the row allows; a row without one is refused
    Column("mac_key_id", String(32)),
    CheckConstraint("kind IN ('live', 'test', 'admin')", name="kind"),
    CheckConstraint("(kind = 'admin') = (tenant_id IS NULL)", name="tenant"),
)

# Keys of the keystore's own (not a tenant's), wrapped by a root key: fingerprints, token seals, the audit's chain.
service_keys = Table(
    "wardgate_service_keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("purpose", String(16), nullable=False, unique=True),
    Column("kek_id", String(32), ForeignKey("wardgate_root_keys.kek_id"), nullable=False, index=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# Who runs on this database, and which root keys each of them holds.
replicas = Table(
    "wardgate_replicas",
    metadata,
    Column("replica_id", String(36), primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", String(32), nullable=False),
    Column("kek_ids", Text, nullable=False),  # space-separated
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("catalogue", String(80)),  # the version of the prices that it serves
)

SEQUENCE: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only in an INTEGER PRIMARY KEY

# What changed, in the order of commits: every process drops what it remembers of it.
changes = Table(
    "wardgate_changes",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),  # tenant, token, ring, prices, all
    Column("subject", String(64), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

# When each stored name last served, and when a provider last rejected it; written behind, so some seconds old.
key_use = Table(
    "wardgate_key_use",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("setting_key", String(128), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("provider_id", String(64), primary_key=True),
    Column("last_used_at", UtcDateTime, nullable=False),
    Column("last_success_at", UtcDateTime),
    Column("last_rejected_at", UtcDateTime),
    Column("last_rejected_status", Integer),
)

# Who did what. Rows are only ever added; each carries a seal over itself and the row before it.
audit = Table(
    "wardgate_audit",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=False),
    Column("operation", String(36), nullable=False, index=True),
    Column("phase", String(8), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor_kind", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    Column("origin", Text, nullable=False),  # from where: a host and user, or an address
    Column("action", String(64), nullable=False),
    Column("tenant_id", String(64), index=True),
    Column("target", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("detail", Text, nullable=False),  # JSON; never a value
    Column("seal", LargeBinary(32), nullable=False),
    CheckConstraint("phase IN ('begin', 'end', 'whole')", name="phase"),
)

# One adoption of a tenant_settings table, and what became of each of its rows.
imports = Table(
    "wardgate_imports",
    metadata,
    Column("import_id", String(36), primary_key=True),
    Column("source", Text, nullable=False),  # described, without a password
    Column("in_place", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("options", Text, nullable=False),  # JSON: the mapping of tenants and columns
    Column("counts", Text, nullable=False),  # JSON
    Column("started_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("verified_at", UtcDateTime),
    CheckConstraint("state IN ('running', 'applied', 'verified', 'scrubbed')", name="state"),
)
import_rows = Table(
    "wardgate_import_rows",
    metadata,
    Column("import_id", String(36), ForeignKey("wardgate_imports.import_id"), primary_key=True),
    Column("row_mac", LargeBinary(32), primary_key=True),  # HMAC of place, tenant, name and value
    Column("content_mac", LargeBinary(32), nullable=False, index=True),  # the same without the place
    Column("place", Text, nullable=False),  # where the row stands in its table
    Column("tenant_id", String(64)),
    Column("setting_key", Text, nullable=False),
    Column("kind", String(24), nullable=False),
    Column("outcome", String(24), nullable=False),
    Column("credential_id", String(36)),
    Column("scrubbed_at", UtcDateTime),
    UniqueConstraint("import_id", "place"),
)
# What an import from another database brought along that is no secret.
imported_settings = Table(
    "wardgate_imported_settings",
    metadata,
    Column("import_id", String(36), ForeignKey("wardgate_imports.import_id"), primary_key=True),
    Column("row_mac", LargeBinary(32), primary_key=True),
    Column("tenant_id", Text),  # as the other database spells it
    Column("setting_key", Text),
    Column("setting_value", LargeBinary),
    Column("created_at", Text),
    Column("updated_at", Text),
)

# Keys that were stored again under their canonical name, so that it can be undone.
moves = Table(
    "wardgate_moves",
    metadata,
    Column("move_id", String(36), primary_key=True),
    Column("batch", String(36), nullable=False, index=True),
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), nullable=False, index=True),
    Column("provider_id", String(64), nullable=False),
    Column("label", Text, nullable=False),
    Column("from_id", String(36), nullable=False),
    Column("to_id", String(36), nullable=False),
    Column("moved_at", UtcDateTime, nullable=False),
    Column("undone_at", UtcDateTime),
)

# Writes that named themselves with an Idempotency-Key, so that a repeated one is recognised.
idempotency = Table(
    "wardgate_idempotency",
    metadata,
    Column("key_hash", LargeBinary(32), primary_key=True),  # SHA-256 of actor, action and key
    Column("request_mac", LargeBinary(32), nullable=False),
    Column("status", Integer, nullable=False),
    Column("result", Text, nullable=False),  # JSON; never a value
    Column("created_at", UtcDateTime, nullable=False),
)

# What was decided for each request, kept for a while. The id is one that we minted.
decisions = Table(
    "wardgate_decisions",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),  # when the request came
    Column("document", LargeBinary, nullable=False),  # JSON, compressed with zlib; never a key, nothing of a prompt
)

# Tenants whose bulk requests are paused.
bulk_pauses = Table(
    "wardgate_bulk_pauses",
    metadata,
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
)

# Facts about the database itself, by name.
facts = Table(
    "wardgate_facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
