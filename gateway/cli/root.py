"""The tree of commands: the group that all stand in, its help, its version, and how wrong usage is told."""

from importlib.metadata import version
from typing import Annotated, Any

import typer

from gateway.cli.ends import safe
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
