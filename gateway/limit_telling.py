"""Which limits a tenant and its tokens have, as it is told to people and their programs.

Owns the names of what is told, and whose a limit is. Must not know who asks, nor how anything is counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from keystore.limits import Limit, Limited, TenantLimits
from router.plans import Plan


class Whose(StrEnum):
    """Who set a limit, and whose requests it counts."""

    PLAN = "plan"  # the plan's, for all that one tenant asks
    TENANT = "tenant"  # in place of the plan's
    TOKEN = "token"  # noqa: S105 - a name; beside the tenant's


def of_plan(plan: Plan) -> dict[Limited, int]:
    """The plan's own three."""
    return {
        Limited.REQUESTS: plan.requests_per_minute,
        Limited.TOKENS: plan.tokens_per_minute,
        Limited.CONCURRENCY: plan.concurrency,
    }


def told(plan: Plan | None, own: Sequence[Limit]) -> list[dict[str, object]]:
    """Every limit that there is: the plan's that stand, the tenant's in place of others, then its tokens'."""
    known = TenantLimits.of(own)
    planned = {} if plan is None else of_plan(plan)
    rows = [
        _row(Whose.PLAN, "", limited, amount) for limited, amount in planned.items() if limited not in known.of_tenant
    ]
    rows += rows_of("", known.of_tenant)
    for token_id, amounts in known.of_tokens.items():
        rows += rows_of(token_id, amounts)
    return rows


def rows_of(token_id: str, amounts: Mapping[Limited, int]) -> list[dict[str, object]]:
    """Limits of a tenant's own, or of one of its tokens."""
    whose = Whose.TOKEN if token_id else Whose.TENANT
    return [_row(whose, token_id, limited, amounts[limited]) for limited in Limited if limited in amounts]


def defined(found: Iterable[Limit]) -> list[dict[str, object]]:
    """The same, of limits as they stand in the keystore."""
    return [row for each in found for row in rows_of(each.token_id, {each.limited: each.amount})]


def _row(whose: Whose, token_id: str, limited: Limited, amount: int) -> dict[str, object]:
    return {"whose": whose.value, "token": token_id or None, "limit": limited.value, "amount": amount}


def target_of(names: Iterable[str], token_id: str) -> str:
    """What the audit calls limits."""
    return " ".join([*names, token_id] if token_id else names)
