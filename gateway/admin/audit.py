"""The audit over HTTP: who did what, and whether the record of it is whole."""

from typing import Annotated

from fastapi import Query

from gateway.admin.calls import OfCall
from gateway.admin.models import AuditQuery, AuditRowOut, AuditVerdict, HeadQuery
from gateway.admin.pages import Page, page_of, place_after
from gateway.control.gate import Operation
from keystore.audit import AuditRow, Verdict

_FACTS = tuple(name for name in AuditRowOut.model_fields if name != "object")


def row_out(row: AuditRow) -> AuditRowOut:
    return AuditRowOut.model_validate({name: getattr(row, name) for name in _FACTS})


async def list_rows(call: OfCall, query: Annotated[AuditQuery, Query()]) -> Page[AuditRowOut]:
    """What was done, newest first."""
    place = place_after(query, int)

    async def work(at: Operation) -> list[AuditRow]:
        return await at.keystore.audit.list(
            tenant_id=at.tenant.id if query.tenant else None,
            action=query.action,
            actor=query.actor,
            outcome=query.outcome,
            since=query.since,
            before=int(place[0]) if place else None,
            limit=query.limit + 1,
        )

    return page_of(await call.run(work, tenant=query.tenant), query, row_out, lambda row: (row.seq,))


async def verify(call: OfCall, query: Annotated[HeadQuery, Query()]) -> AuditVerdict:
    """Check that no row was changed, removed or added past Wardgate."""

    async def work(at: Operation) -> Verdict:
        return await at.keystore.audit.verify(query.expect)

    verdict = await call.run(work)
    return AuditVerdict(rows=verdict.rows, head=verdict.head, whole=verdict.whole, faults=list(verdict.faults))
