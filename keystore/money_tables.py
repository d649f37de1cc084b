"""The tables of what was used and what it cost, and of what bounds it, on the metadata of keystore.tables.

Owns names, types and constraints, as there. Money is whole nano-dollars. Must not know how a row is read or written.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    case,
    text,
)

from keystore.price_tables import metadata
from keystore.tables import UtcDateTime

__all__ = [
    "MOST",
    "added",
    "answers",
    "budget_holders",
    "budget_holds",
    "budget_use",
    "budgets",
    "journals",
    "ledger",
    "limits",
    "metadata",
    "spending",
    "usage",
    "webhook_messages",
    "webhooks",
]

MOST: Final = 2**63 - 1  # of a whole number in a column


def added(there: ColumnElement[Any], more: ColumnElement[Any]) -> ColumnElement[Any]:
    """Both together, neither below 0, and MOST where the column could not hold more: PostgreSQL would refuse the row,
    and SQLite would keep a float from then on."""
    return case((there > MOST - more, MOST), else_=there + more)


# One row for each request id of ours, written when the request has ended; on PostgreSQL a partition for each month.
ledger = Table(
    "wardgate_ledger",
    metadata,
    Column("request_id", String(36), nullable=False),
    Column("began_at", UtcDateTime, nullable=False),
    Column("tenant_id", String(64), nullable=False),
    Column("token_id", String(64), nullable=False),
    Column("client_request_id", Text),  # the caller's own, never trusted
    Column("endpoint", String(24), nullable=False),
    Column("stream", Integer, nullable=False),
    Column("model_asked", Text),
    Column("provider", String(64)),  # who was asked last; NULL: nobody was
    Column("model", Text),
    Column("key_source", String(16)),
    Column("key_via", String(16)),
    Column("setting_key", Text),  # the stored name of the key
    Column("state", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("fault", String(16)),
    Column("code", Text),
    Column("input_tokens", BigInteger),  # NULL: nobody counted
    Column("output_tokens", BigInteger),
    Column("cached_input_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("cost_nano", BigInteger),  # NULL: a class that was used has no price
    Column("catalogue", String(80)),  # the price release
    Column("attempts", Integer, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("upstream_ms", Integer, nullable=False),
    Column("first_token_ms", Integer),
    Column("detail", Text, nullable=False),  # JSON: the charge line by line, and the attempts
    PrimaryKeyConstraint("request_id", "began_at"),
    CheckConstraint("state IN ('settled', 'released', 'estimated')", name="state"),
    postgresql_partition_by="RANGE (began_at)",
)
Index("ix_wardgate_ledger_tenant_id_began_at", ledger.c.tenant_id, ledger.c.began_at)

# The same added up for each day and each month; counted in the transaction that writes the rows.
usage = Table(
    "wardgate_usage",
    metadata,
    Column("tenant_id", String(64), nullable=False),
    Column("period", String(5), nullable=False),
    Column("starts", Date, nullable=False),  # UTC
    Column("token_id", String(64), nullable=False),
    Column("provider", String(64), nullable=False),  # "": nobody was asked
    Column("model", Text, nullable=False),
    Column("key_source", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),  # requests whose cost nobody knows, and which are not in it
    Column("estimated", BigInteger, nullable=False),  # requests whose tokens were estimated
    PrimaryKeyConstraint("tenant_id", "period", "starts", "token_id", "provider", "model", "key_source", "outcome"),
    CheckConstraint("period IN ('day', 'month')", name="period"),
    sqlite_with_rowid=False,  # rows stand in the order of their key: those of a tenant's month together
)
Index("ix_wardgate_usage_period_starts", usage.c.period, usage.c.starts)

# How far each journal has been written into the ledger: moved in the transaction that writes the rows.
journals = Table(
    "wardgate_journals",
    metadata,
    Column("journal_id", String(36), primary_key=True),
    Column("position", BigInteger, nullable=False),  # records
    Column("updated_at", UtcDateTime, nullable=False),
)

# What a tenant or a token may spend in a day or a month. Plans' budgets are rows of the plans.
budgets = Table(
    "wardgate_budgets",
    metadata,
    Column("budget_id", String(36), primary_key=True),
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), nullable=False),
    Column("token_id", String(64), nullable=False),  # "": of all the tenant's tokens
    Column("period", String(5), nullable=False),
    Column("spend", String(8), nullable=False),
    Column("hard", Integer, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("counted_as", String(64)),  # the token under whose name it is counted; NULL: its own
    UniqueConstraint("tenant_id", "token_id", "period", "spend", name="uq_wardgate_budgets_whose"),
    CheckConstraint("period IN ('day', 'month')", name="period"),
    CheckConstraint("spend IN ('managed', 'byok')", name="spend"),
    CheckConstraint("amount_nano >= 0", name="amount"),
)

# What a tenant or a token may ask at a time, where the plan's row does not decide alone.
limits = Table(
    "wardgate_limits",
    metadata,
    Column("tenant_id", String(64), ForeignKey("wardgate_tenants.id"), primary_key=True),
    Column("token_id", String(64), primary_key=True),  # "": of all the tenant's tokens together
    Column("limited", String(24), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint("limited IN ('requests_per_minute', 'tokens_per_minute', 'concurrency')", name="limited"),
    CheckConstraint("amount >= 1", name="amount"),
)

# What was spent of a budget in one of its periods, and what processes hold of the rest for calls that run.
budget_use = Table(
    "wardgate_budget_use",
    metadata,
    Column("budget_key", String(160), primary_key=True),
    Column("starts", Date, primary_key=True),  # UTC
    Column("spent_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("told", Integer, nullable=False),  # the last threshold that was told, in per cent
    Column("wanted_at", UtcDateTime, index=True),  # when a process last found too little left
    CheckConstraint("held_nano >= 0", name="held"),
)
Index(
    "ix_wardgate_budget_use_told",
    budget_use.c.starts,
    sqlite_where=text("told > 0"),
    postgresql_where=text("told > 0"),
)
budget_holds = Table(
    "wardgate_budget_holds",
    metadata,
    Column("holder", String(64), primary_key=True),
    Column("budget_key", String(160), primary_key=True),
    Column("starts", Date, primary_key=True),
    Column("amount_nano", BigInteger, nullable=False),
)

# The processes that hold something: one that is not seen for a while is taken for dead, and its holds are returned.
budget_holders = Table(
    "wardgate_budget_holders",
    metadata,
    Column("holder", String(64), primary_key=True),
    Column("seen_at", UtcDateTime, nullable=False),
)

# Answers to requests that named themselves with an Idempotency-Key.
answers = Table(
    "wardgate_answers",
    metadata,
    Column("key_hash", LargeBinary(32), primary_key=True),  # SHA-256 of tenant, surface and key
    Column("request_mac", LargeBinary(32), nullable=False),
    Column("tenant_id", String(64), nullable=False),
    Column("request_id", String(36), nullable=False),  # of the first
    Column("holder", String(64), nullable=False),  # the process that asks; it says that it lives
    Column("until", UtcDateTime, nullable=False),
    Column("status", Integer, nullable=False),  # 0: not answered yet
    Column("envelope", LargeBinary),  # headers and body, sealed
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("bytes", Integer),  # what it takes of its tenant's room; NULL: not answered yet
)
Index(
    "ix_wardgate_answers_tenant_id_bytes",  # so that a room is added up without the answers
    answers.c.tenant_id,
    answers.c.bytes,
    sqlite_where=text("bytes IS NOT NULL"),
    postgresql_where=text("bytes IS NOT NULL"),
)

# What was spent in each hour: of a token, and of all the tenant's tokens together. Kept for as long as it says what is
# usual.
spending = Table(
    "wardgate_spending",
    metadata,
    Column("tenant_id", String(64), nullable=False),
    Column("token_id", String(64), nullable=False),  # "": of all the tenant's tokens
    Column("starts", UtcDateTime, nullable=False, index=True),  # the hour, UTC
    Column("spent_nano", BigInteger, nullable=False),
    Column("told", Integer, nullable=False),  # 1: it was told that this is more than usual
    PrimaryKeyConstraint("tenant_id", "token_id", "starts"),
)

# Where alerts are sent to. The envelope holds the URL and the secrets, sealed.
webhooks = Table(
    "wardgate_webhooks",
    metadata,
    Column("webhook_id", String(16), primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),  # of the URL: all that is shown of it
    Column("envelope", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

# Alerts that are still to be delivered, each to one webhook: written by the transaction that found what they tell.
webhook_messages = Table(
    "wardgate_webhook_messages",
    metadata,
    Column("message_id", String(40), primary_key=True),
    Column("webhook_id", String(16), ForeignKey("wardgate_webhooks.webhook_id"), primary_key=True),
    Column("body", Text, nullable=False),  # JSON, as it is sent
    Column("created_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=False, index=True),  # when it is to be tried; also until when it is claimed
    Column("tries", Integer, nullable=False),
)
