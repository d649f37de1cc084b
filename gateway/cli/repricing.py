"""`wardgate usage reprice`: what a time would have cost under another price release."""

from datetime import UTC, date, datetime
from typing import Annotated, Final

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.config import ConfigError
from gateway.control.gate import Operation
from gateway.repricing import Report, Repriced, as_csv, document, numbers, ordered, report
from gateway.usage_report import UsageRefused, read_wanted
from keystore.errors import counted

_EVERY: Final = 100_000  # requests after which it is told how far it is
_SHOWN: Final = ("requests", "compared_requests", "cost_usd", "other_cost_usd", "difference_usd")


def show_repriced(
    release: Annotated[str, typer.Option(help="A price release by its number, or `bundled`.")],
    tenant: Annotated[str | None, typer.Option(help="Of one tenant, by slug; all when left out.")] = None,
    since: Annotated[str | None, typer.Option("--since", "--from", help="The first day, UTC.")] = None,
    until: Annotated[str | None, typer.Option("--until", "--to", help="The day behind the last.")] = None,
    day: Annotated[str | None, typer.Option(help="One day, e.g. 2026-11-21, in the place of both.")] = None,
    month: Annotated[str | None, typer.Option(help="One month, e.g. 2026-11, in the place of both.")] = None,
    as_json: AsJson = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False,
) -> None:
    """Show what the requests of a time would have cost under another price release, by model. A report: nothing is
    changed. This month when no time is given."""
    if as_json and csv:
        raise typer.BadParameter("--json and --csv are two forms; ask for one")
    first, behind = _time({"since": since, "until": until, "day": day, "month": month})

    async def work(at: Operation) -> Report:
        whose = at.tenant.id if tenant is not None else None
        return await report(at.keystore, at.rules, release, first, behind, tenant_id=whose, told=_tell)

    found = operate("usage.reprice", work, tenant=tenant, target=release[:20])
    if as_json:
        print_json(document(found))
    elif csv:
        print(as_csv(found), end="")
    else:
        _print(found)


def _time(said: dict[str, str | None]) -> tuple[date, date]:
    given = {name: value for name, value in said.items() if value is not None}
    try:
        question = read_wanted(given, datetime.now(UTC).date()).question
    except UsageRefused as refused:
        raise ConfigError(f"--{refused.field}: {refused.rule}") from None
    return question.since, question.until


def _tell(count: int) -> None:
    if count % _EVERY == 0:
        typer.echo(f"{count:,} requests", err=True)


def _print(found: Report) -> None:
    time = f"from {found.since} until {found.until}"
    if not found.rows:
        print(f"Nothing was used {time}.")
        return
    print(f"What was used {time}, UTC, at the prices of {found.release}; the last day is not in it.\n")
    rows = [(f"{provider}/{model}" if provider else "-", one) for (provider, model), one in ordered(found)]
    print_table(
        ("model", "requests", "compared", "USD then", "USD other", "difference"),
        [(name, *(numbers(one)[field] for field in _SHOWN)) for name, one in [*rows, ("total", found.total)]],
        empty="",
    )
    _print_rest(found.total)


def _print_rest(total: Repriced) -> None:
    """What cannot be compared, and is in neither column."""
    told = numbers(total)
    if total.only_then:
        cost = told["only_then_cost_usd"]
        why = "the release has no price for what they used, or nobody noted what that was"
        print(f"\n{counted(total.only_then, 'request')} that cost {cost} USD cannot be priced again: {why}.")
    if total.only_other:
        cost = told["only_other_cost_usd"]
        print(f"\n{counted(total.only_other, 'request')} whose cost nobody knew would cost {cost} USD.")
    if total.neither:
        print(f"\nThe cost of {counted(total.neither, 'request')} is not known either way.")
