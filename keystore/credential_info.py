"""A stored key as it is told to people: everything but its value.

Owns the record and how it is made. Must not know databases' statements or ciphers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from keystore.holdings import Holding
from keystore.resolve import Store, Unusable


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """A stored key without its value. `hint` is its end, or "". Legacy rows have version 0; `state` is that of the row,
    or "shadowed" for a legacy row whose name the credentials table holds too. `unusable` says why the value is never
    used, if it is not, and `quarantine` why it was set aside when it was taken over. `fields` hold no secrets."""

    setting_key: str
    provider_id: str | None
    version: int
    state: str
    hint: str
    created_at: datetime | None
    updated_at: datetime | None
    store: Store
    unusable: Unusable | None
    label: str = ""
    weight: int = 1
    position: int = 0
    grace_until: datetime | None = None
    quarantine: str | None = None
    source: str = ""
    credential_id: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


def info_of(holding: Holding, *, shadowed: bool) -> CredentialInfo:
    """A key that was opened."""
    return CredentialInfo(
        setting_key=holding.setting_key,
        provider_id=holding.provider_id,
        version=holding.version,
        state="shadowed" if shadowed and holding.store is Store.LEGACY else "active",
        hint=holding.hint,
        created_at=holding.created_at,
        updated_at=holding.updated_at,
        store=holding.store,
        unusable=holding.unusable,
        label=holding.label,
        weight=holding.weight,
        position=holding.position,
        source=holding.source,
        credential_id=holding.credential_id,
        fields=holding.fields,
    )


def info_of_row(row: Row[Any]) -> CredentialInfo:
    """A row as it stands, its envelope unopened."""
    return CredentialInfo(
        setting_key=row.setting_key,
        provider_id=row.provider_id,
        version=row.version,
        state=row.state,
        hint=row.hint,
        created_at=row.created_at,
        updated_at=row.updated_at,
        store=Store.CREDENTIALS,
        unusable=None,
        label=row.label,
        weight=row.weight,
        position=row.position,
        grace_until=row.grace_until,
        quarantine=row.quarantine,
        source=row.source,
        credential_id=row.credential_id,
    )
