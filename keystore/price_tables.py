"""The tables of price releases, on the metadata of keystore.tables.

Owns names, types and constraints, as there. Must not know how rows are read or written, nor what is in a release.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from keystore.tables import SEQUENCE, UtcDateTime, metadata

__all__ = ["leases", "metadata", "price_periods", "price_quarantine", "price_releases", "price_sources"]

# Price releases: what was fetched, as it would be or is served. One at most is live; without one, the bundled map is.
price_releases = Table(
    "wardgate_price_releases",
    metadata,
    Column("number", SEQUENCE, primary_key=True, autoincrement=True),
    Column("state", String(16), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the rows; of what was offered, for a refused list
    Column("content", LargeBinary),  # the rows, compressed
    Column("rows", Integer, nullable=False),
    Column("base", BigInteger),  # the release that it was compared with; NULL: the bundled map
    Column("base_version", String(80), nullable=False),
    Column("sources", Text, nullable=False),  # JSON: where the rows are from
    Column("counts", Text, nullable=False),  # JSON
    Column("impact", Text, nullable=False),  # JSON: for whom `auto` changes
    Column("note", Text, nullable=False),  # why it was refused
    Column("staged_at", UtcDateTime, nullable=False),
    Column("staged_by", Text, nullable=False),
    Column("decided_at", UtcDateTime),
    Column("decided_by", Text),
    CheckConstraint("state IN ('staged', 'live', 'superseded', 'refused', 'rolled_back')", name="state"),
    CheckConstraint("state = 'refused' OR content IS NOT NULL", name="content"),
    sqlite_autoincrement=True,
)
Index(
    "uq_wardgate_price_releases_live",
    price_releases.c.state,
    unique=True,
    sqlite_where=text("state = 'live'"),
    postgresql_where=text("state = 'live'"),
)

# Rows of a list that were not taken over, and what was decided of each.
price_quarantine = Table(
    "wardgate_price_quarantine",
    metadata,
    Column("number", BigInteger, ForeignKey("wardgate_price_releases.number"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("why", String(24), nullable=False),
    Column("detail", Text, nullable=False),
    Column("proposed", Text),  # JSON; NULL: the row is to go, or cannot be one
    Column("decision", String(16), nullable=False),
    Column("decided_at", UtcDateTime),
    Column("decided_by", Text),
    CheckConstraint("decision IN ('pending', 'approved')", name="decision"),
)

# Which prices were live from when on; rows are only ever added.
price_periods = Table(
    "wardgate_price_periods",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    Column("since", UtcDateTime, nullable=False, index=True),
    Column("number", BigInteger),  # NULL: the bundled map
    Column("version", String(80), nullable=False),
    Column("cause", String(16), nullable=False),
    Column("by", Text, nullable=False),
    CheckConstraint("cause IN ('approved', 'rule', 'rolled_back')", name="cause"),
    sqlite_autoincrement=True,
)

# Where prices come from: the last good content of each source, and when it is to be asked again.
price_sources = Table(
    "wardgate_price_sources",
    metadata,
    Column("source_id", String(64), primary_key=True),  # SHA-256 of the URL
    Column("name", Text, nullable=False),  # the URL without its query
    Column("etag", Text),
    Column("last_modified", Text),
    Column("digest", String(64)),
    Column("content", LargeBinary),  # compressed
    Column("fetched_at", UtcDateTime),
    Column("asked_at", UtcDateTime),
    Column("due_at", UtcDateTime, nullable=False),
    Column("error", Text, nullable=False),
)

# What one process at a time does for all, and until when it may.
leases = Table(
    "wardgate_leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", UtcDateTime, nullable=False),
)
