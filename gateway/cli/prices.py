"""`wardgate price`: where prices come from, what would change, and what goes live."""

import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.control.gate import Operation
from gateway.pricing import decisions, views
from gateway.pricing.refreshing import Outcome, Refresh, RefreshReport, described
from keystore.price_releases import Period, Release
from router.prices import usd

app = typer.Typer(help="Price releases.", no_args_is_help=True)
FINDINGS = 3  # exit code: something waits for a person, or was not used
SHOWN = 20  # rows of each table for people; --json has all

Named = Annotated[str, typer.Argument(metavar="RELEASE", help="A release's number, as `price list` shows it.")]


def who(at: Operation) -> str:
    """Who decides, as it is written down with the release."""
    return f"{at.actor.kind} {at.actor.name}"


@app.command("status")
def status(as_json: AsJson = False) -> None:
    """Which prices are live and since when, who serves them, what waits, and where they come from."""

    async def work(at: Operation) -> dict[str, Any]:
        return await views.status_view(at.keystore, at.rules, datetime.now(UTC))

    found = operate("price.show", work, target="status")
    if as_json:
        print_json(found)
        return
    live = found["live"]
    since = f", since {live['since']:%Y-%m-%d %H:%M} by {live['by']}" if live["since"] else ""
    print(f"Live: {live['version']}{since}.")
    staged = found["staged"]
    if staged:
        print(f"Staged: release {staged['release']}; `wardgate price diff {staged['release']}` says what it changes.")
    if found["waiting_rows"]:
        numbers = sorted({row["release"] for row in found["waiting_rows"]})
        print(f"{_rows_wait(len(found['waiting_rows']))}: `wardgate price show {numbers[-1]}`.")
    hours = f"every {found['settings']['refresh_hours']:g} hours"
    print(f"Refresh by itself: {hours if found['settings']['refresh'] else 'off'}.\n")
    print_table(
        ("source", "fetched", "asked", "due", "last error"),
        [
            (one["name"], one["fetched_at"], one["asked_at"], one["due_at"], one["error"] or None)
            for one in found["sources"]
        ],
        empty="No list was asked for yet.",
    )
    print()
    print_table(
        ("process", "serves", "current"),
        [(one["name"], one["catalogue"] or None, "yes" if one["current"] else "no") for one in found["replicas"]],
        empty="No process serves.",
    )


@app.command("refresh")
def refresh(as_json: AsJson = False) -> None:
    """Ask for the lists of the table `prices` now, and stage what they change; what is within bounds goes live if the
    rule says so. Exit code 1 when no list could be used, 3 when one could not, or rows wait."""

    async def work(at: Operation) -> RefreshReport:
        return await Refresh(at.keystore, at.rules, who(at), True, datetime.now(UTC), random.random).run()

    report = operate("price.refresh", work, describe=described)
    if as_json:
        print_json(views.report_view(report))
    else:
        _print_report(report)
    _exit_after(report)


def _print_report(report: RefreshReport) -> None:
    print_table(
        ("source", "outcome", "why"),
        [(one.name, one.outcome, one.error or None) for one in report.sources],
        empty="There are no lists.",
    )
    number = report.release.number if report.release else 0
    sentences = {
        Outcome.UNCHANGED: f"Nothing changed: {report.note}.",
        Outcome.STAGED: f"Staged: release {number}. To look: wardgate price diff {number}",
        Outcome.LIVE: f"Live: release {number}, approved by the rule within-bounds.",
        Outcome.REFUSED: f"Refused: {report.note}. What was live stays live.",
        Outcome.FAILED: f"Failed: {report.note}. What was live stays live.",
    }
    if _none_usable(report):
        print("\nNo list could be used; what was staged before waits still.")
    print(f"\n{sentences[report.outcome]}")
    if report.release:
        _print_release(report.release)


def _none_usable(report: RefreshReport) -> bool:
    return bool(report.sources) and all(source.error for source in report.sources)


def _exit_after(report: RefreshReport) -> None:
    if report.outcome is Outcome.FAILED or _none_usable(report):
        raise typer.Exit(1)
    waiting = report.release is not None and bool(report.release.counts.get("waiting"))
    if report.outcome is Outcome.REFUSED or waiting or any(source.error for source in report.sources):
        raise typer.Exit(FINDINGS)


@app.command("list")
def list_releases(as_json: AsJson = False) -> None:
    """List the releases, the newest first."""

    async def work(at: Operation) -> list[Release]:
        return await at.keystore.prices.recent()

    found = operate("price.show", work, target="list")
    if as_json:
        print_json([views.release_view(one) for one in found])
        return
    print_table(
        ("release", "state", "models", "changes", "staged", "by", "decided by", "note"),
        [
            (
                *(one.number, one.state, one.rows, _counts(one.counts), one.staged_at),
                *(one.staged_by, one.decided_by, one.note or None),
            )
            for one in found
        ],
        empty="There is no price release: the map that came with LiteLLM is live.",
    )


@app.command("show")
def show(named: Named, as_json: AsJson = False) -> None:
    """Show a release and the rows that were quarantined."""

    async def work(at: Operation) -> dict[str, Any]:
        number = decisions.release_number(named)
        release, rows = await at.keystore.prices.get(number), await at.keystore.prices.waiting(number)
        return views.release_view(release) | {"rows": [views.row_view(row) for row in rows]}

    found = operate("price.show", work, target=named[:20])
    if as_json:
        print_json(found)
        return
    print(f"{found['version']}: {found['state']}, {found['models']} models, {_counts(found['counts'])}.")
    if found["note"]:
        print(found["note"])
    _print_impact(found["impact"])
    print()
    rows = found["rows"]
    print_table(
        ("row", "why it waits", "what happened", "decision"),
        [(row["name"], row["why"], row["detail"], row["decision"]) for row in rows[:SHOWN]],
        empty="No row was quarantined.",
    )
    _more(len(rows))


@app.command("diff")
def show_diff(named: Named, as_json: AsJson = False) -> None:
    """What a release changes: models, prices, and for whom `auto` gives another model."""

    async def work(at: Operation) -> dict[str, Any]:
        release = await at.keystore.prices.get(decisions.release_number(named))
        against, found = await decisions.difference(at.keystore, release)
        return views.diff_view(against, release, found)

    found = operate("price.show", work, target=named[:20])
    if as_json:
        print_json(found)
        return
    print(f"Release {found['release']} against {found['compared_with']}: {_counts(found['counts'])}.\n")
    changed = found["changed"]
    print_table(
        ("model", "price", "before", "after", "factor"),
        [
            (one["name"], one["field"], _price(one["before"]), _price(one["after"]), one["factor"])
            for one in changed[:SHOWN]
        ],
        empty="No price changes.",
    )
    _more(len(changed))
    for word in ("added", "gone", "became_free", "lost_price"):
        if found[word]:
            names = ", ".join(found[word][:SHOWN])
            more = f", and {len(found[word]) - SHOWN} more" if len(found[word]) > SHOWN else ""
            print(f"{word.replace('_', ' ').capitalize()}: {names}{more}.")
    _print_impact(found["impact"])


@app.command("approve")
def approve(
    named: Named,
    row: Annotated[list[str] | None, typer.Option(help="Let this quarantined row in too; repeatable.")] = None,
    all_rows: Annotated[bool, typer.Option("--all-rows", help="Let in every row that may be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a staged release live on every process. With --row also rows that wait, of the live release too: that makes
    a new release of it."""
    rows = [decisions.ALL] if all_rows else row or []

    async def work(at: Operation) -> Release:
        number, now = decisions.release_number(named), datetime.now(UTC)
        return await decisions.approve(at.keystore, at.rules, number, who(at), rows=rows, now=now)

    def describe(done: Release) -> dict[str, object]:
        return {"release": done.number, "rows": len(rows), "digest": done.digest}

    _decided(operate("price.approve", work, target=named[:20], describe=describe), as_json=as_json)


@app.command("reject")
def reject(named: Named, as_json: AsJson = False) -> None:
    """Turn a staged release down. It is not staged again by itself."""

    async def work(at: Operation) -> Release:
        return await at.keystore.prices.reject(decisions.release_number(named), who(at))

    _decided(operate("price.reject", work, target=named[:20]), as_json=as_json)


@app.command("rollback")
def rollback(
    named: Annotated[
        str | None, typer.Argument(metavar="[RELEASE]", help="A release that was live, or `bundled`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go back to a release that was live, by default to the one before. Until a person approves a release again, the
    rule approves none."""

    async def work(at: Operation) -> tuple[Release | None, decisions.Target]:
        return await decisions.roll_back(at.keystore, named, who(at))

    def describe(done: tuple[Release | None, decisions.Target]) -> dict[str, object]:
        return {"left": done[0].number if done[0] else None, "live": done[1].version}

    left, target = operate("price.roll_back", work, target=(named or "")[:20], describe=describe)
    if as_json:
        print_json({"left": left.number if left else None, "release": target.number, "version": target.version})
    else:
        print(f"Live: {target.version}." + (f" Release {left.number} is rolled back." if left else ""))


@app.command("as-of")
def as_of(
    at: Annotated[str, typer.Argument(metavar="TIME", help="ISO 8601 with a zone, e.g. 2026-11-20T12:00:00Z.")],
    as_json: AsJson = False,
) -> None:
    """Which prices were live at a time, as for a receipt."""
    moment = _moment(at)

    async def work(here: Operation) -> Period | None:
        return await here.keystore.prices.as_of(moment)

    found = views.period_view(operate("price.show", work, target="as-of"))
    if as_json:
        print_json(found)
    elif found["since"]:
        print(f"{found['version']}, live since {found['since'].isoformat()} ({found['cause']} by {found['by']}).")
    else:
        print("The map that came with LiteLLM: no release had been live by then.")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("this is no time; write e.g. 2026-11-20T12:00:00Z") from None
    if moment.tzinfo is None:
        raise typer.BadParameter("a time needs a zone: add Z, or e.g. +01:00")
    return moment


def _decided(release: Release, *, as_json: bool) -> None:
    if as_json:
        print_json(views.release_view(release))
    else:
        print(f"Release {release.number} is {release.state}.")


def _print_release(release: Release) -> None:
    print(f"{release.rows} models; {_counts(release.counts)}.")
    _print_impact(release.impact)
    waiting = release.counts.get("waiting", 0)
    if waiting:
        print(f"{_rows_wait(waiting)}: wardgate price show {release.number}")


def _print_impact(impact: list[dict[str, Any]]) -> None:
    for one in impact[:SHOWN]:
        print(f"{one['sentence'][:1].upper()}{one['sentence'][1:]}.")
    _more(len(impact))


def _counts(counts: dict[str, Any]) -> str:
    """3 added, 1 gone, 12 repriced"""
    words = ("added", "gone", "repriced", "became_free", "lost_price", "other", "waiting")
    told = [f"{counts[word]} {word.replace('_', ' ')}" for word in words if counts.get(word)]
    return ", ".join(told) or "no change"


def _rows_wait(count: int) -> str:
    return "1 row waits" if count == 1 else f"{count} rows wait"


def _price(amount: Decimal | None) -> str | None:
    return None if amount is None else usd(amount)


def _more(total: int) -> None:
    if total > SHOWN:
        print(f"... and {total - SHOWN} more; --json has them all")
