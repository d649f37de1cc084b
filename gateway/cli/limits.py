"""`wardgate limit`: what a tenant or one of its tokens may ask at a time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.tenants import Slug
from gateway.control.gate import Operation
from gateway.limit_telling import defined, target_of, told
from keystore.limits import Limit, Limited
from keystore.token_format import token_id_of

app = typer.Typer(help="What tenants and their tokens may ask at a time, beside their plans.", no_args_is_help=True)
OfToken = Annotated[str, typer.Option("--token", help="Of one of the tenant's tokens, by id; else of all together.")]
Amount = int | None


@app.command("set")
def set_limits(
    slug: Slug,
    token: OfToken = "",
    requests: Annotated[Amount, typer.Option("--requests-per-minute", help="Requests a minute.")] = None,
    tokens: Annotated[Amount, typer.Option("--tokens-per-minute", help="Tokens a minute, in and out.")] = None,
    concurrency: Annotated[Amount, typer.Option("--concurrency", help="Requests at the same time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set limits, each in place of the one there is for the same; the others stay. A tenant's takes the place of its
    plan's; a token's stands beside the tenant's."""
    asked = {Limited.REQUESTS: requests, Limited.TOKENS: tokens, Limited.CONCURRENCY: concurrency}
    amounts = {limited.value: amount for limited, amount in asked.items() if amount is not None}
    token_id = token_id_of(token.strip())

    async def work(at: Operation) -> Sequence[Limit]:
        return await at.keystore.limits.set(at.tenant, amounts, token_id=token_id)

    target = target_of(amounts, token_id)
    found = operate("limit.set", work, tenant=slug, target=target, describe=_described)
    rows = defined(found)
    if as_json:
        print_json(rows)
    else:
        print(f"{_named(slug, token_id)} has: {', '.join(_said(row) for row in rows)}.")


@app.command("list")
def list_limits(slug: Slug, as_json: AsJson = False) -> None:
    """List a tenant's limits: its plan's that stand, its own in their place, and its tokens' beside them."""

    async def work(at: Operation) -> list[dict[str, object]]:
        return told(at.rules.plans.get(at.tenant.plan), await at.keystore.limits.list(at.tenant))

    rows = operate("limit.list", work, tenant=slug)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("whose", "token", "limit", "amount"),
        [[row["whose"], row["token"], row["limit"], f"{row['amount']:,}"] for row in rows],
        empty=f"{slug} has no limit of its own, and is on a plan that has no row.",
    )


@app.command("remove")
def remove_limits(
    slug: Slug,
    token: OfToken = "",
    requests: Annotated[bool, typer.Option("--requests-per-minute", help="The limit of requests a minute.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens-per-minute", help="The limit of tokens a minute.")] = False,
    concurrency: Annotated[bool, typer.Option("--concurrency", help="The limit of requests at the same time.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove limits of the tenant's own, or of one of its tokens; without naming any, all that it has. A tenant is
    under its plan's again."""
    asked = {Limited.REQUESTS: requests, Limited.TOKENS: tokens, Limited.CONCURRENCY: concurrency}
    names = [limited.value for limited, wanted in asked.items() if wanted]
    token_id = token_id_of(token.strip())

    async def work(at: Operation) -> Sequence[Limit]:
        return await at.keystore.limits.remove(at.tenant, names, token_id=token_id)

    target = target_of(names, token_id)
    rows = defined(operate("limit.remove", work, tenant=slug, target=target, describe=_described))
    if as_json:
        print_json([row | {"removed": True} for row in rows])
    else:
        print(f"{_named(slug, token_id)} has no longer: {', '.join(_said(row) for row in rows)}.")


def _described(found: Iterable[Limit]) -> dict[str, object]:
    return {each.limited.value: each.amount for each in found}


def _named(slug: str, token_id: str) -> str:
    return f"The token {token_id} of {slug}" if token_id else slug


def _said(row: Mapping[str, object]) -> str:
    return f"{row['limit']} {row['amount']:,}"
