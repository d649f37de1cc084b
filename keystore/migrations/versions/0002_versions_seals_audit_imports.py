"""Versions and labels of credentials, seals on tokens, service keys, replicas, changes, audit, imports.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_ACTIVE = sa.text("state = 'active'")


def upgrade() -> None:
    _credentials()
    _tokens()
    _service()
    _uses_and_changes()
    _audit()
    _imports()
    _rest()


def _credentials() -> None:
    op.drop_index("uq_wardgate_credentials_active", "wardgate_credentials")
    with op.batch_alter_table("wardgate_credentials", copy_from=_old_credentials()) as batch:
        batch.add_column(sa.Column("weight", sa.Integer, nullable=False, server_default="1"))
        batch.add_column(sa.Column("position", sa.Integer, nullable=False, server_default="0"))
        batch.add_column(sa.Column("grace_until", _TIME))
        batch.add_column(sa.Column("quarantine", sa.String(24)))
        batch.drop_constraint("uq_wardgate_credentials_tenant_id_setting_key_version", type_="unique")
        batch.create_unique_constraint(
            "uq_wardgate_credentials_version", ["tenant_id", "setting_key", "label", "version"]
        )
        batch.drop_constraint(op.f("ck_wardgate_credentials_state"), type_="check")
        batch.create_check_constraint(
            op.f("ck_wardgate_credentials_state"),
            "state IN ('pending', 'active', 'superseded', 'removed', 'quarantined')",
        )
        batch.create_check_constraint(
            op.f("ck_wardgate_credentials_quarantine"), "(state = 'quarantined') = (quarantine IS NOT NULL)"
        )
        batch.create_check_constraint(op.f("ck_wardgate_credentials_weight"), "weight > 0")
    op.create_index(
        "uq_wardgate_credentials_active",
        "wardgate_credentials",
        ["tenant_id", "setting_key", "label"],
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    )


def _tokens() -> None:
    with op.batch_alter_table("wardgate_tokens", copy_from=_old_tokens()) as batch:
        batch.add_column(sa.Column("allowed_models", sa.Text))
        batch.add_column(sa.Column("allowed_addresses", sa.Text))
        batch.add_column(sa.Column("replaced_by", sa.String(12)))
        batch.add_column(sa.Column("last_used_at", _TIME))
        batch.add_column(sa.Column("mac", sa.LargeBinary(32)))
        batch.add_column(sa.Column("mac_key_id", sa.String(32)))


def _service() -> None:
    op.create_table(
        "wardgate_service_keys",
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("kek_id", sa.String(32), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_wardgate_service_keys"),
        sa.UniqueConstraint("purpose", name="uq_wardgate_service_keys_purpose"),
        sa.ForeignKeyConstraint(["kek_id"], ["wardgate_root_keys.kek_id"], name="fk_wardgate_service_keys_kek_id"),
    )
    op.create_index("ix_wardgate_service_keys_kek_id", "wardgate_service_keys", ["kek_id"])
    op.create_table(
        "wardgate_replicas",
        sa.Column("replica_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("kek_ids", sa.Text, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("replica_id", name="pk_wardgate_replicas"),
    )


def _uses_and_changes() -> None:
    op.create_table(
        "wardgate_changes",
        sa.Column("seq", _SEQUENCE, nullable=False, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_wardgate_changes"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "wardgate_key_use",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("setting_key", sa.String(128), nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("last_used_at", _TIME, nullable=False),
        sa.Column("last_success_at", _TIME),
        sa.Column("last_rejected_at", _TIME),
        sa.Column("last_rejected_status", sa.Integer),
        sa.PrimaryKeyConstraint("tenant_id", "setting_key", "label", "provider_id", name="pk_wardgate_key_use"),
    )


def _audit() -> None:
    op.create_table(
        "wardgate_audit",
        sa.Column("seq", _SEQUENCE, nullable=False, autoincrement=False),
        sa.Column("operation", sa.String(36), nullable=False),
        sa.Column("phase", sa.String(8), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor_kind", sa.String(16), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.String(64)),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("seal", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_wardgate_audit"),
        sa.CheckConstraint("phase IN ('begin', 'end', 'whole')", name=op.f("ck_wardgate_audit_phase")),
    )
    op.create_index("ix_wardgate_audit_operation", "wardgate_audit", ["operation"])
    op.create_index("ix_wardgate_audit_tenant_id", "wardgate_audit", ["tenant_id"])


def _imports() -> None:
    op.create_table(
        "wardgate_imports",
        sa.Column("import_id", sa.String(36), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("in_place", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("verified_at", _TIME),
        sa.PrimaryKeyConstraint("import_id", name="pk_wardgate_imports"),
        sa.CheckConstraint(
            "state IN ('running', 'applied', 'verified', 'scrubbed')", name=op.f("ck_wardgate_imports_state")
        ),
    )
    op.create_table(
        "wardgate_import_rows",
        sa.Column("import_id", sa.String(36), nullable=False),
        sa.Column("row_mac", sa.LargeBinary(32), nullable=False),
        sa.Column("content_mac", sa.LargeBinary(32), nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.String(64)),
        sa.Column("setting_key", sa.Text, nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("credential_id", sa.String(36)),
        sa.Column("scrubbed_at", _TIME),
        sa.PrimaryKeyConstraint("import_id", "row_mac", name="pk_wardgate_import_rows"),
        sa.ForeignKeyConstraint(["import_id"], ["wardgate_imports.import_id"], name="fk_wardgate_import_rows_import_id"),
        sa.UniqueConstraint("import_id", "place", name="uq_wardgate_import_rows_import_id_place"),
    )
    op.create_index("ix_wardgate_import_rows_content_mac", "wardgate_import_rows", ["content_mac"])
    op.create_table(
        "wardgate_imported_settings",
        sa.Column("import_id", sa.String(36), nullable=False),
        sa.Column("row_mac", sa.LargeBinary(32), nullable=False),
        sa.Column("tenant_id", sa.Text),
        sa.Column("setting_key", sa.Text),
        sa.Column("setting_value", sa.LargeBinary),
        sa.Column("created_at", sa.Text),
        sa.Column("updated_at", sa.Text),
        sa.PrimaryKeyConstraint("import_id", "row_mac", name="pk_wardgate_imported_settings"),
        sa.ForeignKeyConstraint(
            ["import_id"], ["wardgate_imports.import_id"], name="fk_wardgate_imported_settings_import_id"
        ),
    )


def _rest() -> None:
    op.create_table(
        "wardgate_moves",
        sa.Column("move_id", sa.String(36), nullable=False),
        sa.Column("batch", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("from_id", sa.String(36), nullable=False),
        sa.Column("to_id", sa.String(36), nullable=False),
        sa.Column("moved_at", _TIME, nullable=False),
        sa.Column("undone_at", _TIME),
        sa.PrimaryKeyConstraint("move_id", name="pk_wardgate_moves"),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name="fk_wardgate_moves_tenant_id"),
    )
    op.create_index("ix_wardgate_moves_batch", "wardgate_moves", ["batch"])
    op.create_table(
        "wardgate_idempotency",
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("request_mac", sa.LargeBinary(32), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name="pk_wardgate_idempotency"),
    )
    op.create_table(
        "wardgate_facts",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_wardgate_facts"),
    )


# --- the tables of 0001, which SQLite makes anew --------------------------------------------------------------------


def _old_credentials() -> sa.Table:
    return sa.Table(
        "wardgate_credentials",
        sa.MetaData(),
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
        sa.UniqueConstraint(
            "tenant_id", "setting_key", "version", name="uq_wardgate_credentials_tenant_id_setting_key_version"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name="fk_wardgate_credentials_tenant_id"),
        sa.CheckConstraint(
            "state IN ('active', 'superseded', 'removed', 'quarantined')", name="ck_wardgate_credentials_state"
        ),
        sa.CheckConstraint("(state = 'removed') = (envelope IS NULL)", name="ck_wardgate_credentials_envelope"),
        sa.CheckConstraint("version > 0", name="ck_wardgate_credentials_version"),
    )


def _old_tokens() -> sa.Table:
    table = sa.Table(
        "wardgate_tokens",
        sa.MetaData(),
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
        sa.CheckConstraint("kind IN ('live', 'test', 'admin')", name="ck_wardgate_tokens_kind"),
        sa.CheckConstraint("(kind = 'admin') = (tenant_id IS NULL)", name="ck_wardgate_tokens_tenant"),
    )
    sa.Index("ix_wardgate_tokens_tenant_id", table.c.tenant_id)
    return table


def downgrade() -> None:
    for table in (
        "facts",
        "idempotency",
        "moves",
        "imported_settings",
        "import_rows",
        "imports",
        "audit",
        "key_use",
        "changes",
        "replicas",
        "service_keys",
    ):
        op.drop_table(f"wardgate_{table}")
    for name in ("mac_key_id", "mac", "last_used_at", "replaced_by", "allowed_addresses", "allowed_models"):
        op.drop_column("wardgate_tokens", name)
    op.drop_index("uq_wardgate_credentials_active", "wardgate_credentials")
    with op.batch_alter_table("wardgate_credentials") as batch:
        for constraint in ("weight", "quarantine", "state"):
            batch.drop_constraint(op.f(f"ck_wardgate_credentials_{constraint}"), type_="check")
        batch.drop_constraint("uq_wardgate_credentials_version", type_="unique")
        for name in ("quarantine", "grace_until", "position", "weight"):
            batch.drop_column(name)
        batch.create_unique_constraint(
            "uq_wardgate_credentials_tenant_id_setting_key_version", ["tenant_id", "setting_key", "version"]
        )
        batch.create_check_constraint(
            op.f("ck_wardgate_credentials_state"), "state IN ('active', 'superseded', 'removed', 'quarantined')"
        )
    op.create_index(
        "uq_wardgate_credentials_active",
        "wardgate_credentials",
        ["tenant_id", "setting_key"],
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    )
