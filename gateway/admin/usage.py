"""Usage over HTTP, for the operator: of all tenants, or of one."""

import asyncio
from typing import Annotated, Final, Literal, cast

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from gateway.admin.calls import OfCall
from gateway.admin.problems import invalid
from gateway.admin.shapes import Sent, TenantName, Told
from gateway.control.gate import Operation
from gateway.errors import ApiError
from gateway.repricing import Report, TooMany, as_csv, document, report
from gateway.usage_report import LONGEST, MOST, USUAL, UsageRefused, check_provider, read_wanted, rendered
from keystore.usage import Group, UsagePage

MOST_REPRICED: Final = 200_000  # requests of one answer: some seconds
_WORDS = ", ".join(Group)
Value = Annotated[str | None, Field(max_length=LONGEST)]


class UsageQuery(Sent):
    """A time, what to tell apart, and filters. This month by day, when nothing is said."""

    since: Annotated[Value, Field(description="The first day, UTC, as 2026-11-01.")] = None
    until: Annotated[Value, Field(description="The day behind the last.")] = None
    day: Annotated[Value, Field(description="One day, in the place of both.")] = None
    month: Annotated[Value, Field(description="One month, as 2026-11, in the place of both.")] = None
    by: Annotated[Value, Field(description=f"With commas between: {_WORDS}.")] = None
    tenant: TenantName | None = None
    model: Value = None
    provider: Value = None
    token: Annotated[Value, Field(description="A token's id.")] = None
    outcome: Value = None
    key_source: Value = None
    format: Annotated[Value, Field(description="json or csv.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST, description="At most so many rows.")] = USUAL
    cursor: Annotated[Value, Field(description="`next_cursor` of the page before.")] = None


class UsageNumbers(Told):
    """Sums. `cost_usd` is exact; null where nobody knows the cost of any of the requests."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cost_usd: str | None
    unpriced_requests: int
    estimated_requests: int


class UsageRowOut(UsageNumbers):
    """The sums of what has these values; only those that `by` names are there."""

    day: str | None = None
    month: str | None = None
    tenant: str | None = None
    model: str | None = None
    provider: str | None = None
    token: str | None = None
    outcome: str | None = None
    key_source: str | None = None


class UsageOut(Told):
    """What was used from `since` until the day before `until`; `total` is that of all pages."""

    object: Literal["usage"] = "usage"
    since: str
    until: str
    currency: Literal["USD"] = "USD"
    by: list[str]
    total: UsageNumbers
    rows: list[UsageRowOut]
    has_more: bool
    next_cursor: str | None


class RepriceQuery(Sent):
    """A price release by its number, or `bundled`, and a time: this month, when nothing is said."""

    release: Annotated[str, Field(max_length=100, description="A price release by its number, or `bundled`.")]
    since: Annotated[Value, Field(description="The first day, UTC, as 2026-11-01.")] = None
    until: Annotated[Value, Field(description="The day behind the last.")] = None
    day: Annotated[Value, Field(description="One day, in the place of both.")] = None
    month: Annotated[Value, Field(description="One month, as 2026-11, in the place of both.")] = None
    tenant: TenantName | None = None
    format: Annotated[Value, Field(description="json or csv.")] = None


class RepricedNumbers(Told):
    """`cost_usd`, `other_cost_usd` and their difference are of the requests whose cost is known both ways; what is
    known one way alone stands beside."""

    requests: int
    compared_requests: int
    cost_usd: str
    other_cost_usd: str
    difference_usd: str
    only_then_requests: int
    only_then_cost_usd: str
    only_other_requests: int
    only_other_cost_usd: str
    unpriced_requests: int


class RepricedRow(RepricedNumbers):
    """Of one model."""

    provider: str | None
    model: str | None


class RepricedOut(Told):
    """What was used, at the prices of `release`."""

    object: Literal["usage.reprice"] = "usage.reprice"
    since: str
    until: str
    currency: Literal["USD"] = "USD"
    release: str
    total: RepricedNumbers
    rows: list[RepricedRow]


async def show_repriced(call: OfCall, query: Annotated[RepriceQuery, Query()]) -> RepricedOut:
    """What the requests of a time would have cost under another price release, by model. A report: nothing is
    changed. `format=csv` answers `text/csv`; a time with very many requests is for the command line."""
    given = {name: str(value) for name, value in query.model_dump(exclude_none=True).items()}
    given = {name: value for name, value in given.items() if name not in ("release", "tenant")}
    try:
        wanted = read_wanted(given, call.services.now().date())
    except UsageRefused as refused:
        raise ApiError(invalid([{"field": refused.field, "rule": refused.rule}])) from None
    since, until = wanted.question.since, wanted.question.until

    async def work(at: Operation) -> Report:
        whose = at.tenant.id if query.tenant is not None else None
        return await report(at.keystore, at.rules, query.release, since, until, tenant_id=whose, most=MOST_REPRICED)

    try:
        found = await call.run(work, tenant=query.tenant, target=query.release[:20])
    except TooMany:
        rule = f"it holds more than {MOST_REPRICED} requests; ask for a shorter time, or use `wardgate usage reprice`"
        raise ApiError(invalid([{"field": "since", "rule": rule}])) from None
    if not wanted.as_csv:
        return RepricedOut.model_validate(document(found))
    headers = {"content-type": "text/csv; charset=utf-8; header=present", "cache-control": "no-store"}
    return cast(RepricedOut, Response(as_csv(found), headers=headers))


async def show_usage(call: OfCall, query: Annotated[UsageQuery, Query()]) -> UsageOut:
    """The sums of requests, tokens and dollars, of all tenants or of one. `format=csv` answers `text/csv`."""
    given = {name: str(value) for name, value in query.model_dump(exclude_none=True, exclude={"tenant"}).items()}
    services = call.services

    async def work(at: Operation) -> UsagePage:
        tenant_id = at.tenant.id if query.tenant is not None else None
        return await at.keystore.usage.page(wanted.question, tenant_id=tenant_id)

    try:
        wanted = read_wanted(given, services.now().date(), groups=tuple(Group))
        page = await call.run(work, tenant=query.tenant)
        check_provider(wanted.question, page, services.books.current.registry.providers)
    except UsageRefused as refused:
        raise ApiError(invalid([{"field": refused.field, "rule": refused.rule}])) from None
    answer = await asyncio.to_thread(rendered, wanted, page)
    return cast(UsageOut, Response(answer.body, headers=dict(answer.headers)))  # FastAPI hands it on as it is
