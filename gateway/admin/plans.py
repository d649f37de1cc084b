"""The plans in force, over HTTP. They are rows of configuration: nothing here changes one."""

from typing import Annotated

from fastapi import Query

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.parts import Tenant as TenantPart
from gateway.admin.reports import PlanOut, PlanSimulation, PlanWanted
from gateway.control.gate import Operation
from gateway.simulating import change_record, simulate_plan
from router.plans import Plan


def _plan(plan: Plan) -> PlanOut:
    names = [name for name in PlanOut.model_fields if name not in ("object", "managed_budget_usd_per_month")]
    budget = format(plan.managed_budget_usd_per_month, "f")
    facts = {name: getattr(plan, name) for name in names}
    return PlanOut.model_validate(facts | {"managed_budget_usd_per_month": budget})


async def list_plans(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[PlanOut]:
    """The plans, by name."""

    async def work(at: Operation) -> list[Plan]:
        return list(at.rules.plans)

    return cut(await call.run(work), query, _plan, lambda plan: (plan.name,))


async def simulate(call: OfCall, tenant: TenantPart, query: Annotated[PlanWanted, Query()]) -> PlanSimulation:
    """What the tenant would gain and lose on another plan. Changes nothing."""
    services = call.services

    async def work(at: Operation) -> PlanSimulation:
        change = await simulate_plan(at, query.plan, services.now().date(), services.books.current.catalogue)
        return PlanSimulation.model_validate(change_record(at.tenant.slug, change))

    return await call.run(work, tenant=tenant)
