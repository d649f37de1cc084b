"""Names that a tenant gave to models."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("wardgate_tenants", sa.Column("aliases", sa.Text()))


def downgrade() -> None:
    op.drop_column("wardgate_tenants", "aliases")
