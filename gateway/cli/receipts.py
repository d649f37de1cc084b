"""`wardgate usage receipt`: what one request cost, line by line."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.control.gate import Operation
from gateway.receipts import receipt
from gateway.usage_report import dollars
from keystore.ledger_row import LOST
from router.query import KeySource

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
    if found["outcome"] == LOST:
        print("The process that served it died before it ended: nobody knows how the call went, nor what it used.")
    if found["dropped"]:
        print(f"Left out of the request: {', '.join(found['dropped'])}.")
    if found["waited_ms"] is not None:
        print(f"It is bulk, and waited {found['waited_ms']} ms for its turn.")
    print()
    print_table(
        ("attempt", "model", "outcome", "status", "ms", "USD"),
        [
            (place, _model(one), one["outcome"], one["status"], one["duration_ms"], _known(one["cost_usd"]))
            for place, one in enumerate(found["attempts"], start=1)
        ],
        empty=_no_attempt(found),
    )
    print()
    print_table(
        ("charged", "units", "USD each", "USD"),
        [_charged(one) for one in found["lines"]],
        empty="Nothing is charged by the unit." if found["unlisted_nano"] is None else "No line says what is charged.",
    )
    _print_failed(found["attempts"])
    if found["unlisted_nano"] is not None:
        print(f"\nIn no line: {found['unlisted_usd']} USD, {_why_unlisted(found)}.")
    print(f"\nTotal: {_total(found)}; {_STATES[found['state']]}. Prices: {found['catalogue'] or 'none'}.")


def _no_attempt(found: Json) -> str:
    return "Of the attempts nothing is written." if found["provider"] else "No provider was asked."


def _why_unlisted(found: Json) -> str:
    if found["outcome"] != LOST:
        return "of which nothing else is written"
    if found["key_source"] == KeySource.MANAGED:
        return "which was reserved for the call before it was made: the most that was held for it, or what was expected"
    return "which the call was expected to cost before it was made"


def _print_failed(attempts: Sequence[Json]) -> None:
    """What was charged, as far as anybody can tell, for attempts that gave no answer."""
    failed = [(place, one) for place, one in enumerate(attempts, start=1) if one["lines"]]
    if failed:
        print()
        print_table(
            ("failed attempt", "charged", "units", "USD each", "USD"),
            [(place, *_charged(line)) for place, one in failed for line in one["lines"]],
            empty="",
        )


def _charged(line: Json) -> tuple[object, ...]:
    return line["class"], line["units"], _known(line["price_usd"]), _known(line["cost_usd"])


def _model(attempt: Json) -> str:
    return f"{attempt['provider']}/{attempt['model']}"


def _total(found: Json) -> str:
    if found["cost_nano"] is None:
        lines = [*found["lines"], *(line for one in found["attempts"] for line in one["lines"])]
        known = dollars(sum(one["cost_nano"] or 0 for one in lines))
        return f"unknown, {known} USD without what has no price"
    return f"{found['cost_usd']} USD"


def _known(value: object) -> object:
    return "unknown" if value is None else value
