"""Tenants whose bulk requests are paused."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "wardgate_bulk_pauses",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_wardgate_bulk_pauses")),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name=op.f("fk_wardgate_bulk_pauses_tenant_id")),
    )


def downgrade() -> None:
    op.drop_table("wardgate_bulk_pauses")
