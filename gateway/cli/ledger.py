"""`wardgate ledger`: whether usage is the sum of the ledger's rows."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.ends import FINDINGS
from gateway.config import ConfigError
from gateway.control.gate import Operation
from keystore.errors import counted
from keystore.ledger_check import Difference, Reconciliation

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
