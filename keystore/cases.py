"""One stored key among the others of its tenant: whose it is, for whom it answers, and what stands before it.

Owns the record that the checks ask. Pure. Must not know databases, seals
or secrets, nor what is good or bad.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from keystore.health import Answer, Level, Reading, State, StoredKey, Yardstick
from keystore.providers import BASE_URL, Provider, filled, host_of
from keystore.resolve import Found, Store, Unusable, provider_for_setting
from keystore.use import KeyUseInfo


@dataclass(frozen=True, slots=True)
class Use:
    """What became of a key's calls to whichever provider."""

    success_at: datetime | None = None
    rejected_at: datetime | None = None
    status: int | None = None
    rejected_by: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One key with all that the checks ask about it. `shadow` is the key that stands before it, `found` the resolution
    of its owner, if that is answered at all."""

    key: StoredKey
    reading: Reading
    by: Yardstick
    owner: Provider | None
    answers: tuple[Answer, ...]
    found: Found | None
    shadow: StoredKey | None
    use: Use

    @property
    def is_served(self) -> bool:
        """Whether its provider is answered with another key, so that the tenant lacks nothing for want of this one."""
        return self.found is not None and not self.answers

    @property
    def gravity(self) -> Level:
        """How bad it is that this key cannot be used."""
        return Level.NOTE if self.is_served or self.key.state is State.GRACE else Level.PROBLEM

    @property
    def has_stand_in(self) -> bool:
        """Whether a former version stands in when this one is rejected; its successes are noted under the same name."""
        same = (each for each in self.reading.stored if each.setting_key == self.key.setting_key)
        return any(each.state is State.GRACE and each.label == self.key.label for each in same)

    @property
    def approves_base_url(self) -> bool:
        """Whether the base URL that came with the key, if one did, may still be used."""
        if self.owner is None or BASE_URL not in self.key.fields:
            return True
        try:
            there = filled(self.owner, self.key.fields)
            return self.owner.tenant_base_url and host_of(there.base_url) in there.hosts
        except (KeyError, ValueError):
            return False

    @property
    def store_again(self) -> str:
        """The step that puts a new value in the place of this one, with the fields that its provider needs."""
        fields = dict.fromkeys(self.owner.fields, "") if self.owner else {}
        kept = {*fields, *([BASE_URL] if self.approves_base_url else [])}
        fields |= {name: value for name, value in self.key.fields.items() if name in kept}
        return f"Store a valid key: {self.store(self.key.setting_key, fields)}."

    def store(self, name: str, fields: Mapping[str, str] | None = None) -> str:
        """How a key of this label is stored under this name."""
        return self.by.ways.store(self.reading.tenant, name, self.key.label, fields or {})

    def remove(self, name: str, label: str | None = None) -> str:
        """How the key of this name and label is removed, this key's label when none is given. Without one, every label
        would go, so it is said wherever the name has several."""
        label = self.key.label if label is None else label
        several = any(each.setting_key == name and each.label for each in self.reading.stored)
        return self.by.ways.remove(self.reading.tenant, name, label if label or several else None)


def case_of(key: StoredKey, reading: Reading, by: Yardstick) -> Case:
    """This key among what was read with it."""
    owner = provider_for_setting(key.setting_key, by.registry)
    resolution = reading.resolutions.get(owner.id) if owner else None
    found = resolution if isinstance(resolution, Found) else None
    answers = tuple(_answers(key, reading, by))
    shadow = None if answers else _shadow(key, found, reading.stored)
    return Case(
        key=key,
        reading=reading,
        by=by,
        owner=owner,
        answers=answers,
        found=found,
        shadow=shadow,
        use=_use(key, reading.uses) if _is_noted(key, shadow) else Use(),
    )


def _answers(key: StoredKey, reading: Reading, by: Yardstick) -> Iterator[Answer]:
    if key.state is not State.ACTIVE or key.unusable is not None:
        return
    for provider_id in by.names.asked_by.get(key.setting_key, ()):
        found, row = reading.resolutions.get(provider_id), by.registry.get(provider_id)
        if not isinstance(found, Found) or (found.setting_key, found.store) != (key.setting_key, key.store):
            continue
        if row is not None and misfit(row, key) is None:
            yield Answer(provider_id, found.via)


def misfit(row: Provider, key: StoredKey) -> Unusable | None:
    """Why a value that may be a key is none for this provider: as keyring.unusable_for."""
    try:
        there = filled(row, key.fields)
        host = host_of(there.base_url)
    except (KeyError, ValueError):
        return Unusable.LACKS_FIELDS
    return None if host in key.hosts and host in there.hosts else Unusable.WRONG_HOST


def _shadow(key: StoredKey, found: Found | None, stored: Iterable[StoredKey]) -> StoredKey | None:
    """The key that is asked before this one: of the same name in the credentials table, or the one that answers."""
    if key.state is not State.ACTIVE:
        return None
    active = [other for other in stored if other.state is State.ACTIVE and other is not key]
    if key.store is Store.LEGACY:
        twin = [other for other in active if other.store is Store.CREDENTIALS and other.setting_key == key.setting_key]
        if twin:
            return twin[0]
    if found is None or (found.setting_key, found.store) == (key.setting_key, key.store):
        return None
    winners = [each for each in active if (each.setting_key, each.store) == (found.setting_key, found.store)]
    return next((each for each in winners if each.fingerprint == key.fingerprint), winners[0] if winners else None)


def _is_noted(key: StoredKey, shadow: StoredKey | None) -> bool:
    """Whether what is noted under this name is of this key: calls are noted by name and label, for the one in use."""
    return key.state is State.ACTIVE and (shadow is None or shadow.setting_key != key.setting_key)


def _use(key: StoredKey, uses: Iterable[KeyUseInfo]) -> Use:
    ours = [each for each in uses if (each.key.setting_key, each.key.label) == (key.setting_key, key.label)]
    rejected = [(each.last_rejected_at, each) for each in ours if each.last_rejected_at is not None]
    success_at = max((each.last_success_at for each in ours if each.last_success_at is not None), default=None)
    if not rejected:
        return Use(success_at)
    at, newest = max(rejected, key=lambda pair: pair[0])
    return Use(success_at, at, newest.last_rejected_status, newest.key.provider_id)


def may_ask(case: Case) -> str | None:
    """The provider to which this key may travel for a look at it, if there is one."""
    if case.answers:
        return case.answers[0].provider_id
    if case.owner is None or case.owner.retired:
        return None
    if case.key.unusable is not None or case.key.state is State.QUARANTINED:
        return None
    return case.owner.id if misfit(case.owner, case.key) is None else None


def is_live(row: Provider | None) -> bool:
    """Whether this is a row that takes traffic."""
    return row is not None and not row.retired
