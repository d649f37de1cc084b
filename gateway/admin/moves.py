"""Keys under old names, stored again under the canonical ones, and put back, over HTTP.

A GET says what would be done, a POST does it; the batch that it names is what `undo` takes.
"""

from typing import Annotated

from fastapi import Query

from gateway.admin.calls import Call, OfCall
from gateway.admin.names import known_provider, refuse_many
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.problems import ProviderUnknown
from gateway.admin.reports import BatchOut, MoveQuery, MovesOut, MoveStepOut, MoveWanted, UndoOut, UndoWanted
from gateway.control.gate import Operation
from keystore.move_journal import Batch
from keystore.move_undo import UndoStep
from keystore.moves import MoveReport, Step, UndoReport


async def plan_moves(call: OfCall, query: Annotated[MoveQuery, Query()]) -> MovesOut:
    """What `canonicalise` would do for one tenant, or all. Changes nothing."""

    async def work(at: Operation) -> MoveReport:
        await _check(call, at, query)
        return MoveReport(None, tuple(await at.keystore.moves.plan(at.found, query.provider)))

    return _moves(await call.run(work, tenant=query.tenant, target=known_provider(call, query.provider)))


async def canonicalise(call: OfCall, wanted: MoveWanted) -> MovesOut:
    """Store every key that is found under an old name again under the canonical one. What answers stays the same."""

    async def work(at: Operation) -> MoveReport:
        await _check(call, at, wanted)
        return await at.keystore.moves.canonicalise(at.found, wanted.provider)

    target = known_provider(call, wanted.provider)
    return _moves(await call.run(work, tenant=wanted.tenant, target=target, describe=_told))


async def list_batches(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[BatchOut]:
    """The runs of `canonicalise` that changed something."""

    async def work(at: Operation) -> list[Batch]:
        return await at.keystore.moves.batches()

    return cut(await call.run(work), query, _batch, lambda one: (one.moved_at.isoformat(), one.batch))


async def undo(call: OfCall, wanted: UndoWanted) -> UndoOut:
    """Put back what a batch moved, where it was not changed since. Can be done again."""

    async def work(at: Operation) -> UndoReport:
        return await at.keystore.moves.undo(wanted.batch)

    done = await call.run(work, target=wanted.batch, describe=lambda found: found.counts)
    return UndoOut(batch=done.batch, counts=done.counts, steps=list(map(_step, done.steps)))


async def _check(call: Call, at: Operation, asked: MoveQuery | MoveWanted) -> None:
    if asked.provider and not known_provider(call, asked.provider):
        raise ProviderUnknown
    if asked.tenant is None:
        await refuse_many(at.keystore)


def _told(report: MoveReport) -> dict[str, object]:
    return {"batch": report.batch, **report.counts}


def _moves(report: MoveReport) -> MovesOut:
    return MovesOut(batch=report.batch, counts=report.counts, steps=list(map(_step, report.steps)))


def _step(step: Step | UndoStep) -> MoveStepOut:
    return MoveStepOut.model_validate({name: getattr(step, name) for name in MoveStepOut.model_fields})


def _batch(one: Batch) -> BatchOut:
    return BatchOut.model_validate({name: getattr(one, name) for name in BatchOut.model_fields if name != "object"})
