"""A tenant's keyring: for every live provider, the name that answers, or what was looked for.

Owns joining holdings and provider rows, host check included, and the one record that carries a secret to the wire.
Pure. Must not know databases.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from keystore.holdings import Holding, by_name
from keystore.providers import Provider, Registry, host_of
from keystore.resolve import Found, HeldName, Missing, Names, NameTable, Store, Unusable, Via, first_usable
from keystore.secret import Secret


@dataclass(frozen=True, slots=True)
class Keyring:
    """What one tenant can use now. `resolutions` has every live row of the registry. The sealed values travel along, so
    that unsealing needs no database; plain text only where a legacy table holds it so."""

    tenant_id: str
    resolutions: Mapping[str, Found | Missing]
    holdings: Mapping[str, Holding] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """A key ready to travel, to `hosts` and nowhere else. Cannot be built without a secret or without hosts."""

    provider_id: str
    secret: Secret
    hosts: frozenset[str]
    setting_key: str
    via: Via
    store: Store

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
    for provider_id in {asking for name in held for asking in table.asked_by.get(name, ())}:
        provider, names = registry.get(provider_id), table.names[provider_id]
        if provider is not None:
            resolutions[provider_id] = first_usable(_held_for(provider, held, names), provider_id, names)
    return Keyring(tenant_id, resolutions, held)


def _held_for(provider: Provider, held: Mapping[str, Holding], names: Names) -> dict[str, HeldName]:
    host = host_of(provider.base_url)
    return {name: _held_name(held[name], host) for name, _ in names if name in held}


def _held_name(holding: Holding, host: str) -> HeldName:
    unusable = holding.unusable
    if unusable is None and host not in holding.hosts:
        unusable = Unusable.WRONG_HOST
    return HeldName(holding.setting_key, holding.store, unusable, holding.fingerprint)
