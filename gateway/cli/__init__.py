"""`wardgate`: the command line. Every command that prints takes `--json`; every failure is one sentence on stderr.

Exit codes: 0 done, 1 refused or failed (the sentence says why), 2 wrong usage, 3 done with findings (lint, explain).
"""

import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli import (
    aliases,
    audit,
    doctor,
    explaining,
    importing,
    moving,
    names,
    plans,
    prices,
    running,
    sealing,
    tenants,
    tokens,
)
from gateway.cli.console import LACKS
from gateway.config import ConfigError
from gateway.control.targets import without_secrets
from gateway.errors import ApiError
from gateway.listeners import PortTaken
from gateway.logs import LogLevelError
from gateway.metrics_server import MetricsPortError
from gateway.scrub import scrub
from gateway.workers.supervisor import WorkerFailed
from keystore.errors import KeystoreError
from router.errors import RouterError


class _Quiet(TyperGroup):
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
        error.message = without_secrets(said, sys.argv[1:])
    return error


app = typer.Typer(
    name="wardgate",
    cls=_Quiet,
    help="A gateway for SaaS teams whose tenants bring their own LLM provider keys. Nothing silent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(running.serve)
app.command("worker", hidden=True)(running.worker)
app.command("demo")(running.demo)
app.command("sandbox")(running.sandbox)
app.command("migrate")(running.migrate)
app.command("explain")(explaining.explain)
app.add_typer(tenants.app, name="tenant")
app.add_typer(moving.key_app, name="key")
names.key_app.command("doctor")(doctor.doctor)
app.add_typer(aliases.app, name="alias")
app.add_typer(tokens.app, name="token")
app.add_typer(sealing.app, name="sealing")
app.add_typer(audit.app, name="audit")
app.add_typer(importing.app, name="import")
app.add_typer(names.provider_app, name="provider")
app.add_typer(plans.app, name="plan")
app.add_typer(prices.app, name="price")


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


FINDINGS = 3
EXPECTED = (
    *(ApiError, ConfigError, KeystoreError, RouterError),
    *(LogLevelError, MetricsPortError, PortTaken, WorkerFailed),
)


def main() -> None:
    """Entry point of the `wardgate` script."""
    try:
        app()
    except SystemExit as end:
        raise SystemExit(FINDINGS if not end.code and LACKS.get() else end.code) from None
    except EXPECTED as error:
        _say(str(error))
        raise SystemExit(1) from None
    except (OSError, ValueError, ArithmeticError) as error:
        _say(_sentence(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _say(sentence: str) -> None:
    """One line on stderr, without an argument that may be a secret."""
    sys.stderr.write(f"wardgate: {without_secrets(sentence, sys.argv[1:])}\n")


def _sentence(error: Exception) -> str:
    """One line about an error that no command foresaw: the kind, and the file where it is about one."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    said = scrub(" ".join(str(error).split()))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
