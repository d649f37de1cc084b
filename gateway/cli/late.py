"""Commands that are imported when they are run: what the list of commands says of each stands in a row.

Owns how a row becomes a command. Must not know what a command does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from gateway.cli.imported import imported


@dataclass(frozen=True, slots=True)
class Late:
    """Where a command or a group of them is: `what` of a module of this package, and the first words of its help."""

    module: str
    what: str
    help: str
    hidden: bool = False

    def load(self, name: str) -> Any:
        """The command itself."""
        found = getattr(imported(f"gateway.cli.{self.module}"), self.what)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(name, hidden=self.hidden)(found)
            command = typer.main.get_command(alone)
        command.name = name
        return command


COMMANDS: Final[Mapping[str, Late]] = MappingProxyType(
    {
        "serve": Late(
            "running",
            "serve",
            "Serve on WARDGATE_HOST:WARDGATE_PORT until SIGTERM; an empty database is migrated first.",
        ),
        "worker": Late(
            "running",
            "worker",
            "One of several processes that serve: started by `serve --workers`, never by hand.",
            hidden=True,
        ),
        "demo": Late(
            "running",
            "demo",
            "Serve with the sandbox as MiniMax, a demo tenant and a token: what `make run` does.",
        ),
        "sandbox": Late(
            "running",
            "sandbox",
            "Run the stand-in for a provider: it speaks OpenAI's wire and misbehaves as told (docs/sandbox.md).",
        ),
        "migrate": Late(
            "running", "migrate", "Bring the database to this version's schema; does nothing when it is there already."
        ),
        "explain": Late(
            "explaining",
            "explain",
            "Print the ranked and the rejected candidates of a request, with reasons. Exit code 3 when none is left.",
        ),
        "tenant": Late("tenants", "app", "Tenants and their plans."),
        "key": Late("doctor", "key_app", "Provider keys of tenants. Values are read from stdin or a prompt."),
        "alias": Late(
            "aliases", "app", "A tenant's own names for models; the operator's stand in wardgate.toml, below `models`."
        ),
        "token": Late("tokens", "app", "API tokens of tenants."),
        "sealing": Late("sealing", "app", "Root keys: add, activate, rewrap, verify, retire."),
        "audit": Late("audit", "app", "The record of every operation of the control plane."),
        "import": Late("importing", "app", "Take over a tenant_settings table of another application."),
        "provider": Late("names", "provider_app", "Provider rows."),
        "plan": Late("plans", "app", "Plan rows."),
        "price": Late("prices", "app", "Price releases."),
        "ledger": Late("ledger", "app", "The ledger: one row for each request."),
        "budget": Late("budgets", "app", "What tenants and their tokens may spend in a day or a month."),
        "webhook": Late("webhooks", "app", "Where alerts of budgets and of unusual spending are sent to."),
        "bulk": Late("bulk", "app", "Pause the bulk requests of a tenant, and let them go on."),
        "limit": Late("limits", "app", "What tenants and their tokens may ask at a time, beside their plans."),
        "usage": Late(
            "usage",
            "app",
            "Show what was used, and what it cost: a table and a chart, JSON, or CSV. Days and months are UTC.",
        ),
    }
)


class LateGroup(TyperGroup):
    """A group whose list of commands is COMMANDS; the one that is asked for is imported."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        for name, row in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=row.help, hidden=row.hidden)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        row = COMMANDS.get(name or "")
        return name, row.load(name or "") if row else command, rest
