"""Lends the operator's keys to tenants: for providers of which a tenant holds nothing, where its plan has such models.

A tenant's own key comes first, and one that does not work is never stood in for: the operator's money is not spent
silently. Where the plan takes no keys of tenants, the operator's are used whatever the tenant has stored. Owns which
keys these are. Must not know what they may be used for (the plan's `managed_models`), nor what that may cost.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Final
from weakref import ref

from gateway.config import ConfigError
from keystore.errors import TenantUnknown
from keystore.keyring import Keyring
from keystore.keystore import Keystore
from keystore.resolve import Found, Missing
from keystore.tenants import Tenant
from router.plans import Plan

KNOWN: Final = 10_000  # keyrings that are remembered

_Known = tuple[ref[Keyring], ref[Keyring], Keyring]


class Lending:
    """`operator` is the tenant that holds the operator's keys; None: there are none."""

    def __init__(self, keystore: Keystore, operator: Tenant | None) -> None:
        self._keystore = keystore
        self._operator = operator
        self._known: OrderedDict[tuple[int, bool], _Known] = OrderedDict()

    async def keyring(self, tenant: Tenant, plan: Plan | None) -> Keyring:
        """What the tenant can use now, with what it is lent. DatabaseUnavailable as Keystore.keyring."""
        own, operator = await self._keystore.keyring(tenant), self._operator
        if operator is None or plan is None or not plan.managed_models or tenant.id == operator.id:
            return own
        return self._lent(own, await self._keystore.keyring(operator), strictly=plan.byok)

    def _lent(self, own: Keyring, operators: Keyring, *, strictly: bool) -> Keyring:
        """The same for the same two: what was worked out for it is remembered by it."""
        key = (id(own), strictly)
        known = self._known.get(key)
        if known is None or known[0]() is not own or known[1]() is not operators:
            known = self._known[key] = (ref(own), ref(operators), lent(own, operators, strictly=strictly))
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return known[2]


def lent_on(plan: Plan, own: Keyring, operators: Keyring | None) -> Keyring:
    """What a tenant with this keyring could use on a plan. `operators`: the operator's; None: there is none."""
    if operators is None or not plan.managed_models or own.tenant_id == operators.tenant_id:
        return own
    return lent(own, operators, strictly=plan.byok)


def usable_of(keyring: Keyring | None) -> frozenset[str]:
    """The providers for which there is a usable key."""
    found = {} if keyring is None else keyring.resolutions
    return frozenset(provider_id for provider_id, one in found.items() if isinstance(one, Found))


def lent(own: Keyring, operators: Keyring, *, strictly: bool) -> Keyring:
    """A tenant's keyring with the operator's keys for what it lacks; `strictly`: only where nothing at all is stored
    for a provider, be it usable or not."""
    taken = {
        provider_id: found
        for provider_id, found in operators.resolutions.items()
        if isinstance(found, Found) and (not strictly or _holds_nothing(own, provider_id))
    }
    if not taken:
        return own
    choices = {provider_id: operators.choices[provider_id] for provider_id in taken}
    return replace(
        own,
        resolutions={**own.resolutions, **taken},
        choices={**own.choices, **choices},
        lent=dict.fromkeys(taken, operators.tenant_id),
    )


def _holds_nothing(own: Keyring, provider_id: str) -> bool:
    found = own.resolutions.get(provider_id)
    return isinstance(found, Missing) and not found.skipped


async def operator_of(keystore: Keystore, slug: str | None) -> Tenant | None:
    """The tenant that `[managed] tenant` names. ConfigError when there is none."""
    if slug is None:
        return None
    try:
        return await keystore.tenants.get(slug)
    except TenantUnknown:
        add = f"wardgate tenant add {slug} --plan enterprise"
        raise ConfigError(f'[managed] tenant names "{slug}", and there is no such tenant; add it: {add}') from None
