"""Who breaks when provider rows change: the comparison of one tenant's keys under the rows of before and after. Pure.

Owns the words of the verdict and the changed registries of a retirement and a rename. Must not know databases.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from keystore.keyring import Keyring
from keystore.providers import Provider, Registry, check_id, no_provider
from keystore.resolve import Found


class Effect(StrEnum):
    """What a change means for one tenant and one provider."""

    LOST = "lost"  # a key answered before, none does after
    OTHER_VALUE = "other_value"  # another of the tenant's keys answers after
    OTHER_NAME = "other_name"  # the same key, found under another kind of name
    GAINED = "gained"


BREAKS = frozenset({Effect.LOST, Effect.OTHER_VALUE})


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the verdict; names of keys, never values. `successor` is the provider that answers after."""

    tenant: str
    provider_id: str
    successor: str | None
    effect: Effect
    before: str | None
    after: str | None
    why: str

    @property
    def breaks(self) -> bool:
        return self.effect in BREAKS


def compare(tenant: str, before: Keyring, after: Keyring, new: Registry) -> Iterator[Change]:
    """What changes for a tenant whose keyrings under the old and the new rows these are."""
    for provider_id, found in before.resolutions.items():
        row = new.successor(provider_id)
        successor = row.id if row is not None and not row.retired else None
        now = after.resolutions.get(successor) if successor else None
        if isinstance(found, Found):
            change = _of_found(found, now if isinstance(now, Found) else None, before, after)
            if change is not None:
                effect, name, why = change
                yield Change(tenant, provider_id, successor, effect, found.setting_key, name, _because(why, row, now))
        elif isinstance(now, Found):
            yield Change(tenant, provider_id, successor, Effect.GAINED, None, now.setting_key, "")
    for provider_id, now in after.resolutions.items():
        if isinstance(now, Found) and provider_id not in before.resolutions and not _follows(provider_id, before, new):
            yield Change(tenant, provider_id, provider_id, Effect.GAINED, None, now.setting_key, "")


def _follows(provider_id: str, before: Keyring, new: Registry) -> bool:
    rows = (new.successor(name) for name in before.resolutions)
    return any(row is not None and row.id == provider_id for row in rows)


def _of_found(
    found: Found, now: Found | None, before: Keyring, after: Keyring
) -> tuple[Effect, str | None, str] | None:
    if now is None:
        return Effect.LOST, None, ""
    if _values(before, found.provider_id) != _values(after, now.provider_id):
        return Effect.OTHER_VALUE, now.setting_key, "another stored key comes first"
    if (found.setting_key, found.via) != (now.setting_key, now.via):
        return Effect.OTHER_NAME, now.setting_key, f"found as {now.via.value}, was {found.via.value}"
    return None


def _values(keyring: Keyring, provider_id: str) -> frozenset[bytes]:
    return frozenset(one.fingerprint for one in keyring.choices[provider_id])


def _because(why: str, row: Provider | None, now: object) -> str:
    if why:
        return why
    if row is None:
        return "the provider has no row any more, and no row names it as a former id"
    if row.retired:
        return f"{row.id} is retired and takes no traffic"
    skipped = "; ".join(f"{one.setting_key}: {one.why.value}" for one in getattr(now, "skipped", ()))
    return skipped or f"{row.id} looks for other names"


# --- changed registries --------------------------------------------------------------------------------------------


def retired(registry: Registry, provider_id: str) -> Registry:
    """The rows with this one as a tombstone. RegistryError when there is none."""
    row = _row(registry, provider_id)
    return Registry(replace(one, retired=True) if one.id == row.id else one for one in registry.providers)


def renamed(registry: Registry, old_id: str, new_id: str) -> Registry:
    """The rows with `new_id` in the place of `old_id`, which becomes a former id of it with all of its own; the old row
    becomes a tombstone. An existing row of the new id takes over the names. RegistryError when there is no such row, or
    the new id is none."""
    check_id(new_id)
    old, new = _row(registry, old_id), registry.get(new_id)
    inherited = (old.id, *old.former_ids)
    tombstone = replace(old, retired=True, former_ids=(), catalogue_ids=())
    if new is None:
        heir = replace(old, id=new_id, former_ids=inherited)
        rows = [each for one in registry.providers for each in ((heir, tombstone) if one.id == old.id else (one,))]
    else:
        names = (*new.catalogue_ids, *old.catalogue_ids)
        heir = replace(new, former_ids=tuple(dict.fromkeys((*inherited, *new.former_ids))), catalogue_ids=names)
        rows = [tombstone if one.id == old.id else heir if one.id == new.id else one for one in registry.providers]
    return Registry(rows)


def _row(registry: Registry, provider_id: str) -> Provider:
    row = registry.get(provider_id)
    if row is None:
        raise no_provider(provider_id, registry)
    return row
