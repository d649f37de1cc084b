"""A tenant's limits over HTTP, for the operator: its plan's, its own, and its tokens'."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, Place, cut
from gateway.admin.parts import LimitName, Tenant
from gateway.admin.shapes import TOKEN_ID, Sent, Told
from gateway.control.gate import Operation
from gateway.limit_telling import Whose, defined, target_of, told
from keystore.limits import MOST, Limit, Limited

_ORDER = tuple(Whose)
_KINDS = tuple(Limited)


class LimitQuery(Sent):
    """Whose limit it is."""

    token: Annotated[str, Field(pattern=TOKEN_ID, description="A token of the tenant's; without, of all.")] = ""


class LimitNew(Sent):
    """How much may be asked, a minute or at the same time."""

    amount: Annotated[int, Field(strict=True, ge=1, le=MOST)]


class LimitOut(Told):
    """A limit. A tenant's takes the place of its plan's; a token's stands beside them."""

    object: Literal["limit"] = "limit"
    whose: Literal["plan", "tenant", "token"]
    token: str | None
    limit: Literal["requests_per_minute", "tokens_per_minute", "concurrency"]
    amount: int


class LimitRemoved(LimitOut):
    """A limit that is no more."""

    removed: Literal[True] = True


def _place(row: LimitOut) -> Place:
    return (_ORDER.index(Whose(row.whose)), row.token or "", _KINDS.index(Limited(row.limit)))


async def list_limits(call: OfCall, tenant: Tenant, query: Annotated[PageQuery, Query()]) -> Page[LimitOut]:
    """The plan's limits that stand, then the tenant's, then its tokens'."""

    async def work(at: Operation) -> list[LimitOut]:
        rows = told(at.rules.plans.get(at.tenant.plan), await at.keystore.limits.list(at.tenant))
        return [LimitOut.model_validate(row) for row in rows]

    return cut(await call.run(work, tenant=tenant), query, lambda row: row, _place)


async def set_limit(
    call: OfCall, tenant: Tenant, limit: LimitName, query: Annotated[LimitQuery, Query()], body: LimitNew
) -> LimitOut:
    """Set a limit in place of the one there is; what was asked in the last minute counts."""

    async def work(at: Operation) -> Limit:
        found = await at.keystore.limits.set(at.tenant, {limit: body.amount}, token_id=query.token)
        return next(each for each in found if each.limited == limit)

    target = target_of([limit], query.token)
    made = await call.run(work, tenant=tenant, target=target, describe=lambda one: defined([one])[0])
    return LimitOut.model_validate(defined([made])[0])


async def remove_limit(
    call: OfCall, tenant: Tenant, limit: LimitName, query: Annotated[LimitQuery, Query()]
) -> LimitRemoved:
    """Remove a limit of the tenant's own, or of a token's; a tenant is under its plan's again."""

    async def work(at: Operation) -> Limit:
        return (await at.keystore.limits.remove(at.tenant, [limit], token_id=query.token))[0]

    target = target_of([limit], query.token)
    gone = await call.run(work, tenant=tenant, target=target, describe=lambda one: defined([one])[0])
    return LimitRemoved.model_validate(defined([gone])[0])
