"""What was spent in each hour, where alerts are sent to, and those that are to be delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = ("wardgate_webhook_messages", "wardgate_webhooks", "wardgate_spending")


def upgrade() -> None:
    op.create_table(
        "wardgate_spending",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("starts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "token_id", "starts", name=op.f("pk_wardgate_spending")),
    )
    op.create_index("ix_wardgate_spending_starts", "wardgate_spending", ["starts"])
    op.create_table(
        "wardgate_webhooks",
        sa.Column("webhook_id", sa.String(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_wardgate_webhooks")),
    )
    op.create_table(
        "wardgate_webhook_messages",
        sa.Column("message_id", sa.String(40), nullable=False),
        sa.Column("webhook_id", sa.String(16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "webhook_id", name=op.f("pk_wardgate_webhook_messages")),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["wardgate_webhooks.webhook_id"], name=op.f("fk_wardgate_webhook_messages_webhook_id")
        ),
    )
    op.create_index("ix_wardgate_webhook_messages_due_at", "wardgate_webhook_messages", ["due_at"])
    told = sa.text("told > 0")
    op.create_index(
        "ix_wardgate_budget_use_told", "wardgate_budget_use", ["starts"], sqlite_where=told, postgresql_where=told
    )


def downgrade() -> None:
    op.drop_index("ix_wardgate_budget_use_told", "wardgate_budget_use")
    for name in TABLES:
        op.drop_table(name)
