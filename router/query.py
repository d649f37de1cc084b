"""What is asked of the router: the model as the caller wrote it, the request's needs, the plan, and the keys at hand.

Owns the records that a decision is a function of. They hold names of keys, never keys. Must not know how a key was
found or how a decision is made.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from router.needs import Needs
from router.plans import Plan


class KeySource(StrEnum):
    """Whose key: the tenant's own, or the operator's."""

    BYOK = "byok"
    MANAGED = "managed"


@dataclass(frozen=True, slots=True)
class Holding:
    """A usable key for a provider. `skipped` are the names that are held with a value that is not used, each with the
    word why; `conflicts` the names that hold another usable value; `labels` its several keys. No value is in it."""

    provider_id: str
    source: KeySource
    via: str  # canonical, family, former, sibling
    setting_key: str
    store: str  # credentials, legacy
    conflicts: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()  # empty when there is one key and it has no label
    tenant_id: str = ""  # whose requests it serves
    keys: tuple[str, ...] = ()  # an id for each key; it changes when the key changes
    former_keys: tuple[str, ...] = ()  # of former versions that may stand in


@dataclass(frozen=True, slots=True)
class Lacking:
    """No usable key for a provider: the names that were looked for, in order, and those that are held with a value
    that is not used, each with the word why."""

    provider_id: str
    tried: tuple[str, ...] = ()
    unusable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the router."""

    model: str  # as the caller wrote it
    needs: Needs
    plan: Plan
    default_model: str | None  # the tenant's; None: the plan's
    today: date
    tenant: str  # slug
    allowed_models: tuple[str, ...] = ()  # what the caller's token is for; empty: everything
    managed: bool = False  # whether the operator's keys may be used for this tenant
