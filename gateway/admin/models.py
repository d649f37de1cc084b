"""The shapes of tenants, keys, tokens and the audit: what may be sent, and what is answered.

Owns the models. What is sent has no field that is not named here; what is answered has no field for a secret but the
one in which a new token is shown once. Must not know services.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from gateway.admin.pages import PageQuery
from gateway.admin.shapes import (
    ACTION,
    SLUG,
    TENANT,
    FieldText,
    GraceHours,
    Kind,
    Label,
    ModelName,
    Network,
    Position,
    Scope,
    Sent,
    TenantName,
    Text,
    Time,
    Told,
    Version,
    Weight,
    Word,
)

LONGEST_OVERLAP_HOURS = 24 * 90

# --- tenants ---------------------------------------------------------------------------------------------------------


class TenantQuery(PageQuery):
    plan: Word | None = None


class TenantNew(Sent):
    """A tenant to be added. `id` is what a tenant_settings table of the same database knows it by."""

    slug: Annotated[str, Field(pattern=SLUG)]
    plan: Word
    name: Text | None = None
    id: Annotated[str, Field(pattern=TENANT)] | None = None
    default_model: Text | None = None


class PlanChange(Sent):
    """The plan that a tenant moves to."""

    plan: Word


class TenantOut(Told):
    """A tenant. `note` says, when its plan was set, that nothing can be served on it."""

    object: Literal["tenant"] = "tenant"
    id: str
    slug: str
    name: str
    plan: str
    default_model: str | None
    created_at: datetime
    note: str | None = None


class HeldKey(Told):
    """Which stored name answers for a provider."""

    provider: str
    setting_key: str
    via: str
    store: str


class TenantShown(TenantOut):
    """A tenant with what it holds: keys by name, tokens by id."""

    keys: list[HeldKey]
    tokens: list[str]


# --- keys ------------------------------------------------------------------------------------------------------------


class KeyQuery(PageQuery):
    provider: Word | None = None
    state: Literal["active", "pending", "quarantined", "shadowed"] | None = None


class LabelQuery(Sent):
    label: Annotated[Label | None, Field(description="One label; every label when it is left out.")] = None


class KeyValue(Sent):
    """A provider key to be stored. `expected_version` is the newest version that the caller knows of (0: none)."""

    value: SecretStr
    label: Label = ""
    weight: Weight | None = None
    position: Position | None = None
    activate: Annotated[bool, Field(strict=True)] = True
    grace_hours: GraceHours = 0.0
    fields: Annotated[dict[str, FieldText], Field(max_length=16, default_factory=dict)]
    expected_version: Version | None = None


class KeyActivation(Sent):
    """Which version is to be the active one."""

    version: Annotated[int, Field(ge=1, lt=2**31, strict=True)]
    label: Label = ""
    grace_hours: GraceHours = 0.0


class KeyTurn(Sent):
    """When this key is tried among those of the same name: its weight, its position, or both."""

    label: Label = ""
    weight: Weight | None = None
    position: Position | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.weight is None and self.position is None:
            raise PydanticCustomError("nothing_to_do", "it must hold a weight, a position, or both")
        return self


class KeyOut(Told):
    """A stored key without its value; `hint` is its end."""

    object: Literal["key"] = "key"
    setting_key: str
    label: str
    provider: str | None
    store: str
    version: int
    state: str
    unusable: str | None
    quarantine: str | None
    hint: str
    weight: int
    position: int
    grace_until: datetime | None
    fields: Mapping[str, str]
    created_at: datetime | None
    updated_at: datetime | None


class KeyRemoved(Told):
    """What is gone, and which stored name answers for the provider now."""

    object: Literal["key"] = "key"
    setting_key: str
    removed: Literal[True] = True
    provider: str | None
    answers_now: str | None
    store: str | None


# --- tokens ----------------------------------------------------------------------------------------------------------


class TokenQuery(PageQuery):
    tenant: TenantName | None = None
    kind: Kind | None = None
    state: Literal["active", "expired", "revoked"] | None = None


class TokenNew(Sent):
    """A token to be made. A tenant's token names its tenant; an admin token names none."""

    tenant: TenantName | None = None
    kind: Kind = "live"
    name: Text = ""
    expires_at: Time | None = None
    scopes: Annotated[list[Scope], Field(max_length=5, default_factory=list)]
    allowed_models: Annotated[list[ModelName], Field(max_length=200, default_factory=list)]
    allowed_addresses: Annotated[list[Network], Field(max_length=200, default_factory=list)]


class TokenRotation(Sent):
    """How long the old token goes on working."""

    overlap_hours: Annotated[float, Field(ge=0, le=LONGEST_OVERLAP_HOURS, allow_inf_nan=False, strict=True)] = 24.0


class TokenOut(Told):
    """A token without its secret. `sealed` is false for one whose row was changed past Wardgate: it is refused."""

    object: Literal["token"] = "token"
    id: str
    kind: str
    tenant: str | None
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    allowed_models: list[str]
    allowed_addresses: list[str]
    replaced_by: str | None
    last_used_at: datetime | None
    sealed: bool


class TokenMade(Told):
    """A token just made. `token` is shown once: null when the request was done before (`replayed`)."""

    object: Literal["token"] = "token"
    token: str | None = Field(repr=False)
    id: str
    kind: str
    tenant: str | None
    name: str
    created_at: datetime
    expires_at: datetime | None
    replayed: bool = False


class TokenRevoked(Told):
    """A token that is refused from now on."""

    object: Literal["token"] = "token"
    id: str
    revoked: Literal[True] = True


# --- audit -----------------------------------------------------------------------------------------------------------


class AuditQuery(PageQuery):
    tenant: TenantName | None = None
    action: Annotated[str, Field(pattern=ACTION, max_length=64)] | None = None
    actor: Word | None = None
    outcome: Literal["begun", "done", "refused", "failed", "denied", "found"] | None = None
    since: Time | None = None


class HeadQuery(Sent):
    expect: Annotated[
        str | None, Field(max_length=200, description="A head (NUMBER:SEAL) that was answered earlier.")
    ] = None


class AuditRowOut(Told):
    """One row of the audit. A write has two: one when it began, one when it had ended."""

    object: Literal["audit_row"] = "audit_row"
    seq: int
    at: datetime
    operation: str
    phase: str
    actor_kind: str
    actor: str
    origin: str
    action: str
    tenant_id: str | None
    target: str
    outcome: str
    detail: Mapping[str, Any]


class AuditVerdict(Told):
    """Whether the record is whole. Keep `head` where the database's writers cannot reach."""

    object: Literal["audit_verdict"] = "audit_verdict"
    rows: int
    head: str
    whole: bool
    faults: list[str]
