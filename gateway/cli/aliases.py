"""`wardgate alias`: a tenant's own names for models."""

from typing import Annotated

import typer

from gateway.aliasing import as_row, own_aliases, removing, setting
from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.tenants import Slug
from gateway.control.gate import Operation
from keystore.tenants import Tenant
from router.objective import Objective

app = typer.Typer(
    help="A tenant's own names for models; the operator's stand in wardgate.toml, below `models`.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="The alias: a-z, 0-9, '.', '_' and '-'.")]


@app.command("list")
def list_aliases(slug: Slug, as_json: AsJson = False) -> None:
    """The tenant's own aliases."""

    async def work(at: Operation) -> Tenant:
        return at.tenant

    found = own_aliases(operate("alias.list", work, tenant=slug))
    if as_json:
        print_json([as_row(alias) for alias in found])
        return
    print_table(
        ("alias", "models", "objective", "least quality"),
        [(a.name, ", ".join(a.models) or None, a.objective, a.min_quality) for a in found],
        empty=f"{slug} has no aliases of its own.",
    )


@app.command("set")
def set_alias(
    slug: Slug,
    name: Name,
    model: Annotated[list[str] | None, typer.Option(help="A model, family or alias; repeat it, in order.")] = None,
    objective: Annotated[Objective | None, typer.Option(help="In the place of models: what auto chooses by.")] = None,
    min_quality: Annotated[int | None, typer.Option(help="Least quality of what is chosen, 0 to 100.")] = None,
    unknown_quality: Annotated[bool, typer.Option(help="What is chosen may be of unknown quality.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set an alias; in force with the tenant's next request."""
    row = {
        "models": model,
        "objective": objective.value if objective else None,
        "min_quality": min_quality,
        "unknown_quality": unknown_quality,
    }

    async def work(at: Operation) -> Tenant:
        return await at.keystore.tenants.edit_aliases(at.tenant, setting(name, row, at.rules.aliases))

    tenant = operate("alias.set", work, tenant=slug, target=name)
    _say(tenant, as_json, f"{name} is set.")


@app.command("remove")
def remove_alias(slug: Slug, name: Name, as_json: AsJson = False) -> None:
    """Remove an alias."""

    async def work(at: Operation) -> Tenant:
        return await at.keystore.tenants.edit_aliases(at.tenant, removing(name, at.rules.aliases))

    _say(operate("alias.remove", work, tenant=slug, target=name), as_json, f"{name} is removed.")


def _say(tenant: Tenant, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json([as_row(alias) for alias in own_aliases(tenant)])
    else:
        print(sentence)
