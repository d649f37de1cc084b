"""Decisions: what was decided for each request, kept for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "wardgate_decisions",
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_wardgate_decisions"),
    )
    op.create_index("ix_wardgate_decisions_created_at", "wardgate_decisions", ["created_at"])


def downgrade() -> None:
    op.drop_table("wardgate_decisions")
