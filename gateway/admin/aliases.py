"""A tenant's own names for models, over HTTP: for an operator, and for the tenant itself."""

from collections.abc import Callable

from gateway.admin.calls import Call, OfCall
from gateway.admin.parts import AliasName, Tenant
from gateway.admin.reports import AliasesOut, AliasOut, AliasRow
from gateway.aliasing import as_row, own_aliases, removing, setting
from gateway.control.gate import Operation
from keystore.tenants import Tenant as StoredTenant
from router.aliases import Aliases


def _told(tenant: StoredTenant) -> AliasesOut:
    return AliasesOut(data=[AliasOut.model_validate(as_row(alias)) for alias in own_aliases(tenant)])


async def _list(call: Call, tenant: str) -> AliasesOut:
    async def work(at: Operation) -> StoredTenant:
        return at.tenant

    return _told(await call.run(work, tenant=tenant))


async def _edit(
    call: Call, tenant: str, name: str, change: Callable[[Aliases], Callable[[str | None], str | None]]
) -> AliasesOut:
    async def work(at: Operation) -> StoredTenant:
        return await at.keystore.tenants.edit_aliases(at.tenant, change(at.rules.aliases))

    return _told(await call.run(work, tenant=tenant, target=name))


async def list_aliases(call: OfCall, tenant: Tenant) -> AliasesOut:
    """The tenant's own aliases."""
    return await _list(call, tenant)


async def set_alias(call: OfCall, tenant: Tenant, name: AliasName, body: AliasRow) -> AliasesOut:
    """Set an alias; in force with the tenant's next request."""
    return await _edit(call, tenant, name, lambda operators: setting(name, body.model_dump(), operators))


async def remove_alias(call: OfCall, tenant: Tenant, name: AliasName) -> AliasesOut:
    """Remove an alias."""
    return await _edit(call, tenant, name, lambda operators: removing(name, operators))


async def list_own(call: OfCall) -> AliasesOut:
    """Your own aliases."""
    return await _list(call, call.own_tenant)


async def set_own(call: OfCall, name: AliasName, body: AliasRow) -> AliasesOut:
    """Set an alias; in force with your next request."""
    return await _edit(call, call.own_tenant, name, lambda operators: setting(name, body.model_dump(), operators))


async def remove_own(call: OfCall, name: AliasName) -> AliasesOut:
    """Remove an alias."""
    return await _edit(call, call.own_tenant, name, lambda operators: removing(name, operators))
