"""`wardgate tenant`: who may use the gateway, and on which plan."""

from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.control.gate import Operation
from gateway.control.targets import check_said
from gateway.rules import Rules, unserved
from keystore.resolve import Found
from keystore.tenants import Tenant

app = typer.Typer(help="Tenants and their plans.", no_args_is_help=True)
Slug = Annotated[str, typer.Argument(help="The tenant's short name, e.g. acme.")]


def as_row(tenant: Tenant) -> dict[str, object]:
    return {
        "id": tenant.id,
        "slug": tenant.slug,
        "name": tenant.name,
        "plan": tenant.plan,
        "default_model": tenant.default_model,
        "created_at": tenant.created_at,
    }


def _warn(tenant: Tenant, rules: Rules) -> None:
    """Say on stderr when nothing can be served on the tenant's plan."""
    why = unserved(tenant.plan, rules)
    if why is not None:
        typer.echo(f"Note: {why}: {tenant.slug} cannot be served on it.", err=True)


def _print(tenant: Tenant, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(as_row(tenant))
    else:
        print(sentence)


@app.command("add")
def add(
    slug: Slug,
    plan: Annotated[str, typer.Option(help="A plan of `wardgate plan list`.")],
    name: Annotated[str | None, typer.Option(help="A name for people; the slug when left out.")] = None,
    tenant_id: Annotated[
        str | None, typer.Option("--id", help="The id that an existing tenant_settings table uses; random if left out.")
    ] = None,
    default_model: Annotated[str | None, typer.Option(help="What `model: default` means; else the plan's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a tenant. The plan must be one that the gateway knows."""

    async def work(at: Operation) -> Tenant:
        check_said(slug, "the slug")
        added = await at.keystore.tenants.add(slug, plan, name=name, id=tenant_id, default_model=default_model)
        _warn(added, at.rules)
        return added

    tenant = operate("tenant.add", work, target=slug, describe=lambda one: {"id": one.id, "plan": one.plan})
    _print(tenant, as_json, f"Added tenant {tenant.slug} ({tenant.id}) on plan {tenant.plan}.")


@app.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """List all tenants."""

    async def work(at: Operation) -> list[Tenant]:
        return list(await at.keystore.tenants.list())

    tenants = operate("tenant.list", work)
    if as_json:
        print_json([as_row(tenant) for tenant in tenants])
        return
    print_table(
        ("slug", "plan", "name", "id", "since"),
        [(t.slug, t.plan, t.name, t.id, t.created_at) for t in tenants],
        empty="There are no tenants. Add one: wardgate tenant add SLUG --plan PLAN",
    )


@app.command("show")
def show(slug: Slug, as_json: AsJson = False) -> None:
    """Show one tenant with what it holds: keys by name, tokens by id."""

    async def work(at: Operation) -> dict[str, object]:
        tenant = at.tenant
        keyring = await at.keystore.keyring(tenant)
        held = {
            provider_id: {"setting_key": found.setting_key, "via": found.via.value, "store": found.store.value}
            for provider_id, found in keyring.resolutions.items()
            if isinstance(found, Found)
        }
        tokens = [token.id for token in await at.keystore.tokens.list(tenant) if token.revoked_at is None]
        return as_row(tenant) | {"providers": held, "tokens": tokens}

    row = operate("tenant.show", work, tenant=slug)
    if as_json:
        print_json(row)
        return
    providers = row.pop("providers")
    assert isinstance(providers, dict)  # noqa: S101 - built above
    row["tokens"] = row["tokens"] or None
    print_table(("fact", "value"), list(row.items()), empty="")
    print_table(
        ("provider", "key stored as", "found as", "store"),
        [(name, held["setting_key"], held["via"], held["store"]) for name, held in providers.items()],
        empty=f"No provider key. Store one: printf %s VALUE | wardgate key set {slug} MINIMAX_API_KEY",
    )


@app.command("set-plan")
def set_plan(
    slug: Slug, plan: Annotated[str, typer.Argument(help="A plan of `wardgate plan list`.")], as_json: AsJson = False
) -> None:
    """Move a tenant to another plan; in force from its next request."""

    async def work(at: Operation) -> Tenant:
        moved = await at.keystore.tenants.set_plan(slug, plan)
        _warn(moved, at.rules)
        return moved

    tenant = operate("tenant.set_plan", work, tenant=slug, target=plan)
    _print(tenant, as_json, f"Tenant {tenant.slug} is on plan {tenant.plan}.")
