"""Root keys over HTTP: their status, and whether everything opens.

Adding, activating, rewrapping and retiring are steps of an operator at the machine: they need the ring's file, or take
long. They are `wardgate sealing` alone.
"""

from typing import Annotated

from fastapi import Query

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.reports import RootKeyOut, SealingVerdict
from gateway.control.gate import Operation
from keystore.sealing_check import Tally
from keystore.sealing_ops import RootKeyStatus


def _root_key(one: RootKeyStatus) -> RootKeyOut:
    return RootKeyOut(
        kek_id=one.kek_id,
        state=one.state.value,
        present=one.present,
        created_at=one.created_at,
        tenant_keys=one.tenant_keys,
        service_keys=one.service_keys,
        replicas_lacking=list(one.lacking),
    )


async def status(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[RootKeyOut]:
    """Each root key: its state, whether it is here, how much it wraps. Never key material."""

    async def work(at: Operation) -> list[RootKeyStatus]:
        return await at.keystore.sealing.status()

    return cut(await call.run(work), query, _root_key, lambda one: (one.created_at.isoformat(), one.kek_id))


async def verify(call: OfCall) -> SealingVerdict:
    """Open every tenant key and every envelope. Takes a minute for some hundred thousand keys; a clean run is noted."""

    async def work(at: Operation) -> Tally:
        return await at.keystore.sealing.verify()

    tally = await call.run(work, describe=lambda one: {"processed": one.processed, "failed": one.failed})
    return SealingVerdict(
        processed=tally.processed,
        succeeded=tally.succeeded,
        skipped=tally.skipped,
        failed=tally.failed,
        faults=tally.faults,
    )
