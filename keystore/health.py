"""The records of a key's health: what was read of a stored key, what was found, and what follows from it.

Pure. Must not know databases, seals or secrets: a record here holds no value. The checks are in keystore.examining.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from keystore.providers import Registry
from keystore.resolve import Found, Missing, NameTable, Store, Unusable, Via
from keystore.use import KeyUseInfo
from keystore.ways import Commands, Ways

NOTHING_TO_DO: Final = "Nothing to do."


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Check(StrEnum):
    """What was looked at."""

    OPENS = "opens"
    VALUE = "value"
    QUARANTINED = "quarantined"
    RETIRED = "retired"
    HOSTS = "hosts"
    SHAPE = "shape"
    PLAN = "plan"
    USE = "use"
    PENDING = "pending"
    SHADOWED = "shadowed"
    CONFLICT = "conflict"
    NAME = "name"
    STORE = "store"
    ANSWERS = "answers"
    LIVE = "live"


class State(StrEnum):
    """The state of a stored version, in the words of its row."""

    ACTIVE = "active"
    PENDING = "pending"
    GRACE = "superseded"  # and in its time of grace
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One stored key as it was read, without its value. `fits` says whether the value has the shape that its provider's
    row gives its keys; None where the row gives none or the value cannot be read. Legacy rows have version 0."""

    setting_key: str
    store: Store
    label: str = ""
    version: int = 0
    state: State = State.ACTIVE
    hint: str = ""
    unusable: Unusable | None = None
    fits: bool | None = None
    hosts: frozenset[str] = frozenset()
    fields: Mapping[str, str] = field(default_factory=dict)  # no secrets
    fingerprint: bytes = field(default=b"", repr=False)
    source: str = "set"  # how it came
    quarantine: str | None = None
    grace_until: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def stored_at(self) -> datetime | None:
        """Since when this value is the one: a legacy row is overwritten in place, a version never."""
        return self.created_at if self.store is Store.CREDENTIALS else (self.updated_at or self.created_at)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `step` is what to do about it, one sentence, or "" when there is nothing."""

    check: Check
    level: Level
    text: str
    step: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider that is answered with this key now, and by which rule its name is found."""

    provider_id: str
    via: Via


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """All that is known of one stored key. `provider_id` is whose name it has; `may_ask` the provider to which the key
    may travel for a look at it, None when there is none. `shadowed_by` is the name that answers in its place, and
    `store_again` the step that puts a new value in the place of this one."""

    tenant: str
    key: StoredKey
    provider_id: str | None
    answers: tuple[Answer, ...]
    may_ask: str | None
    shadowed_by: str | None
    conflicts: tuple[str, ...]
    last_success_at: datetime | None
    last_rejected_at: datetime | None
    last_rejected_status: int | None
    findings: tuple[Finding, ...]
    store_again: str

    @property
    def level(self) -> Level:
        """The worst of the findings."""
        levels = {finding.level for finding in self.findings}
        return next((level for level in (Level.PROBLEM, Level.NOTE) if level in levels), Level.OK)

    @property
    def next_step(self) -> str:
        """What to do about the worst of the findings, one sentence."""
        ranked = (each for level in (Level.PROBLEM, Level.NOTE) for each in self.findings if each.level is level)
        return next((each.step for each in ranked if each.step), NOTHING_TO_DO)

    @property
    def state(self) -> str:
        """One word for people, with the reason where there is one."""
        if self.key.quarantine is not None:
            return f"quarantined: {self.key.quarantine}"
        if self.key.unusable is not None:
            return f"unusable: {self.key.unusable.value}"
        if self.key.state is not State.ACTIVE:
            return "grace" if self.key.state is State.GRACE else self.key.state.value
        if self.shadowed_by is not None:
            return "shadowed"
        return "active" if self.answers else "answers for nobody"

    def with_finding(self, finding: Finding) -> "KeyHealth":
        """The same with one finding more."""
        return replace(self, findings=(*self.findings, finding))


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one tenant. `resolutions` has every live row, as in its keyring."""

    tenant: str  # slug
    plan: str
    stored: Sequence[StoredKey]
    resolutions: Mapping[str, Found | Missing]
    uses: Sequence[KeyUseInfo] = ()


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What keys are held against. `plan_allows` says whether the tenant's plan lets any model of a provider through
    with the tenant's own key; `plan_instead` names the least plan that would; `can_look` says whether a provider's keys
    can be tried with a look at its models. `ways` has the words of the next steps."""

    registry: Registry
    names: NameTable
    plan_allows: Callable[[str], bool]
    plan_instead: Callable[[str], str | None] = lambda _: None
    can_look: Callable[[str], bool] = lambda _: True
    ways: Ways = field(default_factory=Commands)
