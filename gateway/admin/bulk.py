"""Whose bulk requests are paused, over HTTP, for the operator."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.parts import Tenant
from gateway.admin.shapes import Told
from gateway.control.gate import Operation
from keystore.bulk_pauses import Pause


class PauseOut(Told):
    """Bulk requests of this tenant wait, in every process."""

    object: Literal["bulk_pause"] = "bulk_pause"
    tenant: str
    paused: Literal[True] = True
    since: datetime


class Resumed(Told):
    """Bulk requests of this tenant go on. `was_paused` is false where nothing changed."""

    object: Literal["bulk_pause"] = "bulk_pause"
    tenant: str
    paused: Literal[False] = False
    was_paused: bool


def _out(pause: Pause) -> PauseOut:
    return PauseOut(tenant=pause.tenant, since=pause.since)


async def list_paused(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[PauseOut]:
    """Whose bulk is paused, by slug."""

    async def work(at: Operation) -> list[Pause]:
        return await at.keystore.bulk_pauses.list()

    return cut(await call.run(work), query, _out, lambda one: (one.tenant,))


async def pause(call: OfCall, tenant: Tenant) -> PauseOut:
    """Heard by every process within seconds; what runs goes on. One that is paused already stays so."""

    async def work(at: Operation) -> Pause:
        return await at.keystore.bulk_pauses.pause(at.tenant)

    return _out(await call.run(work, tenant=tenant))


async def resume(call: OfCall, tenant: Tenant) -> Resumed:
    """What waits goes on within seconds."""

    async def work(at: Operation) -> Resumed:
        return Resumed(tenant=at.tenant.slug, was_paused=await at.keystore.bulk_pauses.resume(at.tenant))

    return await call.run(work, tenant=tenant, describe=lambda one: {"was_paused": one.was_paused})
