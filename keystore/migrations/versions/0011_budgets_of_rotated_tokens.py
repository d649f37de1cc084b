"""Tokens that took each other's place share their budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("wardgate_budgets", sa.Column("counted_as", sa.String(64)))


def downgrade() -> None:
    op.drop_column("wardgate_budgets", "counted_as")
