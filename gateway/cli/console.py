"""How the command line prints: JSON for scripts, a table for people; and how it opens the keystore."""

import asyncio
import getpass
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.begins import settings
from gateway.cli.ends import LACKS
from gateway.control.actions import ACTIONS, OPERATOR_RIGHTS
from gateway.control.gate import Control, Operation
from gateway.opening import open_keystore
from gateway.rules import Rules, load_rules
from gateway.settings import Settings
from keystore.audit import Actor
from keystore.keystore import Keystore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Result = TypeVar("Result")
WIDE = 400
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@asynccontextmanager
async def opened(chosen: Settings, *, partial: bool = False) -> AsyncIterator[tuple[Keystore, Rules]]:
    """The keystore and the rules of these settings; an empty database is made ready first. With `partial`, root
    keys may be missing, which is told."""
    rules = load_rules(chosen)
    keystore = await open_keystore(chosen, rules, create=True, partial=partial)
    if keystore.lacking:
        _tell_lacking(keystore)
    try:
        yield keystore, rules
    finally:
        await keystore.close()


def _tell_lacking(keystore: Keystore) -> None:
    ids = ", ".join(keystore.lacking)
    unheard = "" if keystore.audit.can_note else " This look is not noted in the audit, whose key it wraps."
    typer.echo(
        f"Note: {ids} is not among the sealing keys; put it back. What it wraps does not open.{unheard}", err=True
    )


def operate(
    action: str,
    work: Callable[[Operation], Awaitable[Result]],
    *,
    tenant: str | None = None,
    target: str = "",
    describe: Callable[[Result], Mapping[str, object]] | None = None,
) -> Result:
    """Run one operation of the control plane as the operator, through the gate, and return what it returns."""

    async def run() -> tuple[Result, bool]:
        async with opened(settings(), partial=ACTIONS[action].partial) as (keystore, rules):
            control = Control(keystore, rules)
            done = await control.run(operator(), action, work, tenant=tenant, target=target, describe=describe)
            return done, bool(keystore.lacking)

    result, lacks = asyncio.run(run())
    LACKS.set(lacks)
    return result


def operator() -> Actor:
    """Whoever runs the command: who can read the database and its sealing keys may do all."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid {os.getuid()}"
    return Actor("operator", user, f"cli on {socket.gethostname()}", OPERATOR_RIGHTS)


def print_json(value: object) -> None:
    """One JSON document on stdout; money is a string, times are ISO 8601."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, right: int | None = None
) -> None:
    """A table for people, or the sentence `empty` when there are no rows. Columns from `right` on are figures. No word
    and no figure is ever broken: a table that is too wide for the terminal even so runs over its edge."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        figures = right is not None and place >= right
        table.add_column(Text(column), overflow="fold", justify="right" if figures else "left", no_wrap=figures)
    for row in rows:
        table.add_row(*[Text(_shown(cell)) for cell in row])  # Text: brackets in a name are no markup
    console = Console()
    if not table.row_count:
        console.print(Text(empty))
    elif console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=WIDE)).minimum)
        console.print(table)
    else:
        _print_piped(Console(width=WIDE), table)


def _print_piped(console: "Console", table: "Table") -> None:
    """What is piped on is neither folded nor filled up with blanks."""
    with console.capture() as held:
        console.print(table)
    for line in held.get().splitlines():
        print(line.rstrip())


def _shown(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, datetime):
        return cell.strftime("%Y-%m-%d %H:%M")
    if isinstance(cell, Enum):
        return str(cell.value)
    if isinstance(cell, tuple | list | frozenset | set):
        return ", ".join(map(str, cell)) or "-"
    return str(cell)
