"""`wardgate explain`: which model a request would go to, and why every other one would not. Nothing is spent."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.chat_request import ChatRequest, read_chat_request
from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.control.gate import Operation
from gateway.control.targets import check_said
from gateway.deciding import RuleBook, decide
from gateway.rules import load_catalogue
from router.decision import Decision
from router.explain import to_json

QUESTION = {"role": "user", "content": "Hello."}
NOTHING_LEFT = 3  # exit code when no candidate is left
SHOWN = 20  # rows of each table for people; --json has all


def explain(
    tenant: Annotated[str, typer.Option(help="The tenant's slug.")],
    model: Annotated[str | None, typer.Option(help="A model, a family, auto or default.")] = None,
    body: Annotated[Path | None, typer.Option(help="A chat completion body to explain; - reads stdin.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the ranked and the rejected candidates of a request, with reasons. Exit code 3 when none is left."""
    request = _request(model, body)
    check_said(model or "", "--model")

    async def work(at: Operation) -> Decision:
        keyring = await at.keystore.keyring(at.tenant)
        book = RuleBook(at.rules.registry, at.rules.plans, load_catalogue(at.rules.registry))
        return decide(request, at.tenant, keyring, book, datetime.now(UTC).date())

    decision = operate("tenant.explain", work, tenant=tenant, target=model or "")
    document = to_json(decision)
    if as_json:
        print_json(document)
    else:
        _print(document)
    if not decision.ranked:
        raise typer.Exit(NOTHING_LEFT)


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


def _print(document: Mapping[str, Any]) -> None:
    print(document["summary"])
    ranked, rejected = document["ranked"], document["rejected"]
    print()
    print_table(
        ("rank", "model", "expected cost (USD)", "key", "stored as"),
        [(r["rank"], r["id"], r["expected_cost_usd"], _key(r["key"]), r["key"]["setting_key"]) for r in ranked[:SHOWN]],
        empty="No candidate is left.",
    )
    _more(len(ranked))
    for remark in sorted({remark for item in ranked for remark in item["key"]["remarks"]}):
        print(f"Note: {remark}.")
    print()
    print_table(
        ("rejected", "reason", "why"),
        [(name, reason, detail) for name, reason, detail in _grouped(rejected)[:SHOWN]],
        empty="Nothing was rejected.",
    )
    _more(len(_grouped(rejected)))
    if document["nearest_miss"]:
        print(f"\nNearest miss: {document['nearest_miss']}")


def _key(key: Mapping[str, Any]) -> str:
    return f"{key['source']}:{key['via']}"


def _grouped(rejected: list[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Rejections of one provider for one reason become one row: 300 models without a key are one fact."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for item in rejected:
        groups.setdefault((item["provider"], item["reason"]), []).append(item)
    return [_row(items) for items in groups.values()]


def _row(items: list[Mapping[str, Any]]) -> tuple[str, str, str]:
    first = items[0]
    same = len({item["detail"] for item in items}) == 1
    name = first["id"] if len(items) == 1 else f"{first['provider']}/* ({len(items)} models)"
    return name, first["reason"], first["detail"] if same else f"{first['detail']}, and {len(items) - 1} more like it"


def _more(total: int) -> None:
    if total > SHOWN:
        print(f"... and {total - SHOWN} more; --json has them all")
