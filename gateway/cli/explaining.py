"""`wardgate explain`: which model a request would go to, and why every other one would not. Nothing is spent.

With `--request`, what was decided for a request that was made.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.chat_request import ChatRequest, read_chat_request
from gateway.cli.console import AsJson, operate, print_json
from gateway.cli.decision_tables import print_decision, print_request
from gateway.control.gate import Operation
from gateway.control.targets import check_said
from gateway.deciding import RuleBook, decide
from gateway.lending import Lending, operator_of
from gateway.pricing.live import live_catalogue
from gateway.receipts import record_of
from router.explain import to_json

QUESTION = {"role": "user", "content": "Hello."}
NOTHING_LEFT = 3  # exit code when no candidate is left


def explain(
    tenant: Annotated[str | None, typer.Option(help="The tenant's slug.")] = None,
    model: Annotated[str | None, typer.Option(help="A model, a family, auto or default.")] = None,
    body: Annotated[Path | None, typer.Option(help="A chat completion body to explain; - reads stdin.")] = None,
    request: Annotated[
        str | None, typer.Option(help="A request that was made: `x-wardgate-request-id` of its answer.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the ranked and the rejected candidates of a request, with reasons. Exit code 3 when none is left."""
    if request is not None:
        if model is not None or body is not None:
            raise typer.BadParameter("--request tells what was decided then; leave --model and --body out")
        document = _made(request, tenant)
        decision = document["decision"]
    else:
        if tenant is None:
            raise typer.BadParameter("give --tenant SLUG, or --request ID")
        check_said(model or "", "--model")
        document = decision = _would(tenant, _request(model, body), model or "")
    if as_json:
        print_json(document)
    elif request is not None:
        print_request(document)
    else:
        print_decision(document)
    if decision is not None and not decision["ranked"]:
        raise typer.Exit(NOTHING_LEFT)


def _would(tenant: str, request: ChatRequest, target: str) -> Mapping[str, Any]:
    """What would be decided now."""

    async def work(at: Operation) -> Mapping[str, Any]:
        lending = Lending(at.keystore, await operator_of(at.keystore, at.rules.operator))
        keyring = await lending.keyring(at.tenant, at.rules.plans.get(at.tenant.plan))
        catalogue = await live_catalogue(at.keystore, at.rules)
        book = RuleBook(at.rules.registry, at.rules.plans, catalogue, at.rules.aliases)
        return to_json(decide(request, at.tenant, keyring, book, datetime.now(UTC).date()))

    return operate("tenant.explain", work, tenant=tenant, target=target)


def _made(request_id: str, tenant: str | None) -> Mapping[str, Any]:
    """What was decided for a request, of this tenant when one is given."""

    async def work(at: Operation) -> Mapping[str, Any]:
        tenant_id = at.found.id if at.found else None
        found: Mapping[str, Any] = json.loads(await record_of(at.keystore, request_id, tenant_id=tenant_id))
        return found

    return operate("request.show", work, tenant=tenant, target=request_id)


def _request(model: str | None, body: Path | None) -> ChatRequest:
    """The request in `body`, under another model when one is given; a short question when there is no body."""
    if body is None:
        if model is None:
            raise typer.BadParameter("give --model MODEL, or --body FILE")
        return read_chat_request(_question(model))
    raw = sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    if model is not None:
        read_chat_request(_question(model))  # the name is checked as one in a body is
    request = read_chat_request(raw)
    return request if model is None else replace(request, model=model.strip())


def _question(model: str) -> bytes:
    return json.dumps({"model": model, "messages": [QUESTION]}).encode()
