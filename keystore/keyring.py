"""A tenant's keyring: for every live provider, the name that answers, or what was looked for.

Owns joining holdings and provider rows, host check included, the order in which several keys of one name are tried, and
the one record that carries a secret to the wire. Pure. Must not know databases.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from keystore.budgets import NO_BUDGETS, TenantBudgets
from keystore.holdings import Holding, by_name
from keystore.limits import NO_LIMITS, TenantLimits
from keystore.providers import Provider, Registry, filled, host_of
from keystore.resolve import Found, HeldName, Missing, Names, NameTable, Store, Unusable, Via, first_usable
from keystore.secret import Secret

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Keyring:
    """What one tenant can use now. `resolutions` has every live row of the registry; `choices` has the usable keys of
    each provider that was found, those of former versions last. The sealed values travel along, so that unsealing
    needs no database; plain text only where a legacy table holds it so."""

    tenant_id: str
    resolutions: Mapping[str, Found | Missing]
    holdings: Mapping[str, tuple[Holding, ...]] = field(repr=False)  # by name
    choices: Mapping[str, tuple[Holding, ...]] = field(repr=False)  # by provider
    budgets: TenantBudgets = NO_BUDGETS
    limits: TenantLimits = NO_LIMITS
    lent: Mapping[str, str] = field(default_factory=lambda: _NOTHING)  # by provider: whose key it is, where not its own

    def owner(self, provider_id: str) -> str:
        """The id of the tenant whose key for this provider is used."""
        return self.lent.get(provider_id, self.tenant_id)


@dataclass(frozen=True, slots=True)
class Credential:
    """A key ready to travel, to `hosts` and nowhere else. Cannot be built without a secret or without hosts.
    `provider` is the row as it is for this key: its URL and hosts are filled in. `former` is the number of a superseded
    version that stands in while its grace lasts."""

    provider_id: str
    secret: Secret
    hosts: frozenset[str]
    setting_key: str
    via: Via
    store: Store
    provider: Provider
    label: str = ""
    former: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.secret, Secret):
            raise TypeError("a credential needs a secret")
        if not self.hosts:
            raise ValueError("a credential needs the hosts that its secret may travel to")


def build_keyring(tenant_id: str, holdings: Iterable[Holding], registry: Registry, table: NameTable) -> Keyring:
    """The keyring of what was read. A value sealed for other hosts than a provider's is unusable for that provider.
    `table` is the registry's."""
    held = by_name(holdings)
    resolutions: dict[str, Found | Missing] = dict(table.missing)
    choices: dict[str, tuple[Holding, ...]] = {}
    for provider_id in {asking for name in held for asking in table.asked_by.get(name, ())}:
        provider, names = registry.get(provider_id), table.names[provider_id]
        if provider is None:
            continue
        found = resolutions[provider_id] = first_usable(_held_for(provider, held, names), provider_id, names)
        if isinstance(found, Found):
            choices[provider_id] = tuple(one for one in held[found.setting_key] if unusable_for(provider, one) is None)
    return Keyring(tenant_id, resolutions, held, choices)


def _held_for(provider: Provider, held: Mapping[str, Sequence[Holding]], names: Names) -> dict[str, HeldName]:
    """The names that hold a key of today; where only former versions are left, they have nobody to stand in for."""
    active = {name: [one for one in held.get(name, ()) if one.grace_until is None] for name, _ in names}
    return {name: _held_name(same_name, provider) for name, same_name in active.items() if same_name}


def _held_name(same_name: Sequence[Holding], provider: Provider) -> HeldName:
    """The first key of a name that can be used now; without any, the first and why not."""
    judged = [(unusable_for(provider, one), one) for one in same_name]
    unusable, chosen = next((each for each in judged if each[0] is None), judged[0])
    return HeldName(chosen.setting_key, chosen.store, unusable, chosen.fingerprint)


def unusable_for(provider: Provider, holding: Holding) -> Unusable | None:
    """Why this key cannot be used for this provider, if it cannot: what is wrong with the value, a field that is
    lacking, or that it was sealed for other hosts."""
    if holding.unusable is not None:
        return holding.unusable
    try:
        there = filled(provider, holding.fields)
        host = host_of(there.base_url)
    except (KeyError, ValueError):
        return Unusable.LACKS_FIELDS
    return None if host in holding.hosts and host in there.hosts else Unusable.WRONG_HOST


def order_of_trial(choices: Sequence[Holding], now: datetime, draw: Callable[[], float]) -> list[Holding]:
    """The keys of one provider in the order in which one request tries them: by position, and of the same position at
    random by weight; then former versions, newest first, while their grace lasts. `draw` gives numbers in [0, 1)."""
    active = [one for one in choices if one.grace_until is None]
    former = [one for one in choices if one.grace_until is not None and one.grace_until > now]
    if len(active) > 1:  # the smallest of exponential times with rate w comes first with probability w / sum
        active.sort(key=lambda one: (one.position, -math.log(1.0 - draw()) / one.weight))
    return active + sorted(former, key=lambda one: (one.position, one.label, -one.version))
