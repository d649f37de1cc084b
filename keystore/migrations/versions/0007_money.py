"""What was used and what it cost: ledger, usage, journals, budgets, and answers to repeated requests."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = (
    "wardgate_answers",
    "wardgate_budget_holders",
    "wardgate_budget_holds",
    "wardgate_budget_use",
    "wardgate_budgets",
    "wardgate_journals",
    "wardgate_usage",
    "wardgate_ledger",
)


def upgrade() -> None:
    _ledger()
    _usage()
    _budgets()
    _answers()


def downgrade() -> None:
    for name in TABLES:
        op.drop_table(name)


def _ledger() -> None:
    op.create_table(
        "wardgate_ledger",
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("client_request_id", sa.Text()),
        sa.Column("endpoint", sa.String(24), nullable=False),
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("model_asked", sa.Text()),
        sa.Column("provider", sa.String(64)),
        sa.Column("model", sa.Text()),
        sa.Column("key_source", sa.String(16)),
        sa.Column("key_via", sa.String(16)),
        sa.Column("setting_key", sa.Text()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("fault", sa.String(16)),
        sa.Column("code", sa.Text()),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("cached_input_tokens", sa.BigInteger()),
        sa.Column("cache_write_tokens", sa.BigInteger()),
        sa.Column("reasoning_tokens", sa.BigInteger()),
        sa.Column("cost_nano", sa.BigInteger()),
        sa.Column("catalogue", sa.String(80)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("upstream_ms", sa.Integer(), nullable=False),
        sa.Column("first_token_ms", sa.Integer()),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "began_at", name=op.f("pk_wardgate_ledger")),
        sa.CheckConstraint("state IN ('settled', 'released', 'estimated')", name=op.f("ck_wardgate_ledger_state")),
        postgresql_partition_by="RANGE (began_at)",
    )
    op.create_index("ix_wardgate_ledger_tenant_id_began_at", "wardgate_ledger", ["tenant_id", "began_at"])
    op.create_table(
        "wardgate_journals",
        sa.Column("journal_id", sa.String(36), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("journal_id", name=op.f("pk_wardgate_journals")),
    )


def _usage() -> None:
    key = ("tenant_id", "period", "starts", "token_id", "provider", "model", "key_source", "outcome")
    sums = (
        "requests",
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "cost_nano",
        "unpriced",
        "estimated",
    )
    op.create_table(
        "wardgate_usage",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("period", sa.String(5), nullable=False),
        sa.Column("starts", sa.Date(), nullable=False),
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("key_source", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in sums),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_wardgate_usage")),
        sa.CheckConstraint("period IN ('day', 'month')", name=op.f("ck_wardgate_usage_period")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_wardgate_usage_period_starts", "wardgate_usage", ["period", "starts"])


def _budgets() -> None:
    op.create_table(
        "wardgate_budgets",
        sa.Column("budget_id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("period", sa.String(5), nullable=False),
        sa.Column("spend", sa.String(8), nullable=False),
        sa.Column("hard", sa.Integer(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("budget_id", name=op.f("pk_wardgate_budgets")),
        sa.ForeignKeyConstraint(["tenant_id"], ["wardgate_tenants.id"], name=op.f("fk_wardgate_budgets_tenant_id")),
        sa.UniqueConstraint("tenant_id", "token_id", "period", "spend", name=op.f("uq_wardgate_budgets_whose")),
        sa.CheckConstraint("period IN ('day', 'month')", name=op.f("ck_wardgate_budgets_period")),
        sa.CheckConstraint("spend IN ('managed', 'byok')", name=op.f("ck_wardgate_budgets_spend")),
        sa.CheckConstraint("amount_nano >= 0", name=op.f("ck_wardgate_budgets_amount")),
    )
    op.create_table(
        "wardgate_budget_use",
        sa.Column("budget_key", sa.String(160), nullable=False),
        sa.Column("starts", sa.Date(), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("wanted_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("budget_key", "starts", name=op.f("pk_wardgate_budget_use")),
        sa.CheckConstraint("held_nano >= 0", name=op.f("ck_wardgate_budget_use_held")),
    )
    op.create_index("ix_wardgate_budget_use_wanted_at", "wardgate_budget_use", ["wanted_at"])
    op.create_table(
        "wardgate_budget_holds",
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("budget_key", sa.String(160), nullable=False),
        sa.Column("starts", sa.Date(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("holder", "budget_key", "starts", name=op.f("pk_wardgate_budget_holds")),
    )
    op.create_table(
        "wardgate_budget_holders",
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_wardgate_budget_holders")),
    )


def _answers() -> None:
    op.create_table(
        "wardgate_answers",
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("request_mac", sa.LargeBinary(32), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("envelope", sa.LargeBinary()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_wardgate_answers")),
    )
    op.create_index("ix_wardgate_answers_created_at", "wardgate_answers", ["created_at"])
