"""`wardgate token`: what applications authenticate with. A token is shown once, when it is made."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.config import ConfigError
from gateway.control.gate import Operation
from keystore.token_format import token_id_of
from keystore.tokens import NewToken, TokenInfo

LONGEST_DAYS = 36_500
TokenId = Annotated[
    str, typer.Argument(help="The id of `wardgate token list` (12 characters), or the token.", callback=token_id_of)
]
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
        "scopes": info.scopes,
        "allowed_models": info.allowed_models,
        "allowed_addresses": info.allowed_addresses,
        "replaced_by": info.replaced_by,
        "last_used_at": info.last_used_at,
        "sealed": info.sealed,
    }


def _yes(info: TokenInfo) -> str:
    return "yes" if info.sealed else "NO: refused"


def _hours(number: float) -> timedelta:
    if not 0 <= number <= 24 * LONGEST_DAYS:  # false for nan too
        raise ConfigError(f"--overlap-hours must be from 0 to {24 * LONGEST_DAYS}, not {number:g}")
    return timedelta(hours=number)


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
    scope: Annotated[
        list[str] | None,
        typer.Option(help="inference, keys:read, keys:write; admin:read, admin:write. Repeatable."),
    ] = None,
    allow_model: Annotated[
        list[str] | None, typer.Option(help="A model or family that it is for; repeatable. Default: the plan's.")
    ] = None,
    allow_address: Annotated[
        list[str] | None, typer.Option(help="An address or network it may come from; repeatable. Default: any.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it once."""
    if (slug is None) != (kind == "admin"):
        raise typer.BadParameter("a tenant's token needs its slug; an admin token takes none")
    expires_at = None if expires_in_days is None else datetime.now(UTC) + _days(expires_in_days)

    async def work(at: Operation) -> NewToken:
        return await at.keystore.tokens.create(
            at.found,
            kind=kind,
            name=name,
            expires_at=expires_at,
            scopes=scope or (),
            allowed_models=allow_model or (),
            allowed_addresses=allow_address or (),
        )

    made = operate("token.create", work, tenant=slug, describe=lambda one: {"token": one.id, "kind": one.kind})
    _show_once(made, as_json)


def _show_once(made: NewToken, as_json: bool) -> None:
    if as_json:
        shown = {"token": made.token, "id": made.id, "tenant": made.tenant, "kind": made.kind, "name": made.name}
        print_json(shown | {"expires_at": made.expires_at})
    else:
        print(made.token)
        typer.echo("This is shown once; the database holds a hash of it.", err=True)


@app.command("rotate")
def rotate(
    token_id: TokenId,
    overlap_hours: Annotated[float, typer.Option(help="How long the old one goes on working.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Make a token with the same rights; the old one ends after the overlap."""
    overlap = _hours(overlap_hours)

    async def work(at: Operation) -> NewToken:
        return await at.keystore.tokens.rotate(token_id, overlap=overlap)

    _show_once(operate("token.rotate", work, target=token_id, describe=lambda one: {"token": one.id}), as_json)


@app.command("seal")
def seal(
    yes: Annotated[bool, typer.Option("--yes", help="You have looked at `wardgate token list`.")] = False,
    as_json: AsJson = False,
) -> None:
    """Seal the tokens that have no seal: those of before 0.2, or made by somebody who can write the database."""
    if not yes:
        raise typer.BadParameter("look at the tokens with sealed = no in `wardgate token list` first, then say --yes")

    async def work(at: Operation) -> list[str]:
        return await at.keystore.tokens.seal_unsealed()

    ids = operate("token.seal", work, describe=lambda sealed: {"tokens": sealed})
    if as_json:
        print_json({"sealed": ids})
    else:
        print(f"Sealed {len(ids)} tokens.")


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
        ("id", "kind", "tenant", "name", "scopes", "created", "expires", "revoked", "last used", "sealed"),
        [
            (
                i.id,
                i.kind,
                i.tenant,
                i.name or None,
                i.scopes or None,
                i.created_at,
                i.expires_at,
                i.revoked_at,
                i.last_used_at,
                _yes(i),
            )
            for i in infos
        ],
        empty="There are no tokens. Make one: wardgate token create SLUG",
    )


@app.command("revoke")
def revoke(
    token_id: TokenId,
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
