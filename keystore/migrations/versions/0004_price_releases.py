"""Price releases, their quarantined rows, periods and sources; leases; what each replica serves."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LIVE = sa.text("state = 'live'")


def upgrade() -> None:
    op.add_column("wardgate_replicas", sa.Column("catalogue", sa.String(80)))
    op.create_table(
        "wardgate_price_releases",
        sa.Column("number", _SEQUENCE, autoincrement=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("base", sa.BigInteger),
        sa.Column("base_version", sa.String(80), nullable=False),
        sa.Column("sources", sa.Text, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("impact", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("staged_at", _TIME, nullable=False),
        sa.Column("staged_by", sa.Text, nullable=False),
        sa.Column("decided_at", _TIME),
        sa.Column("decided_by", sa.Text),
        sa.PrimaryKeyConstraint("number", name="pk_wardgate_price_releases"),
        sa.CheckConstraint(
            "state IN ('staged', 'live', 'superseded', 'refused', 'rolled_back')",
            name=op.f("ck_wardgate_price_releases_state"),
        ),
        sa.CheckConstraint("state = 'refused' OR content IS NOT NULL", name=op.f("ck_wardgate_price_releases_content")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_wardgate_price_releases_live",
        "wardgate_price_releases",
        ["state"],
        unique=True,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    )
    op.create_table(
        "wardgate_price_quarantine",
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("why", sa.String(24), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("proposed", sa.Text),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("decided_at", _TIME),
        sa.Column("decided_by", sa.Text),
        sa.PrimaryKeyConstraint("number", "name", name="pk_wardgate_price_quarantine"),
        sa.ForeignKeyConstraint(
            ["number"], ["wardgate_price_releases.number"], name="fk_wardgate_price_quarantine_number"
        ),
        sa.CheckConstraint("decision IN ('pending', 'approved')", name=op.f("ck_wardgate_price_quarantine_decision")),
    )
    op.create_table(
        "wardgate_price_periods",
        sa.Column("seq", _SEQUENCE, autoincrement=True),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("number", sa.BigInteger),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_wardgate_price_periods"),
        sa.CheckConstraint("cause IN ('approved', 'rule', 'rolled_back')", name=op.f("ck_wardgate_price_periods_cause")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_wardgate_price_periods_since", "wardgate_price_periods", ["since"])
    op.create_table(
        "wardgate_price_sources",
        sa.Column("source_id", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified", sa.Text),
        sa.Column("digest", sa.String(64)),
        sa.Column("content", sa.LargeBinary),
        sa.Column("fetched_at", _TIME),
        sa.Column("asked_at", _TIME),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("source_id", name="pk_wardgate_price_sources"),
    )
    op.create_table(
        "wardgate_leases",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_wardgate_leases"),
    )


def downgrade() -> None:
    op.drop_table("wardgate_leases")
    op.drop_table("wardgate_price_sources")
    op.drop_index("ix_wardgate_price_periods_since", "wardgate_price_periods")
    op.drop_table("wardgate_price_periods")
    op.drop_table("wardgate_price_quarantine")
    op.drop_index("uq_wardgate_price_releases_live", "wardgate_price_releases")
    op.drop_table("wardgate_price_releases")
    with op.batch_alter_table("wardgate_replicas") as batch:
        batch.drop_column("catalogue")
