"""`wardgate token`: what applications authenticate with. A token is shown once, when it is made."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.config import ConfigError
from gateway.control.gate import Operation
from gateway.rules import Rules, load_catalogue
from keystore.errors import counted
from keystore.rights import rights_of
from keystore.token_format import token_id_of
from keystore.tokens import NewToken, TokenInfo
from router.plan_lint import matches_something

LONGEST_DAYS = 36_500
Made = tuple[NewToken, TokenInfo]
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
        typer.Option(help="inference, inference:bulk, keys:read, keys:write; admin:read, admin:write. Repeatable."),
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

    async def work(at: Operation) -> Made:
        new = await at.keystore.tokens.create(
            at.found,
            kind=kind,
            name=name,
            expires_at=expires_at,
            scopes=scope or (),
            allowed_models=allow_model or (),
            allowed_addresses=allow_address or (),
        )
        _warn(allow_model or (), at.rules)
        return new, await at.keystore.tokens.get(new.id)

    made = operate("token.create", work, tenant=slug, describe=lambda one: {"token": one[0].id, "kind": one[0].kind})
    _show_once(made, as_json)


def _warn(models: Sequence[str], rules: Rules) -> None:
    """Say on stderr which of the names are no models of the catalogue."""
    catalogue = load_catalogue(rules.registry, rules.overrides) if models else None
    for model in models:
        if catalogue is not None and not matches_something(model, catalogue, rules.registry):
            near = f"; near: {', '.join(catalogue.near(model))}" if catalogue.near(model) else ""
            typer.echo(f"Note: {model!r} matches no model of the catalogue{near}.", err=True)


def _show_once(made: Made, as_json: bool) -> None:
    new, info = made
    if as_json:
        shown = {"token": new.token, "id": new.id, "tenant": new.tenant, "kind": new.kind, "name": new.name}
        limits = {"allowed_models": info.allowed_models, "allowed_addresses": info.allowed_addresses}
        print_json(shown | {"expires_at": new.expires_at, "scopes": _rights(info), **limits})
        return
    print(new.token)
    typer.echo("This is shown once; the database holds a hash of it.", err=True)
    models, addresses = ", ".join(info.allowed_models), ", ".join(info.allowed_addresses)
    limits_told = f"models: {models or 'all of the plan'}; addresses: {addresses or 'any'}"
    typer.echo(f"Scopes: {', '.join(_rights(info))}; {limits_told}.", err=True)


def _rights(info: TokenInfo) -> list[str]:
    """What it may do, those scopes too that its kind has when none is said."""
    return sorted(rights_of(info.kind, info.scopes))


@app.command("rotate")
def rotate(
    token_id: TokenId,
    overlap_hours: Annotated[float, typer.Option(help="How long the old one goes on working.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Make a token with the same rights; the old one ends after the overlap."""
    overlap = _hours(overlap_hours)

    async def work(at: Operation) -> Made:
        new = await at.keystore.tokens.rotate(token_id, overlap=overlap)
        return new, await at.keystore.tokens.get(new.id)

    _show_once(operate("token.rotate", work, target=token_id, describe=lambda one: {"token": one[0].id}), as_json)


@app.command("seal")
def seal(
    yes: Annotated[bool, typer.Option("--yes", help="You have looked at `wardgate token list`.")] = False,
    as_json: AsJson = False,
) -> None:
    """Seal the tokens that have none: of before there were seals, or made by somebody who can write the database."""
    if not yes:
        raise typer.BadParameter("look at the tokens with sealed = no in `wardgate token list` first, then say --yes")

    async def work(at: Operation) -> list[str]:
        return await at.keystore.tokens.seal_unsealed()

    ids = operate("token.seal", work, describe=lambda sealed: {"tokens": sealed})
    if as_json:
        print_json({"sealed": ids})
    else:
        print(f"Sealed {counted(len(ids), 'token')}.")


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
        (
            *("id", "kind", "tenant", "name", "scopes", "models", "addresses"),
            *("created", "expires", "revoked", "last used", "sealed"),
        ),
        [
            (
                i.id,
                i.kind,
                i.tenant,
                i.name or None,
                _rights(i),
                i.allowed_models or "all of the plan",
                i.allowed_addresses or "any",
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

    async def work(at: Operation) -> bool:
        return await at.keystore.tokens.revoke(token_id)

    changed = operate("token.revoke", work, target=token_id)
    if as_json:
        print_json({"id": token_id, "revoked": True})
    else:
        print(f"Revoked {token_id}." if changed else f"{token_id} was revoked already.")
