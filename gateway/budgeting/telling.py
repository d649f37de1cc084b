"""How budgets stand, as it is told to people and their programs: a tenant's, its tokens', and its plan's.

Owns the names of what is told. Must not know who asks, nor how anything is counted.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final

from gateway.usage_report import dollars
from keystore.budget_use import BudgetState
from keystore.budgets import Budget, plan_budget
from keystore.errors import BudgetInvalid
from keystore.keystore import Keystore
from keystore.money import nano_of
from keystore.tenants import Tenant
from router.plans import Plans

AMOUNT: Final = r"^[0-9]{1,10}(\.[0-9]{1,9})?$"  # dollars


def amount_of(text: str) -> Decimal:
    """The dollars that a text says. BudgetInvalid."""
    if not re.fullmatch(AMOUNT, text):
        raise BudgetInvalid(f'an amount is dollars, like "49.90", with at most nine decimals, not {text!r}')
    return Decimal(text)


async def states_of(keystore: Keystore, tenant: Tenant, plans: Plans, at: datetime) -> list[BudgetState]:
    """How every budget of a tenant stands: the plan's first, then the tenant's, then its tokens'."""
    plan = plans.get(tenant.plan)
    own = await keystore.budgets.list(tenant)
    of_plan = [] if plan is None else [plan_budget(tenant.id, nano_of(plan.managed_budget_usd_per_month))]
    return await keystore.budget_use.states([*of_plan, *own], at)


async def state_of(keystore: Keystore, budget: Budget, at: datetime) -> BudgetState:
    """How one budget stands."""
    return (await keystore.budget_use.states([budget], at))[0]


def over(states: Iterable[BudgetState], token_id: str) -> list[BudgetState]:
    """Those that bound what this token of the tenant may spend."""
    return [each for each in states if each.budget.token_id in ("", token_id)]


def told(state: BudgetState) -> dict[str, object]:
    """A budget, and what is left of it: what is neither spent nor held for calls that run or may."""
    left = state.budget.amount_nano - state.spent_nano - state.held_nano
    return defined(state.budget) | {
        "spent_usd": dollars(state.spent_nano),
        "held_usd": dollars(state.held_nano),
        "left_usd": dollars(max(0, left)),
        "starts": state.starts,
        "resets_at": state.resets_at,
    }


def defined(budget: Budget) -> dict[str, object]:
    """What may be spent. Money is text, as everywhere: a number of JSON is a float to most readers."""
    return {
        "whose": budget.whose.value,
        "token": budget.token_id or None,
        "spend": budget.spend.value,
        "period": budget.period.value,
        "hard": budget.hard,
        "amount_usd": dollars(budget.amount_nano),
    }


def target_of(spend: str, period: str, token_id: str) -> str:
    """What the audit calls a budget."""
    return " ".join(part for part in (spend, period, token_id) if part)
