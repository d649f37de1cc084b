"""The shapes of price releases: what may be sent, and what is answered.

Owns the models. Money is text: a JSON number would be read as a float. Must not know services.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from gateway.admin.shapes import Sent, Told, printable

MOST_ROWS = 1000
RowName = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(printable)]


class PriceMomentQuery(Sent):
    """A time, for a receipt."""

    at: Annotated[AwareDatetime, Field(description="ISO 8601 with a zone, e.g. 2026-11-20T12:00:00Z.")]


class RefreshWanted(Sent):
    """What is to be asked: every list of [prices]."""

    sources: Literal["all"]


class ApproveWanted(Sent):
    """The quarantined rows that are let in too; `["*"]` is every one that may be."""

    rows: Annotated[list[RowName], Field(max_length=MOST_ROWS, default_factory=list)]


class RollBackWanted(Sent):
    """Where to: the number of a release that was live, "bundled", or "previous"."""

    to: Annotated[str, Field(pattern=r"^([0-9]{1,9}|bundled|previous)$")]


class ImpactOut(Told):
    """Tenants for whom `auto` gives another model; null: none."""

    before: str | None
    after: str | None
    tenants: list[str]
    sentence: str


class PriceSourceOut(Told):
    """A list that went into a release."""

    name: str
    digest: str | None = None
    etag: str | None = None
    fetched_at: str | None = None


class PriceReleaseOut(Told):
    """A release without its rows. `note` says why it was refused."""

    object: Literal["price_release"] = "price_release"
    release: int
    version: str
    state: str
    models: int
    compared_with: str
    counts: dict[str, int]
    impact: list[ImpactOut]
    note: str
    sources: list[PriceSourceOut]
    staged_at: datetime
    staged_by: str
    decided_at: datetime | None
    decided_by: str | None


class PriceRowOut(Told):
    """A row that was not taken over: why, and what was decided."""

    object: Literal["price_row"] = "price_row"
    name: str
    why: str
    detail: str
    decision: str
    decided_at: datetime | None
    decided_by: str | None


class PriceChangeOut(Told):
    """One price of one model, in dollars; null: there is none."""

    name: str
    field: str
    before: str | None
    after: str | None
    factor: str | None


class PriceDiffOut(Told):
    """What a release changes. Lists are cut at 1000; `counts` are whole."""

    object: Literal["price_diff"] = "price_diff"
    release: int
    compared_with: str
    counts: dict[str, int]
    added: list[str]
    gone: list[str]
    changed: list[PriceChangeOut]
    became_free: list[str]
    lost_price: list[str]
    other: list[str]
    impact: list[ImpactOut]


class PricePeriodOut(Told):
    """What was live; `release` null: the map that came with LiteLLM."""

    object: Literal["price_period"] = "price_period"
    release: int | None
    version: str
    since: datetime | None
    cause: str | None
    by: str | None


class PriceSourceStatus(Told):
    """Where prices come from, and how it went the last time."""

    name: str
    fetched_at: datetime | None
    asked_at: datetime | None
    due_at: datetime
    overdue: bool
    error: str


class PriceReplicaOut(Told):
    """A process that serves, and which prices."""

    name: str
    catalogue: str
    current: bool
    seen_at: datetime


class PriceSettingsOut(Told):
    """[prices] as it is in force; `urls` is their number."""

    refresh: bool
    urls: int
    refresh_hours: float
    auto_approve: str
    max_factor: float
    max_lost: float
    max_growth: float


class PriceStatusOut(Told):
    """What is live, what waits, where prices come from, and who serves what."""

    object: Literal["price_status"] = "price_status"
    live: PricePeriodOut
    staged: PriceReleaseOut | None
    waiting_rows: int
    sources: list[PriceSourceStatus]
    replicas: list[PriceReplicaOut]
    settings: PriceSettingsOut


class PriceAskedOut(Told):
    """What became of one list."""

    name: str
    outcome: str
    error: str


class RefreshOut(Told):
    """What a refresh did. `release` is the one that was staged, went live, was refused, or is alike already."""

    object: Literal["price_refresh"] = "price_refresh"
    outcome: str
    note: str
    release: PriceReleaseOut | None
    sources: list[PriceAskedOut]


class RolledBackOut(Told):
    """What was left, and what is live now; null: the map that came with LiteLLM."""

    object: Literal["price_roll_back"] = "price_roll_back"
    left: int | None
    release: int | None
    version: str
