"""Price releases over HTTP: what is live, what would change, and what goes live."""

import random
from typing import Annotated, Any

from fastapi import Path, Query

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.price_models import (
    MOST_ROWS,
    ApproveWanted,
    PriceDiffOut,
    PriceMomentQuery,
    PricePeriodOut,
    PriceReleaseOut,
    PriceRowOut,
    PriceStatusOut,
    RefreshOut,
    RefreshWanted,
    RollBackWanted,
    RolledBackOut,
)
from gateway.control.gate import Operation
from gateway.pricing import decisions, views
from gateway.pricing.refreshing import Refresh, RefreshReport, described
from keystore.price_releases import Period, Release, WaitingRow

Number = Annotated[str, Path(alias="release", pattern=r"^[0-9]{1,9}$", description="A release's number, e.g. 12.")]
_LISTS = ("added", "gone", "changed", "became_free", "lost_price", "other")


def _who(at: Operation) -> str:
    return f"{at.actor.kind} {at.actor.name}"


def _release(one: Release) -> PriceReleaseOut:
    return PriceReleaseOut.model_validate(views.release_view(one))


async def status(call: OfCall) -> PriceStatusOut:
    """Which prices are live and since when, who serves them, what waits, and where they come from."""

    async def work(at: Operation) -> dict[str, Any]:
        return await views.status_view(at.keystore, at.rules, call.services.now())

    found = await call.run(work, target="status")
    return PriceStatusOut.model_validate(found | {"waiting_rows": len(found["waiting_rows"])})


async def list_releases(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[PriceReleaseOut]:
    """The releases, in their order."""

    async def work(at: Operation) -> list[Release]:
        return await at.keystore.prices.recent()

    return cut(await call.run(work), query, _release, lambda one: (one.number,))


async def show_release(call: OfCall, number: Number) -> PriceReleaseOut:
    """One release, without its rows."""

    async def work(at: Operation) -> Release:
        return await at.keystore.prices.get(int(number))

    return _release(await call.run(work, target=number))


async def list_rows(call: OfCall, number: Number, query: Annotated[PageQuery, Query()]) -> Page[PriceRowOut]:
    """The rows of a release that were quarantined: they kept their live value, or stayed away."""

    async def work(at: Operation) -> list[WaitingRow]:
        await at.keystore.prices.get(int(number))
        return await at.keystore.prices.waiting(int(number))

    def show(row: WaitingRow) -> PriceRowOut:
        return PriceRowOut.model_validate(views.row_view(row))

    return cut(await call.run(work, target=number), query, show, lambda row: (row.name,))


async def show_diff(call: OfCall, number: Number) -> PriceDiffOut:
    """What a release changes: models, prices, and for whom `auto` gives another model."""

    async def work(at: Operation) -> dict[str, Any]:
        release = await at.keystore.prices.get(int(number))
        return views.diff_view(*await _compared(at, release))

    found = await call.run(work, target=number)
    found |= {name: found[name][:MOST_ROWS] for name in _LISTS}
    texts = [
        {name: one[name] if one[name] is None else format(one[name], "f") for name in ("before", "after", "factor")}
        for one in found["changed"]
    ]
    found["changed"] = [one | text for one, text in zip(found["changed"], texts, strict=True)]
    return PriceDiffOut.model_validate(found)


async def _compared(at: Operation, release: Release) -> tuple[str, Release, Any]:
    against, found = await decisions.difference(at.keystore, release)
    return against, release, found


async def approve(call: OfCall, number: Number, wanted: ApproveWanted) -> PriceReleaseOut:
    """Make a staged release live on every process. With `rows` also rows that wait, of the live release too: that makes
    a new release, which is answered."""

    async def work(at: Operation) -> Release:
        now = call.services.now()
        return await decisions.approve(at.keystore, at.rules, int(number), _who(at), rows=wanted.rows, now=now)

    def describe(done: Release) -> dict[str, object]:
        return {"release": done.number, "rows": len(wanted.rows), "digest": done.digest}

    return _release(await call.run(work, target=number, describe=describe))


async def reject(call: OfCall, number: Number) -> PriceReleaseOut:
    """Turn a staged release down. It is not staged again by itself."""

    async def work(at: Operation) -> Release:
        return await at.keystore.prices.reject(int(number), _who(at))

    return _release(await call.run(work, target=number))


async def roll_back(call: OfCall, wanted: RollBackWanted) -> RolledBackOut:
    """Go back to a release that was live. Until a person approves a release again, the rule approves none."""

    async def work(at: Operation) -> tuple[Release | None, decisions.Target]:
        return await decisions.roll_back(at.keystore, None if wanted.to == "previous" else wanted.to, _who(at))

    def describe(done: tuple[Release | None, decisions.Target]) -> dict[str, object]:
        return {"left": done[0].number if done[0] else None, "live": done[1].version}

    left, target = await call.run(work, target=wanted.to, describe=describe)
    return RolledBackOut(left=left.number if left else None, release=target.number, version=target.version)


async def refresh(call: OfCall, wanted: RefreshWanted) -> RefreshOut:
    """Ask for the lists of [prices] now, and stage what they change; what is within bounds goes live if the rule says
    so. Takes as long as the lists take to come."""

    async def work(at: Operation) -> RefreshReport:
        return await Refresh(at.keystore, at.rules, _who(at), True, call.services.now(), random.random).run()

    report = await call.run(work, target=wanted.sources, describe=described)
    return RefreshOut.model_validate(views.report_view(report))


async def as_of(call: OfCall, query: Annotated[PriceMomentQuery, Query()]) -> PricePeriodOut:
    """Which prices were live at a time, as for a receipt."""

    async def work(at: Operation) -> Period | None:
        return await at.keystore.prices.as_of(query.at)

    return PricePeriodOut.model_validate(views.period_view(await call.run(work, target="as-of")))
