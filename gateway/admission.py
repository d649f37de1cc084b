"""Lets a request of a tenant in, under the limits of its plan: requests and tokens a minute, and requests at once.

Owns which limits a request is under and how a refusal is worded. Must not know how anything is counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gateway.bulk import Place, told_of_bulk
from gateway.errors import ApiError, Problem
from gateway.limiting.asks import Ask, Kind, Standing, Ticket, Verdict, at_once, requests_a_minute, tokens_a_minute
from gateway.limiting.headers import duration, limit_headers
from gateway.limiting.limiter import Limiter
from gateway.tally import Tally
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


@dataclass(frozen=True, slots=True)
class Admission:
    """`refused` hears which kind of limit refused."""

    limiter: Limiter
    refused: Callable[[Kind], None]

    async def admit(self, plan: Plan, decision: Decision, tally: Tally, place: Place | None = None) -> Ticket:
        """What the request holds until it has ended; the headers of its answer say how its limits stand. Bulk waits for
        its turn. Raises ApiError 429 that names the limit and when to come again, and what `Place.wait` does."""
        asks = _asks(plan, decision, tally)
        bulk = place is not None and place.bulk
        verdict = await (place.wait(asks, tally) if place is not None and bulk else self.limiter.admit(asks))
        if verdict.refused is not None:
            kind = verdict.refused.ask.kind
            self.refused(kind)
            problem = _problem(plan, verdict, verdict.refused)
            raise ApiError(told_of_bulk(problem, kind, tally) if bulk else problem)
        tally.headers |= limit_headers(verdict)
        assert verdict.ticket is not None  # noqa: S101 - nothing refused
        return verdict.ticket


def _asks(plan: Plan, decision: Decision, tally: Tally) -> tuple[Ask, ...]:
    tenant = tally.tenant_id
    return (
        requests_a_minute("tenant", tenant, tenant, plan.requests_per_minute),
        tokens_a_minute("tenant", tenant, tenant, plan.tokens_per_minute, _tokens(decision)),
        at_once("tenant", tenant, tenant, plan.concurrency),
    )


def _tokens(decision: Decision) -> int:
    """What the first candidate is expected to read and write."""
    basis = decision.ranked[0].basis
    return basis.input_tokens + basis.output_tokens


def _problem(plan: Plan, verdict: Verdict, refused: Standing) -> Problem:
    limit, kind = refused.ask.limit, refused.ask.kind
    said = f'The plan "{plan.name}" allows {limit:,} {_UNITS[kind]}'
    headers = limit_headers(verdict)
    extra = {"limit": {"kind": kind.value, "plan": plan.name, "amount": limit, "remaining": refused.remaining}}
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
