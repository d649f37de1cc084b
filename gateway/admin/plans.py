"""The plans in force, over HTTP. They are rows of configuration: nothing here changes one."""

from typing import Annotated

from fastapi import Query

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.reports import PlanOut
from gateway.control.gate import Operation
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
