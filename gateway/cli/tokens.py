"""`wardgate token`: what applications authenticate with. A token is shown once, when it is made."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.config import ConfigError
from gateway.control.gate import Operation
from keystore.tokens import NewToken, TokenInfo

LONGEST_DAYS = 36_500
app = typer.Typer(help="API tokens of tenants.", no_args_is_help=True)


def as_row(info: TokenInfo) -> dict[str, object]:
    return {
        "id": info.id,
        "kind": info.kind,
        "tenant": info.tenant,
        "name": info.name,
        "created_at": info.created_at,
        "expires_at": info.expires_at,
        "revoked_at": info.revoked_at,
    }


def _days(number: float) -> timedelta:
    if not 0 < number <= LONGEST_DAYS:  # false for nan too
        raise ConfigError(f"--expires-in-days must be above 0 and at most {LONGEST_DAYS}, not {number:g}")
    return timedelta(days=number)


@app.command("create")
def create(
    slug: Annotated[str | None, typer.Argument(help="The tenant; left out for --kind admin.")] = None,
    name: Annotated[str, typer.Option(help="A note on what it is for.")] = "",
    kind: Annotated[str, typer.Option(help="live, test or admin.")] = "live",
    expires_in_days: Annotated[float | None, typer.Option(help="Days until it expires; never when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it once."""
    if (slug is None) != (kind == "admin"):
        raise typer.BadParameter("a tenant's token needs its slug; an admin token takes none")
    expires_at = None if expires_in_days is None else datetime.now(UTC) + _days(expires_in_days)

    async def work(at: Operation) -> NewToken:
        return await at.keystore.tokens.create(at.found, kind=kind, name=name, expires_at=expires_at)

    made = operate("token.create", work, tenant=slug, describe=lambda one: {"token": one.id, "kind": one.kind})
    if as_json:
        row = {"token": made.token, "id": made.id, "tenant": slug, "kind": kind, "name": name, "expires_at": expires_at}
        print_json(row)
    else:
        print(made.token)
        typer.echo("This is shown once; the database holds a hash of it.", err=True)


@app.command("list")
def list_tokens(
    slug: Annotated[str | None, typer.Argument(help="One tenant; all when left out.")] = None, as_json: AsJson = False
) -> None:
    """List tokens by their public id."""

    async def work(at: Operation) -> list[TokenInfo]:
        return list(await at.keystore.tokens.list(at.found))

    infos = operate("token.list", work, tenant=slug)
    if as_json:
        print_json([as_row(info) for info in infos])
        return
    print_table(
        ("id", "kind", "tenant", "name", "created", "expires", "revoked"),
        [(i.id, i.kind, i.tenant, i.name or None, i.created_at, i.expires_at, i.revoked_at) for i in infos],
        empty="There are no tokens. Make one: wardgate token create SLUG",
    )


@app.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(help="The id of `wardgate token list` (12 characters).")],
    as_json: AsJson = False,
) -> None:
    """Revoke a token; refused from its next request on."""

    async def work(at: Operation) -> None:
        await at.keystore.tokens.revoke(token_id)

    operate("token.revoke", work, target=token_id)
    if as_json:
        print_json({"id": token_id, "revoked": True})
    else:
        print(f"Revoked {token_id}.")
