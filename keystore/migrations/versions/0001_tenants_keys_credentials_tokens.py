"""Tenants, root and tenant keys, credentials, tokens.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "wardgate_tenants",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("slug", sa.String(63), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("plan", sa.String(64), nullable=False),
        sa.Column("default_model", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_wardgate_tenants"),
        sa.UniqueConstraint("slug", name="uq_wardgate_tenants_slug"),
    )
    op.create_table(
        "wardgate_tenant_names",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_wardgate_tenant_names"),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name="fk_wardgate_tenant_names_tenant_id"),
    )
    op.create_index("ix_wardgate_tenant_names_tenant_id", "wardgate_tenant_names", ["tenant_id"])
    op.create_table(
        "wardgate_root_keys",
        sa.Column("kek_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("kcv", sa.LargeBinary(8), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("kek_id", name="pk_wardgate_root_keys"),
        sa.CheckConstraint("state IN ('pending', 'active', 'decrypt', 'retired')", name=op.f("ck_wardgate_root_keys_state")),
    )
    _one_active("wardgate_root_keys", ["state"])
    op.create_table(
        "wardgate_tenant_keys",
        sa.Column("dek_id", sa.String(32), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kek_id", sa.String(32), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("seals", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("dek_id", name="pk_wardgate_tenant_keys"),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name="fk_wardgate_tenant_keys_tenant_id"),
        sa.ForeignKeyConstraint(["kek_id"], ["wardgate_root_keys.kek_id"], name="fk_wardgate_tenant_keys_kek_id"),
        sa.CheckConstraint("state IN ('active', 'decrypt')", name=op.f("ck_wardgate_tenant_keys_state")),
    )
    op.create_index("ix_wardgate_tenant_keys_tenant_id", "wardgate_tenant_keys", ["tenant_id"])
    op.create_index("ix_wardgate_tenant_keys_kek_id", "wardgate_tenant_keys", ["kek_id"])
    _one_active("wardgate_tenant_keys", ["tenant_id"])
    op.create_table(
        "wardgate_credentials",
        sa.Column("credential_id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("setting_key", sa.String(128), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("envelope", sa.Text),
        sa.Column("hint", sa.String(4), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(8), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("credential_id", name="pk_wardgate_credentials"),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name="fk_wardgate_credentials_tenant_id"),
        sa.UniqueConstraint("tenant_id", "setting_key", "version", name="uq_wardgate_credentials_tenant_id_setting_key_version"),
        sa.CheckConstraint(
            "state IN ('active', 'superseded', 'removed', 'quarantined')", name=op.f("ck_wardgate_credentials_state")
        ),
        sa.CheckConstraint("(state = 'removed') = (envelope IS NULL)", name=op.f("ck_wardgate_credentials_envelope")),
        sa.CheckConstraint("version > 0", name=op.f("ck_wardgate_credentials_version")),
    )
    _one_active("wardgate_credentials", ["tenant_id", "setting_key"])
    op.create_table(
        "wardgate_tokens",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("tenant_id", sa.String(64)),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_wardgate_tokens"),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name="fk_wardgate_tokens_tenant_id"),
        sa.CheckConstraint("kind IN ('live', 'test', 'admin')", name=op.f("ck_wardgate_tokens_kind")),
        sa.CheckConstraint("(kind = 'admin') = (tenant_id IS NULL)", name=op.f("ck_wardgate_tokens_tenant")),
    )
    op.create_index("ix_wardgate_tokens_tenant_id", "wardgate_tokens", ["tenant_id"])


def downgrade() -> None:
    for table in ("tokens", "credentials", "tenant_keys", "root_keys", "tenant_names", "tenants"):
        op.drop_table(f"wardgate_{table}")


def _one_active(table: str, columns: list[str]) -> None:
    active = sa.text("state = 'active'")
    op.create_index(
        f"uq_{table}_active", table, columns, unique=True, sqlite_where=active, postgresql_where=active
    )
