"""`wardgate provider`: the rows in force, shipped and overridden."""

import typer

from gateway.cli.begins import settings
from gateway.cli.console import AsJson, print_json, print_table
from gateway.rules import load_rules
from keystore.providers import Provider
from keystore.resolve import names_for

provider_app = typer.Typer(help="Provider rows.", no_args_is_help=True)


def provider_row(provider: Provider, names: tuple[str, ...]) -> dict[str, object]:
    return {
        "id": provider.id,
        "name": provider.name,
        "wire": provider.wire,
        "base_url": provider.base_url,
        "hosts": provider.hosts,
        "key_names": names,
        "former_ids": provider.former_ids,
        "catalogue_ids": provider.catalogue_ids,
        "retired": provider.retired,
    }


@provider_app.command("list")
def list_providers(as_json: AsJson = False) -> None:
    """List the provider rows and the names under which a key of each is found, in order."""
    registry = load_rules(settings()).registry
    rows = [(row, tuple(name for name, _ in names_for(row, registry))) for row in registry.providers]
    if as_json:
        print_json([provider_row(provider, names) for provider, names in rows])
        return
    print_table(
        ("provider", "wire", "hosts", "key is looked for as"),
        [(p.id + (" (retired)" if p.retired else ""), p.wire, p.hosts, names) for p, names in rows],
        empty="There are no providers.",
    )
