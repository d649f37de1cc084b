"""What a kept answer takes of its tenant's room."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEX = "ix_wardgate_answers_tenant_id_bytes"


def upgrade() -> None:
    op.add_column("wardgate_answers", sa.Column("bytes", sa.Integer()))
    kept = sa.text("bytes IS NOT NULL")
    op.create_index(INDEX, "wardgate_answers", ["tenant_id", "bytes"], sqlite_where=kept, postgresql_where=kept)


def downgrade() -> None:
    op.drop_index(INDEX, "wardgate_answers")
    op.drop_column("wardgate_answers", "bytes")
