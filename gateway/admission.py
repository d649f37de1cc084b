"""Lets a request in, under the limits of its plan, tenant and token: requests and tokens a minute, and at once.

Owns which limits a request is under and how a refusal is worded. Must not know how anything is counted.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gateway.bulk import Place, told_of_bulk
from gateway.errors import ApiError, Problem
from gateway.limit_telling import Whose, of_plan
from gateway.limiting.asks import (
    Ask,
    Kind,
    Standing,
    Ticket,
    Verdict,
    at_once,
    requests_a_minute,
    scope_of,
    tokens_a_minute,
)
from gateway.limiting.headers import duration, limit_headers
from gateway.limiting.limiter import Limiter
from gateway.tally import Tally
from keystore.limits import Limited, TenantLimits
from router.decision import Decision
from router.plans import Plan
from router.reasons import Fault

_UNITS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.REQUESTS: "requests a minute",
        Kind.TOKENS: "tokens a minute",
        Kind.CONCURRENCY: "requests at the same time",
    }
)
_LIMITED: Final[Mapping[Kind, Limited]] = MappingProxyType(
    {Kind.REQUESTS: Limited.REQUESTS, Kind.TOKENS: Limited.TOKENS, Kind.CONCURRENCY: Limited.CONCURRENCY}
)
_WHO_ALLOWS: Final[Mapping[Whose, str]] = MappingProxyType(
    {
        Whose.PLAN: 'The plan "{}" allows',
        Whose.TENANT: "The limit of this tenant allows",
        Whose.TOKEN: "The limit of this token allows",
    }
)


Bounds = tuple[Plan, TenantLimits]
"""What bounds a tenant's requests: its plan, and the limits that it and its tokens have of their own."""


@dataclass(frozen=True, slots=True)
class Admission:
    """`refused` hears which kind of limit refused."""

    limiter: Limiter
    refused: Callable[[Kind], None]

    async def admit(
        self,
        plan: Plan,
        own: TenantLimits,
        decision: Decision,
        tally: Tally,
        place: Place | None = None,
        again: Callable[[], Awaitable[Bounds | None]] | None = None,
    ) -> Ticket:
        """What the request holds until it has ended; the headers of its answer say how its limits stand. `own` are the
        tenant's limits and its tokens'. Bulk waits for its turn, and where that took long its bounds are asked for
        `again`. Raises ApiError 429 that names the limit and when to come again, and what `Place.wait` does."""
        tokens = _tokens(decision)
        asks = _asks(plan, own, tally, tokens)
        if place is None or not place.bulk:
            return self._ticket(await self.limiter.admit(asks), plan, own, tally)

        async def anew() -> tuple[Ask, ...]:
            nonlocal plan, own
            plan, own = (await again() if again is not None else None) or (plan, own)
            return _asks(plan, own, tally, tokens)

        return self._ticket(await place.wait(asks, tally, anew), plan, own, tally, bulk=True)

    async def admit_uncalled(self, plan: Plan, own: TenantLimits, tally: Tally) -> None:
        """The same for a request that no model is called for: it counts as a request, and holds nothing."""
        asks = _asks(plan, own, tally, 0)
        verdict = await self.limiter.admit(tuple(each for each in asks if each.kind is Kind.REQUESTS))
        self._ticket(verdict, plan, own, tally)

    def _ticket(self, verdict: Verdict, plan: Plan, own: TenantLimits, tally: Tally, *, bulk: bool = False) -> Ticket:
        if verdict.refused is not None:
            kind = verdict.refused.ask.kind
            self.refused(kind)
            problem = _problem(plan, own, verdict, verdict.refused)
            raise ApiError(told_of_bulk(problem, kind, tally) if bulk else problem)
        tally.headers |= limit_headers(verdict)
        assert verdict.ticket is not None  # noqa: S101 - nothing refused
        return verdict.ticket


def _asks(plan: Plan, own: TenantLimits, tally: Tally, tokens: int) -> tuple[Ask, ...]:
    """Under the plan's limits, or the tenant's in their place, and those of the token beside them; all that one request
    asks is asked at once."""
    tenant, token = tally.tenant_id, tally.token_id or ""
    asks = _of("tenant", tenant, tenant, {**of_plan(plan), **own.of_tenant}, tokens)
    return asks + _of("token", token, tenant, own.of_token(token), tokens)


def _of(scope: str, identity: str, tenant: str, amounts: Mapping[Limited, int], tokens: int) -> tuple[Ask, ...]:
    asks = []
    for limited, amount in amounts.items():
        match limited:
            case Limited.REQUESTS:
                asks.append(requests_a_minute(scope, identity, tenant, amount))
            case Limited.TOKENS:
                asks.append(tokens_a_minute(scope, identity, tenant, amount, tokens))
            case Limited.CONCURRENCY:
                asks.append(at_once(scope, identity, tenant, amount))
    return tuple(asks)


def _tokens(decision: Decision) -> int:
    """What the first candidate is expected to read and write."""
    basis = decision.ranked[0].basis
    return basis.input_tokens + basis.output_tokens


def _whose(ask: Ask, own: TenantLimits) -> Whose:
    if scope_of(ask) == Whose.TOKEN:
        return Whose.TOKEN
    return Whose.TENANT if _LIMITED[ask.kind] in own.of_tenant else Whose.PLAN


def _part(limit: int, parts: int) -> int:
    """What one process admits at once, as it is told; one at least, where any is."""
    return min(limit, max(1, limit // parts))


def _problem(plan: Plan, own: TenantLimits, verdict: Verdict, refused: Standing) -> Problem:
    limit, kind, whose = refused.ask.limit, refused.ask.kind, _whose(refused.ask, own)
    said = f"{_WHO_ALLOWS[whose].format(plan.name)} {limit:,} {_UNITS[kind]}"
    if verdict.degraded:
        said += ", of which each process admits its part just now, since Redis does not answer"
    elif verdict.parts > 1:
        said += f", of which each of {verdict.parts} processes admits its part ({_part(limit, verdict.parts):,})"
    headers = limit_headers(verdict)
    about = {"kind": kind.value, "whose": whose.value, "plan": plan.name}
    extra = {"limit": about | {"amount": limit, "remaining": refused.remaining}}
    if verdict.retry_ms is None:
        text = f"{said}, and this request alone may need {refused.ask.amount:,}: make it shorter or lower max_tokens."
        return Problem(429, "rate_limit_exceeded", text, Fault.PLAN, headers=headers, extra=extra)
    wait_s = verdict.retry_ms / 1000
    text = f"{said}. Send it again in {duration(verdict.retry_ms)}."
    return Problem(
        429,
        "rate_limit_exceeded",
        text,
        Fault.PLAN,
        retry_after_s=wait_s,
        caller_may_retry=True,
        headers=headers,
        extra=extra,
    )
