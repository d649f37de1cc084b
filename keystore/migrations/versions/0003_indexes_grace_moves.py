"""Indexes: versions whose grace ends, and the moves of a tenant.

Some databases of 0002, made before it was final, have the first of them already.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_IN_GRACE = sa.text("grace_until IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "ix_wardgate_credentials_grace_until",
        "wardgate_credentials",
        ["grace_until"],
        sqlite_where=_IN_GRACE,
        postgresql_where=_IN_GRACE,
        if_not_exists=True,
    )
    op.create_index("ix_wardgate_moves_tenant_id", "wardgate_moves", ["tenant_id"], if_not_exists=True)


def downgrade() -> None:
    op.drop_index("ix_wardgate_moves_tenant_id", "wardgate_moves")
    op.drop_index("ix_wardgate_credentials_grace_until", "wardgate_credentials")
