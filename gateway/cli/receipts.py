"""`wardgate usage receipt`: what one request cost, line by line."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.control.gate import Operation
from gateway.receipts import receipt
from gateway.usage_report import dollars

Json = Mapping[str, Any]
_STATES: Mapping[str, str] = {
    "settled": "the provider counted",
    "released": "nothing was used",
    "estimated": "nobody counted all of it, so it is estimated",
}


def show_receipt(
    request_id: Annotated[str, typer.Argument(help="`x-wardgate-request-id` of the answer.")],
    as_json: AsJson = False,
) -> None:
    """Show what a request cost: a line for each class of tokens, the attempts, whose key, and the total."""

    async def work(at: Operation) -> Json:
        row = await at.keystore.ledger.get(request_id)
        tenant = await at.keystore.tenants.get(row.tenant_id)
        return {"tenant": tenant.slug, "token": row.token_id} | receipt(row)

    found = operate("usage.receipt", work, target=request_id)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Json) -> None:
    came = found["began_at"].strftime("%Y-%m-%d %H:%M:%S")
    print(f"Request {found['request_id']} of {found['tenant']} came {came} UTC and ended {found['outcome']}.")
    if found["provider"]:
        key = f"the key {found['key_source']}:{found['key_via']}, stored as {found['setting_key']}"
        print(f"Asked last: {found['provider']}/{found['model']} with {key}.")
    if found["dropped"]:
        print(f"Left out of the request: {', '.join(found['dropped'])}.")
    print()
    print_table(
        ("attempt", "model", "outcome", "status", "ms"),
        [
            (place, f"{one['provider']}/{one['model']}", one["outcome"], one["status"], one["duration_ms"])
            for place, one in enumerate(found["attempts"], start=1)
        ],
        empty="No provider was asked.",
    )
    print()
    print_table(
        ("charged", "units", "USD each", "USD"),
        [(one["class"], one["units"], _known(one["price_usd"]), _known(one["cost_usd"])) for one in found["lines"]],
        empty="Nothing is charged by the unit.",
    )
    print(f"\nTotal: {_total(found)}; {_STATES[found['state']]}. Prices: {found['catalogue'] or 'none'}.")


def _total(found: Json) -> str:
    if found["cost_nano"] is None:
        known = dollars(sum(one["cost_nano"] or 0 for one in found["lines"]))
        return f"unknown, {known} USD without what has no price"
    return f"{found['cost_usd']} USD"


def _known(value: object) -> object:
    return "unknown" if value is None else value
