"""Limits of a tenant's own, and of its tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "wardgate_limits",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("limited", sa.String(24), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "token_id", "limited", name=op.f("pk_wardgate_limits")),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name=op.f("fk_wardgate_limits_tenant_id")),
        sa.CheckConstraint(
            "limited IN ('requests_per_minute', 'tokens_per_minute', 'concurrency')",
            name=op.f("ck_wardgate_limits_limited"),
        ),
        sa.CheckConstraint("amount >= 1", name=op.f("ck_wardgate_limits_amount")),
    )


def downgrade() -> None:
    op.drop_table("wardgate_limits")
