"""`wardgate`: the command line. Every command that prints takes `--json`; every failure is one sentence on stderr.

Exit codes: 0 done, 1 refused or failed (the sentence says why), 2 wrong usage, 3 done with findings (lint, explain).
"""

import sys

import typer

from gateway.cli import explaining, keys, rows, running, tenants, tokens
from gateway.config import ConfigError
from gateway.logs import LogLevelError
from gateway.metrics_server import MetricsPortError
from gateway.server import PortTaken
from keystore.errors import KeystoreError
from router.errors import RouterError

app = typer.Typer(
    name="wardgate",
    help="A gateway for SaaS teams whose tenants bring their own LLM provider keys. Nothing silent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(running.serve)
app.command("demo")(running.demo)
app.command("sandbox")(running.sandbox)
app.command("migrate")(running.migrate)
app.command("explain")(explaining.explain)
app.add_typer(tenants.app, name="tenant")
app.add_typer(keys.app, name="key")
app.add_typer(tokens.app, name="token")
app.add_typer(rows.provider_app, name="provider")
app.add_typer(rows.plan_app, name="plan")

EXPECTED = (ConfigError, KeystoreError, RouterError, LogLevelError, MetricsPortError, PortTaken)


def main() -> None:
    """Entry point of the `wardgate` script."""
    try:
        app()
    except EXPECTED as error:
        sys.stderr.write(f"wardgate: {error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
