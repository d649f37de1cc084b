"""What a caller is told when a budget refuses a call: which one, how much of it is spent, and when it begins anew.

Must not know how anything is counted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.budgeting.holder import Refused, Why
from gateway.errors import Problem
from keystore.budgets import Budget, Spend, Whose
from keystore.money import usd_of
from router.ranking import Candidate
from router.reasons import Fault

_WHOSE: Final[Mapping[Whose, str]] = MappingProxyType(
    {Whose.PLAN: "the plan's", Whose.TENANT: "the tenant's", Whose.TOKEN: "this token's"}
)
CODES: Final = ("insufficient_quota", "budget_unavailable", "unpriced")  # of the problems here
_KEYS: Final[Mapping[Spend, str]] = MappingProxyType(
    {Spend.MANAGED: "the operator's keys", Spend.BYOK: "the tenant's own keys"}
)


def spent(refused: Refused) -> Problem:
    """429 `insufficient_quota`, or 503 `budget_unavailable` when nobody can say what is left."""
    budget = refused.budget
    resets_at = refused.resets_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    extra = {
        "budget": {
            "whose": budget.whose.value,
            "spend": budget.spend.value,
            "period": budget.period.value,
            "amount_usd": format(usd_of(budget.amount_nano), "f"),
            "resets_at": resets_at,
        }
    }
    if refused.why is Why.UNAVAILABLE:
        text = f"What is left of {_named(budget)} cannot be told now, so nobody is asked. Send it again in a moment."
        return Problem(
            503, "budget_unavailable", text, Fault.GATEWAY, retry_after_s=5, caller_may_retry=True, extra=extra
        )
    extra["budget"] |= {
        "spent_usd": format(usd_of(refused.spent_nano), "f"),
        "held_usd": format(usd_of(refused.held_nano), "f"),
    }
    named, taken = _named(budget), refused.spent_nano + refused.held_nano
    state = "is used up" if taken >= budget.amount_nano else "has too little left"
    text = (
        f"{named[0].upper()}{named[1:]} {state}: {_usd(refused.spent_nano)} are spent and {_usd(refused.held_nano)}"
        f" held for calls that run, and this call may cost {_usd(refused.needed_nano)}. It begins anew at {resets_at}."
    )
    if taken < budget.amount_nano:
        text += " A call that may write less (`max_tokens`) may cost less."
    return Problem(429, "insufficient_quota", text, Fault.PLAN, extra=extra)


def unpriced(candidate: Candidate) -> Problem:
    """403: what a call costs must be known where a hard budget holds it."""
    offer = candidate.offer
    text = f"What this call to {offer.id} can cost is not known, so no budget can hold it: "
    if offer.fee_unknown:
        text += (
            "the model searches unasked, for a fee beside its tokens. Choose a model that does not, or have the"
            " operator tell the fee in [models] (`request` of the model's `prices`)."
        )
    else:
        text += (
            "the model has no price for it, or the request asks for what is charged apart from tokens (searches, tools"
            " that the provider runs, fields that this gateway does not know). Leave that out, choose a model with a"
            " price, or have the operator set one in [models]."
        )
    return Problem(403, "unpriced", text, Fault.PLAN)


def _named(budget: Budget) -> str:
    amount, keys = _usd(budget.amount_nano), _KEYS[budget.spend]
    return f"{_WHOSE[budget.whose]} budget of {amount} a {budget.period.value} for {keys}"


def _usd(nano: int) -> str:
    return f"{usd_of(nano):f} USD"
