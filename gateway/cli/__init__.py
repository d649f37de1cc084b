"""`wardgate`: the command line. Every command that prints takes `--json`; every failure is one sentence on stderr.

Exit codes: 0 done, 1 refused or failed (the sentence says why), 2 wrong usage, 3 done with findings (lint, explain).
"""

import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from gateway.cli.ends import FINDINGS, LACKS, safe, sentence_of
from gateway.cli.late import LateGroup


class _Quiet(LateGroup):
    """Wrong usage is told without an argument that may be a secret."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().make_context(*arguments, **named)
        except typer.TyperException as error:
            raise _quiet(error) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            raise _quiet(error) from None


def _quiet(error: typer.TyperException) -> typer.TyperException:
    if isinstance(said := getattr(error, "message", None), str):
        error.message = safe(said)
    return error


app = typer.Typer(
    name="wardgate",
    cls=_Quiet,
    help="A gateway for SaaS teams whose tenants bring their own LLM provider keys. Nothing silent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wardgate {version('wardgate')}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `wardgate` script."""
    try:
        app()
    except SystemExit as end:
        raise SystemExit(FINDINGS if not end.code and LACKS.get() else end.code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        said = sentence_of(error)
        if said is None:
            raise
        sys.stderr.write(f"wardgate: {said}\n")
        raise SystemExit(1) from None
