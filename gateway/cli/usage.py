"""`wardgate usage`: what was used and what it cost, as a table and a chart, JSON, or CSV."""

import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final

import typer

from gateway.cli.bars import Bar, bar_lines
from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.receipts import show_receipt
from gateway.cli.repricing import show_repriced
from gateway.config import ConfigError
from gateway.control.gate import Operation
from gateway.usage_report import (
    UsageRefused,
    Wanted,
    as_csv,
    check_provider,
    document,
    dollars,
    numbers,
    read_wanted,
)
from keystore.errors import counted
from keystore.ledger_usage import Sums
from keystore.providers import Provider
from keystore.usage import Group, UsagePage, UsageQuestion, UsageRow

MOST: Final = 100_000  # rows
MOST_BARS: Final = 20  # of a chart that is not of days or months
MOST_DAYS: Final = 366  # of a chart that also shows days on which nothing was used
_TIMES: Final = (Group.DAY, Group.MONTH)
_ALWAYS: Final = ("requests", "prompt_tokens", "completion_tokens", "total_tokens", "cost_usd")
_BY: Final = "With commas between: " + ", ".join(Group)


app = typer.Typer(invoke_without_command=True)
app.command("receipt")(show_receipt)
app.command("reprice")(show_repriced)


@app.callback()
def usage(
    ctx: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Of one tenant, by slug; all when left out.")] = None,
    since: Annotated[str | None, typer.Option(help="The first day, UTC; the first of this month if left out.")] = None,
    until: Annotated[str | None, typer.Option(help="The day behind the last.")] = None,
    day: Annotated[str | None, typer.Option(help="One day, e.g. 2026-11-21, in the place of both.")] = None,
    month: Annotated[str | None, typer.Option(help="One month, e.g. 2026-11, in the place of both.")] = None,
    by: Annotated[str, typer.Option(help=_BY)] = "day",
    model: Annotated[str | None, typer.Option(help="Of one model, as its provider calls it.")] = None,
    provider: Annotated[str | None, typer.Option(help="Of one provider.")] = None,
    token: Annotated[str | None, typer.Option(help="Of one token, by id.")] = None,
    outcome: Annotated[str | None, typer.Option(help="ok, refused, failed, cut, client_left or error.")] = None,
    key_source: Annotated[str | None, typer.Option(help="byok or managed.")] = None,
    limit: Annotated[int, typer.Option(help=f"Rows, at most {MOST}.", min=1, max=MOST)] = 1_000,
    as_json: AsJson = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False,
) -> None:
    """Show what was used, and what it cost: a table and a chart, JSON, or CSV. Days and months are UTC."""
    if ctx.invoked_subcommand is not None:
        if any(_was_given(ctx, name) for name in ctx.params):
            raise typer.BadParameter(f"options of `usage` mean nothing before `{ctx.invoked_subcommand}`")
        return
    if as_json and csv:
        raise typer.BadParameter("--json and --csv are two forms; ask for one")
    named = {"since": since, "until": until, "day": day, "month": month, "by": by, "model": model}
    named |= {"provider": provider, "token": token, "outcome": outcome, "key_source": key_source}
    given = {name: value for name, value in named.items() if value is not None}
    wanted, page = _asked(given | {"limit": str(limit)}, tenant)
    if as_json:
        print_json(document(wanted.question, page))
    elif csv:
        print(as_csv(wanted.question, page), end="")
    else:
        _print(wanted.question, page, tenant)
    if page.has_more:
        typer.echo(f"These are the first {limit} rows of more; --limit shows up to {MOST}.", err=True)


def _was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _asked(given: dict[str, str], tenant: str | None) -> tuple[Wanted, UsagePage]:
    async def work(at: Operation) -> tuple[UsagePage, tuple[Provider, ...]]:
        tenant_id = at.tenant.id if tenant is not None else None
        return await at.keystore.usage.page(wanted.question, tenant_id=tenant_id), at.rules.registry.providers

    try:
        wanted = read_wanted(given, datetime.now(UTC).date(), groups=tuple(Group), most=MOST)
        page, providers = operate("usage.show", work, tenant=tenant)
        check_provider(wanted.question, page, providers)
    except UsageRefused as refused:
        raise ConfigError(f"--{refused.field.replace('_', '-')}: {refused.rule}") from None
    return wanted, page


# --- for people ------------------------------------------------------------------------------------------------------


def _print(question: UsageQuestion, page: UsagePage, tenant: str | None) -> None:
    whose = f" of {tenant}" if tenant is not None else ""
    time = f"from {question.since} until {question.until}"
    if not page.rows:
        print(f"There is no usage{whose} {time}. Another time: --since 2026-01-01; what is told apart: --by day,model")
        return
    print(f"Usage{whose} {time}, UTC; the last day is not in it.\n")
    first, *others = _table(question, page)
    print_table(first, others, empty="", right=len(question.by))
    _print_chart(question, page)
    _print_doubts(page.total)


def _table(question: UsageQuestion, page: UsagePage) -> list[list[str]]:
    """Names of the columns, the rows, and the total. What is zero everywhere has no column; dollars have so many places
    that all of them are exact."""
    columns = [name for name, value in numbers(page.total).items() if name in _ALWAYS or value != 0]
    names = [name.removesuffix("_requests").removesuffix("_tokens").replace("_", " ") for name in columns]
    total = UsageRow(("total", *("" for _ in question.by[1:])), page.total)
    places = _places(row.sums for row in (*page.rows, total))

    def figures(sums: Sums) -> list[str]:
        told = numbers(sums)
        return [_figure(told[name], places) for name in columns]

    rows = [[*map(_shown, row.keys), *figures(row.sums)] for row in page.rows]
    return [[*question.by, *names], *rows, [*total.keys, *figures(total.sums)]]


def _places(sums: Iterable[Sums]) -> int:
    return max([2, *(len(dollars(each.cost_nano).partition(".")[2]) for each in sums)])


def _figure(value: int | str | None, places: int) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{Decimal(value):,.{places}f}"


def _shown(key: str) -> str:
    """A key for a terminal, to which a name of a caller's must not be a command."""
    return "".join(each if each.isprintable() else "?" for each in key) or "-"


def _print_doubts(total: Sums) -> None:
    if total.unpriced:
        print(f"\nThe cost of {counted(total.unpriced, 'request')} is not known, and is not in the sums.")
    if total.estimated:
        print(f"\nTokens of {counted(total.estimated, 'request')} were estimated: nobody counted all of them.")


# --- the chart -------------------------------------------------------------------------------------------------------


def _print_chart(question: UsageQuestion, page: UsagePage) -> None:
    time = next((group for group in question.by if group in _TIMES), None)
    groups = _by_time(question, page, time) if time else [(" ".join(map(_shown, r.keys)), r.sums) for r in page.rows]
    costs = any(sums.cost_nano for _, sums in groups)
    what = "Dollars" if costs else "Requests"
    field, places = "cost_usd" if costs else "requests", _places(sums for _, sums in groups)
    bars = [
        Bar(name, sums.cost_nano if costs else sums.requests, _figure(numbers(sums)[field], places))
        for name, sums in groups
    ]
    if time is None:
        bars = sorted(bars, key=lambda bar: -bar.size)
    shown = bars if time else bars[:MOST_BARS]
    cut = f", the {MOST_BARS} largest of {len(bars)}" if len(shown) < len(bars) else ""
    print(f"\n{what} per {time or ' and '.join(question.by)}{cut}")
    for line in bar_lines(shown, shutil.get_terminal_size().columns):
        print(line)


def _by_time(question: UsageQuestion, page: UsagePage, time: Group) -> list[tuple[str, Sums]]:
    """The sums of each day or month, those between that have none too."""
    place = question.by.index(time)
    found: dict[str, Sums] = {}
    for row in page.rows:
        found[row.keys[place]] = found.get(row.keys[place], Sums()).plus(row.sums)
    return [(name, found.get(name, Sums())) for name in _all_times(sorted(found), time)]


def _all_times(names: Sequence[str], time: Group) -> list[str]:
    """From the first to the last, unless these are too many."""
    if time is Group.MONTH:
        first, last = (int(name[:4]) * 12 + int(name[5:]) - 1 for name in (names[0], names[-1]))
        every = [f"{month // 12}-{month % 12 + 1:02}" for month in range(first, last + 1)]
    else:
        begin, end = date.fromisoformat(names[0]), date.fromisoformat(names[-1])
        every = [str(begin + timedelta(days=number)) for number in range((end - begin).days + 1)]
    return every if len(every) <= MOST_DAYS else list(names)
