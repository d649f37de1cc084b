"""What another plan would change for a tenant, whole: the rules in force, its keys, and the shape that is told.

Owns the joining, once for the command line and the API. Changes nothing. Must not know how it is shown.
"""

import asyncio
from datetime import date

from gateway.control.gate import Operation
from gateway.deciding import holdings
from gateway.lending import lent_on, operator_of, usable_of
from gateway.rules import load_catalogue
from keystore.errors import UnknownPlan, did_you_mean
from keystore.keyring import Keyring
from router.catalogue import Catalogue
from router.plan_change import ModelsChange, PlanChange, plan_change
from router.plans import Plan
from router.query import KeySource
from router.reasons import Reason


async def simulate_plan(at: Operation, plan: str, today: date, catalogue: Catalogue | None = None) -> PlanChange:
    """The operation's tenant on another plan. UnknownPlan when there is no such plan, or none any more that the tenant
    is on; DatabaseUnavailable. Without a catalogue the bundled one is read, aside: it takes a moment."""
    rules, tenant = at.rules, at.tenant
    before, after = (_row(at, name) for name in (tenant.plan, plan))
    keyring, operators = await at.keystore.names.keyring(tenant), await _operators(at)
    held = tuple(holdings(lent_on(each, keyring, operators)) for each in (before, after))
    if catalogue is None:
        catalogue = await asyncio.to_thread(load_catalogue, rules.registry, rules.overrides)
    return plan_change(
        *(before, after, catalogue, rules.registry, rules.plans),
        (held[0], held[1]),
        usable_of(operators),
        today=today,
        own_default=tenant.default_model,
    )


async def _operators(at: Operation) -> Keyring | None:
    operator = await operator_of(at.keystore, at.rules.operator)
    return None if operator is None else await at.keystore.names.keyring(operator)


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
        "not_lent": {
            "reason": Reason.NO_OPERATOR_KEY.value,
            "providers": not_lent_by(change),
            "models": list(change.not_lent),
        },
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


def not_lent_by(change: PlanChange) -> list[str]:
    """The ids of the providers for which the operator would need a key."""
    return sorted({each.partition("/")[0] for each in change.not_lent})


def _models(change: ModelsChange) -> dict[str, object]:
    return {"gained": list(change.gained), "lost": list(change.lost), "kept": change.kept}


def _plain(value: object) -> object:
    return value if isinstance(value, int) else format(value, "f")
