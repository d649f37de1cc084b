"""Tenants over HTTP: list, add, show, set the plan."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from gateway.admin.calls import OfCall
from gateway.admin.models import HeldKey, PlanChange, TenantNew, TenantOut, TenantQuery, TenantShown
from gateway.admin.pages import Page, page_of, place_after
from gateway.admin.parts import Tenant as TenantPart
from gateway.control.gate import Operation
from gateway.control.targets import may_be_said
from gateway.rules import Rules, unserved
from keystore.errors import TenantInvalid
from keystore.resolve import Found
from keystore.tenants import Tenant


def _facts(tenant: Tenant) -> dict[str, object]:
    names = ("id", "slug", "name", "plan", "default_model", "created_at")
    return {name: getattr(tenant, name) for name in names}


def tenant_out(tenant: Tenant, rules: Rules | None = None) -> TenantOut:
    """A tenant; with the rules in force, and what they mean for it."""
    why = unserved(tenant.plan, rules) if rules else None
    note = f"{why[:1].upper()}{why[1:]}: the tenant cannot be served on it." if why else None
    return TenantOut.model_validate(_facts(tenant) | {"note": note})


async def list_tenants(call: OfCall, query: Annotated[TenantQuery, Query()]) -> Page[TenantOut]:
    """Every tenant, by slug."""
    after = place_after(query, str)

    async def work(at: Operation) -> Sequence[Tenant]:
        last = str(after[0]) if after else ""
        return await at.keystore.tenants.page(plan=query.plan, after=last, limit=query.limit + 1)

    return page_of(await call.run(work), query, tenant_out, lambda one: (one.slug,))


async def add_tenant(call: OfCall, body: TenantNew) -> TenantOut:
    """The plan must be one that the gateway knows."""

    async def work(at: Operation) -> TenantOut:
        if not may_be_said(body.slug):
            raise TenantInvalid
        made = await at.keystore.tenants.add(
            body.slug, body.plan, name=body.name, id=body.id, default_model=body.default_model
        )
        return tenant_out(made, at.rules)

    return await call.run(work, target=body.slug, describe=lambda one: {"id": one.id, "plan": one.plan})


async def show_tenant(call: OfCall, tenant: TenantPart) -> TenantShown:
    """One tenant with what it holds: keys by name, tokens by id."""

    async def work(at: Operation) -> TenantShown:
        keyring = await at.keystore.names.keyring(at.tenant)
        found = [one for one in keyring.resolutions.values() if isinstance(one, Found)]
        keys = [
            HeldKey(provider=one.provider_id, setting_key=one.setting_key, via=one.via.value, store=one.store.value)
            for one in sorted(found, key=lambda one: one.provider_id)
        ]
        tokens = [token.id for token in await at.keystore.tokens.list(at.tenant) if token.revoked_at is None]
        return TenantShown.model_validate(_facts(at.tenant) | {"keys": keys, "tokens": tokens})

    return await call.run(work, tenant=tenant)


async def set_plan(call: OfCall, tenant: TenantPart, body: PlanChange) -> TenantOut:
    """Move a tenant to another plan; in force from its next request."""

    async def work(at: Operation) -> TenantOut:
        return tenant_out(await at.keystore.tenants.set_plan(at.tenant.slug, body.plan), at.rules)

    return await call.run(work, tenant=tenant, describe=lambda one: {"plan": one.plan})
