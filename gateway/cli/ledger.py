"""`wardgate ledger`: whether usage is the sum of the ledger's rows, and the rows that it did not take."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from gateway.cli.begins import settings
from gateway.cli.budgets import tell_crossed
from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.ends import FINDINGS
from gateway.config import ConfigError
from gateway.control.gate import Operation
from gateway.usage_report import dollars
from keystore.errors import counted
from keystore.ledger_check import Difference, Reconciliation
from keystore.ledger_rejected import Rejected, Standing, rejected, replay

app = typer.Typer(help="The ledger: one row for each request.", no_args_is_help=True)


@app.command("check")
def check(
    day: Annotated[str | None, typer.Option(help="A day, UTC, e.g. 2026-11-21; today if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the usage of a day with the ledger's rows, and that of its month with its days. Exit code 3 when they
    differ."""
    which = _day(day)

    async def work(at: Operation) -> Reconciliation:
        return await at.keystore.ledger.reconcile(which)

    found = operate("ledger.check", work)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)
    if found.differences:
        raise typer.Exit(FINDINGS)


@app.command("rejected")
def show_rejected(
    replay_them: Annotated[
        bool, typer.Option("--replay", help="Try again those that the ledger does not have.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the rows that the database did not take (rejected.jsonl beside the journals), and whether the ledger has
    them by now. With --replay they are tried again, however often: a row that is there stays as it is. Exit code 3 when
    some are not in the ledger."""

    async def work(at: Operation) -> Sequence[Rejected]:
        folder = at.keystore.journal_folder(settings().journal)
        found = await rejected(folder, at.keystore.ledger)
        if not replay_them:
            return found
        at.keystore.budget_spent.tell = tell_crossed
        return await replay(found, at.keystore.ledger)

    found = operate("ledger.replay" if replay_them else "ledger.rejected", work)
    if as_json:
        print_json([_told(one) for one in found])
    else:
        print_table(
            ("set aside", "why", "request", "began", "USD", "now"),
            [_shown(one) for one in found],
            empty="No row was rejected.",
        )
    if any(one.standing is not Standing.WRITTEN for one in found):
        raise typer.Exit(FINDINGS)


def _told(one: Rejected) -> dict[str, object]:
    row = one.row
    return {
        "at": one.at,
        "journal": one.journal,
        "position": one.position,
        "why": one.why,
        "standing": one.standing,
        "error": one.error or None,
        "request_id": None if row is None else row.request_id,
        "began_at": None if row is None else row.began_at,
        "tenant_id": None if row is None else row.tenant_id,
        "cost_nano": None if row is None else row.cost_nano,
    }


def _shown(one: Rejected) -> tuple[object, ...]:
    now = f"{one.standing} ({one.error})" if one.error else one.standing.value
    if one.row is None:
        return one.at, one.why, "-", "-", "-", now
    cost = "unknown" if one.row.cost_nano is None else dollars(one.row.cost_nano)
    return one.at, one.why, one.row.request_id, one.row.began_at.isoformat(timespec="seconds"), cost, now


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError("--day: it must be a date such as 2026-11-21") from None


def _document(found: Reconciliation) -> dict[str, object]:
    return {
        "day": found.day,
        "rows_kept": found.rows_kept,
        "agrees": not found.differences,
        "differences": [
            one.key._asdict() | {"parts": one.parts._asdict(), "usage": one.usage._asdict()}
            for one in found.differences
        ],
    }


def _print(found: Reconciliation) -> None:
    if not found.rows_kept:
        print(f"Rows of {found.day} may have been removed, so its usage is compared with nothing.")
    if not found.differences:
        day = f"the usage of {found.day} is the sum of the ledger's rows, and " if found.rows_kept else ""
        said = f"{day}that of {found.day:%Y-%m} is the sum of its days, to the nano-dollar."
        print(said[:1].upper() + said[1:])
        return
    print(f"{counted(len(found.differences), 'sum')} of {found.day} or its month differ:\n")
    print_table(
        ("tenant", "of", "token", "model", "keys", "outcome", "what", "added up", "in usage"),
        [row for one in found.differences for row in _rows(one)],
        empty="",
    )


def _rows(one: Difference) -> Iterator[list[object]]:
    """One for each number that differs."""
    key = one.key
    model = f"{key.provider}/{key.model}" if key.provider else None
    whose = [key.tenant_id, f"{key.period} {key.starts}", key.token_id, model, key.key_source or None, key.outcome]
    for name, parts, told in zip(one.parts._fields, one.parts, one.usage, strict=True):
        if parts != told:
            yield [*whose, name, parts, told]
