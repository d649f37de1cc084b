"""A tenant's budgets over HTTP, for the operator: its own, its tokens' and its plan's, and how each stands."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, Place, cut
from gateway.admin.parts import Period, Spend, Tenant
from gateway.admin.shapes import TOKEN_ID, Sent, Told
from gateway.budgeting.telling import AMOUNT, defined, state_of, states_of, target_of, told
from gateway.control.gate import Operation
from keystore.budget_use import BudgetState
from keystore.budgets import Budget, Whose

_ORDER = tuple(Whose)


class BudgetQuery(Sent):
    """Whose budget it is."""

    token: Annotated[str, Field(pattern=TOKEN_ID, description="A token of the tenant's; without, of all.")] = ""


class BudgetNew(Sent):
    """What may be spent. `hard` refuses what could overrun it, else it only tells. Without `hard` it stays what it was;
    a new one is hard when it is managed."""

    amount_usd: Annotated[str, Field(pattern=AMOUNT, description="Dollars as text, e.g. 49.90; 0: nothing.")]
    hard: Annotated[bool | None, Field(strict=True)] = None


class BudgetDefined(Told):
    """A budget; of all the tenant's tokens where `token` is null."""

    object: Literal["budget"] = "budget"
    whose: Literal["plan", "tenant", "token"]
    token: str | None
    spend: Literal["managed", "byok"]
    period: Literal["day", "month"]
    hard: bool
    amount_usd: str


class BudgetOut(BudgetDefined):
    """A budget and how it stands in its present period (UTC): what is neither spent nor held is left."""

    spent_usd: str
    held_usd: str
    left_usd: str
    starts: date
    resets_at: datetime


class BudgetRemoved(BudgetDefined):
    """A budget that is no more."""

    removed: Literal[True] = True


def _out(state: BudgetState) -> BudgetOut:
    return BudgetOut.model_validate(told(state))


def _place(state: BudgetState) -> Place:
    budget = state.budget
    return (_ORDER.index(budget.whose), budget.token_id, budget.spend.value, budget.period.value)


async def list_budgets(call: OfCall, tenant: Tenant, query: Annotated[PageQuery, Query()]) -> Page[BudgetOut]:
    """The plan's budget first, then the tenant's, then its tokens', with what is spent, held and left of each."""
    now = call.services.now()

    async def work(at: Operation) -> list[BudgetState]:
        return await states_of(at.keystore, at.tenant, at.rules.plans, now)

    return cut(await call.run(work, tenant=tenant), query, _out, _place)


async def set_budget(
    call: OfCall,
    tenant: Tenant,
    spend: Spend,
    period: Period,
    query: Annotated[BudgetQuery, Query()],
    body: BudgetNew,
) -> BudgetOut:
    """Set a budget in place of the one there is; what was spent in the present period counts."""
    now, amount = call.services.now(), Decimal(body.amount_usd)

    async def work(at: Operation) -> BudgetState:
        set_now = at.keystore.budgets.set
        budget = await set_now(at.tenant, period, spend, amount, token_id=query.token, hard=body.hard)
        return await state_of(at.keystore, budget, now)

    target = target_of(spend, period, query.token)
    return _out(await call.run(work, tenant=tenant, target=target, describe=lambda one: defined(one.budget)))


async def remove_budget(
    call: OfCall, tenant: Tenant, spend: Spend, period: Period, query: Annotated[BudgetQuery, Query()]
) -> BudgetRemoved:
    """Remove a budget; nothing of what was spent is forgotten. A plan's budget is a field of the plan's row."""

    async def work(at: Operation) -> Budget:
        return await at.keystore.budgets.remove(at.tenant, period, spend, token_id=query.token)

    target = target_of(spend, period, query.token)
    return BudgetRemoved.model_validate(defined(await call.run(work, tenant=tenant, target=target, describe=defined)))
