"""What another plan would change for a tenant, whole: the rules in force, its keys, and the shape that is told.

Owns the joining, once for the command line and the API. Changes nothing. Must not know how it is shown.
"""

import asyncio
from datetime import date

from gateway.control.gate import Operation
from gateway.deciding import holdings
from gateway.rules import load_catalogue
from keystore.errors import UnknownPlan, did_you_mean
from router.catalogue import Catalogue
from router.plan_change import ModelsChange, PlanChange, plan_change
from router.plans import Plan
from router.query import KeySource


async def simulate_plan(at: Operation, plan: str, today: date, catalogue: Catalogue | None = None) -> PlanChange:
    """The operation's tenant on another plan. UnknownPlan when there is no such plan, or none any more that the tenant
    is on; DatabaseUnavailable. Without a catalogue the bundled one is read, aside: it takes a moment."""
    rules, tenant = at.rules, at.tenant
    before, after = (_row(at, name) for name in (tenant.plan, plan))
    keyring = await at.keystore.names.keyring(tenant)
    if catalogue is None:
        catalogue = await asyncio.to_thread(load_catalogue, rules.registry, rules.overrides)
    return plan_change(
        *(before, after, catalogue, rules.registry, rules.plans, holdings(keyring)),
        today=today,
        own_default=tenant.default_model,
    )


def _row(at: Operation, name: str) -> Plan:
    found = at.rules.plans.get(name)
    if found is None:
        raise UnknownPlan(f"there is no plan {name!r}{did_you_mean(name, at.rules.plans.names)}")
    return found


def change_record(tenant: str, change: PlanChange) -> dict[str, object]:
    """The change as JSON. Money is text."""
    default = change.default
    return {
        "object": "plan_simulation",
        "tenant": tenant,
        "before": change.before.name,
        "after": change.after.name,
        "loses": change.loses,
        "own_keys": _models(change.models[KeySource.BYOK]),
        "managed_keys": _models(change.models[KeySource.MANAGED]),
        "limits": [
            {"field": one.field, "before": _plain(one.before), "after": _plain(one.after), "effect": one.effect}
            for one in change.limits
        ],
        "min_quality": {"before": change.before.min_quality, "after": change.after.min_quality},
        "default_model": {
            "before": default.before,
            "after": default.after,
            "usable_before": default.usable_before,
            "usable_after": default.usable_after,
        },
    }


def _models(change: ModelsChange) -> dict[str, object]:
    return {"gained": list(change.gained), "lost": list(change.lost), "kept": change.kept}


def _plain(value: object) -> object:
    return value if isinstance(value, int) else format(value, "f")
