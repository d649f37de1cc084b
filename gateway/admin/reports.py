"""The shapes of what is read over all tenants: old names, conflicts, provider rows, root keys, imports.

Owns the models. Nothing here has a field for a secret. Must not know services.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.admin.shapes import BATCH, PROVIDER, ModelName, Sent, TenantName, Told, Word


class ProviderQuery(Sent):
    provider: Word | None = None


class RenameQuery(Sent):
    to: Annotated[str, Field(pattern=PROVIDER, description="The new id.")]


class OldNameOut(Told):
    """A tenant whose key is found under another name than the canonical one."""

    tenant: str
    provider_id: str
    setting_key: str
    canonical: str
    via: str
    store: str
    last_used_at: datetime | None


class FormerName(Told):
    """A former name of a provider, and the tenants that still need it. Safe to retire when there are none."""

    provider_id: str
    setting_key: str
    tenants: list[str]
    safe: bool


class KeyReport(Told):
    """Who is on an old name, and which former names nobody needs any more."""

    object: Literal["key_report"] = "key_report"
    uses: list[OldNameOut]
    former_names: list[FormerName]


class ConflictOut(Told):
    """Two different keys behind one provider: `winner` is the name that answers."""

    tenant: str
    provider_id: str
    winner: str
    via: str
    others: list[str]


class ProviderOut(Told):
    """A provider row in force, and the names under which a key of it is looked for, in order."""

    object: Literal["provider"] = "provider"
    id: str
    name: str
    wire: str
    base_url: str
    hosts: list[str]
    key_names: list[str]
    former_ids: list[str]
    catalogue_ids: list[str]
    retired: bool


class MoveQuery(Sent):
    """Whose keys, and of which provider; all when left out."""

    tenant: TenantName | None = None
    provider: Word | None = None


class MoveWanted(Sent):
    """The same, to be done. `tenant` must be said: null is all of them."""

    tenant: TenantName | None
    provider: Word | None = None


class UndoWanted(Sent):
    """Which batch is put back."""

    batch: Annotated[str, Field(pattern=BATCH, description="As `canonicalise` named it.")]


class MoveStepOut(Told):
    """One stored key, and what becomes or became of it. `reason` says why it is left or copied, or is empty."""

    tenant: str
    provider_id: str
    from_name: str
    to_name: str
    label: str
    outcome: str
    reason: str


class MovesOut(Told):
    """Keys that are found under an old name. `batch` is what undoes it; null when nothing was changed."""

    object: Literal["moves"] = "moves"
    batch: str | None
    counts: Mapping[str, int]
    steps: list[MoveStepOut]


class UndoOut(Told):
    """What became of each move of a batch."""

    object: Literal["undo"] = "undo"
    batch: str
    counts: Mapping[str, int]
    steps: list[MoveStepOut]


class BatchOut(Told):
    """A run of `canonicalise` that changed something: how many tenants and keys, and how many were put back."""

    object: Literal["batch"] = "batch"
    batch: str
    moved_at: datetime
    tenants: int
    moves: int
    undone: int


class AliasRow(Sent):
    """What an alias stands for: `models` in order, or an `objective` over everything."""

    models: Annotated[list[ModelName], Field(min_length=1, max_length=20)] | None = None
    objective: Literal["cheapest", "fastest", "best", "value"] | None = None
    min_quality: Annotated[int, Field(ge=0, le=100, strict=True)] | None = None
    unknown_quality: Annotated[bool, Field(strict=True)] = False


class AliasOut(Told):
    """An alias of a tenant's own."""

    object: Literal["alias"] = "alias"
    name: str
    models: list[str]
    objective: str | None
    min_quality: int | None
    unknown_quality: bool


class AliasesOut(Told):
    """All aliases of a tenant's own, by name."""

    object: Literal["list"] = "list"
    data: list[AliasOut]


class ChangeOut(Told):
    """What a change of the provider rows means for one tenant; names of keys, never values."""

    tenant: str
    provider_id: str
    successor: str | None
    effect: str
    before: str | None
    after: str | None
    why: str
    breaks: bool


class Impact(Told):
    """Who would break. Nothing was changed."""

    object: Literal["impact"] = "impact"
    breaks: bool
    changes: list[ChangeOut]
    models_gone: list[str]


class RootKeyOut(Told):
    """A root key: its state, whether it is here, how much it wraps, and the live replicas that lack it."""

    object: Literal["root_key"] = "root_key"
    kek_id: str
    state: str
    present: bool
    created_at: datetime
    tenant_keys: int
    service_keys: int
    replicas_lacking: list[str]


class SealingVerdict(Told):
    """What opens and what does not; `faults` names rows, never a value."""

    object: Literal["sealing_verdict"] = "sealing_verdict"
    processed: int
    succeeded: int
    skipped: int
    failed: int
    faults: list[str]


class ImportOut(Told):
    """An import and how far it is."""

    object: Literal["import"] = "import"
    import_id: str
    source: str
    in_place: bool
    state: str
    counts: Mapping[str, Any]
    started_at: datetime
    updated_at: datetime
    verified_at: datetime | None


# --- plans and the key doctor ----------------------------------------------------------------------------------------


class PlanOut(Told):
    """A plan in force. Models are families, `provider/family`, `provider/*` or `*`; money is text."""

    object: Literal["plan"] = "plan"
    name: str
    managed_models: list[str]
    byok: bool
    byok_models: list[str]
    requests_per_minute: int
    tokens_per_minute: int
    concurrency: int
    managed_budget_usd_per_month: str
    min_quality: int
    default_model: str
    default_provider: str | None
    narrower_than_lower: bool
    above: str | None


class PlanWanted(Sent):
    """The plan to look at."""

    plan: Word


class ModelsChangeOut(Told):
    """Ids of models that a tenant would have and lose with keys of one source."""

    gained: list[str]
    lost: list[str]
    kept: int


class NotLentOut(Told):
    """Models of the new plan that only a key of the operator's would open, and it has none for these providers."""

    reason: str
    providers: list[str]
    models: list[str]


class LimitChangeOut(Told):
    """A limit or switch of the plan: gained, lost or the same. Money is text."""

    field: str
    before: int | bool | str
    after: int | bool | str
    effect: str


class QualityChangeOut(Told):
    """The floor for automatic choice, before and after."""

    before: int
    after: int


class DefaultChangeOut(Told):
    """What `default` means, and whether the tenant's keys and the plan let it through."""

    before: str
    after: str
    usable_before: bool
    usable_after: bool


class PlanSimulation(Told):
    """What another plan would change for a tenant. Nothing was changed. `own_keys` counts models of the providers for
    which the tenant has a key, `managed_keys` those for which the operator lends it one."""

    object: Literal["plan_simulation"] = "plan_simulation"
    tenant: str
    before: str
    after: str
    loses: bool
    own_keys: ModelsChangeOut
    managed_keys: ModelsChangeOut
    not_lent: NotLentOut
    limits: list[LimitChangeOut]
    min_quality: QualityChangeOut
    default_model: DefaultChangeOut


class FindingOut(Told):
    """One thing that was looked at, and what to do about it."""

    check: str
    level: str
    text: str
    step: str | None


class AnswerOut(Told):
    """A provider that this key answers for, and by which kind of name."""

    provider: str
    via: str


class LiveOut(Told):
    """What the provider said to the key when it was asked which models it sees."""

    provider: str | None
    outcome: str
    status: int | None
    models: int | None
    more: bool
    names: list[str]
    proves: bool
    text: str


class KeyHealthOut(Told):
    """The health of one stored key, and the next step in one sentence."""

    setting_key: str
    label: str
    provider: str | None
    store: str
    version: int
    state: str
    hint: str
    answers: list[AnswerOut]
    shadowed_by: str | None
    conflicts: list[str]
    last_success_at: datetime | None
    last_rejected_at: datetime | None
    last_rejected_status: int | None
    level: str
    findings: list[FindingOut]
    next_step: str
    live: LiveOut | None


class DoctorReport(Told):
    """Every stored key of one tenant."""

    object: Literal["key_doctor"] = "key_doctor"
    problems: int
    keys: list[KeyHealthOut]
