"""A request's receipt: what is charged line by line, who was asked, with whose key, and what it comes to.

Owns the names of what is told of a row of the ledger, that a kept decision is told with its receipt, and what is told
when there is no decision any more. Must not know who asks.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import orjson

from gateway.events import Outcome
from gateway.usage_report import dollars
from keystore.clock import Clock, utc_now
from keystore.errors import DecisionUnknown, LedgerUnknown, TenantUnknown
from keystore.keystore import Keystore
from keystore.ledger_row import LedgerRow

_ON_ITS_WAY: Final = timedelta(seconds=10)  # decisions are written about a second after their requests ended
_LINE: Final = ("class", "units", "price_usd", "cost_nano")
_ATTEMPT: Final = ("provider", "model", "outcome", "status", "duration_ms", "cost_nano", "lines", "service")


def receipt(row: LedgerRow) -> dict[str, Any]:
    """The receipt of a row. `price_usd` is for one unit and null where it is not known; the total is the sum of the
    lines, those of failed attempts and `unlisted_nano` included, and null where one of them is not known."""
    detail = orjson.loads(row.detail)
    lines = [_line(each) for each in detail.get("lines", ())]
    attempts = [_attempt(each) for each in detail.get("attempts", _only(row))]
    unlisted = _unlisted(row.cost_nano, [*lines, *(line for one in attempts for line in one["lines"])])
    return {
        "object": "receipt",
        "request_id": row.request_id,
        "began_at": row.began_at,
        "state": row.state.value,
        "outcome": row.outcome,
        "provider": row.provider,
        "model": row.model,
        "key_source": row.key_source,
        "key_via": row.key_via,
        "setting_key": row.setting_key,
        "catalogue": row.catalogue,
        "lines": lines,
        "attempts": attempts,
        "dropped": list(detail.get("dropped", ())),
        "passed_over": detail.get("passed_over", []),
        "waited_ms": detail.get("waited_ms"),
        "unlisted_nano": unlisted,
        "unlisted_usd": None if unlisted is None else dollars(unlisted),
        "currency": "USD",
        "cost_nano": row.cost_nano,
        "cost_usd": None if row.cost_nano is None else dollars(row.cost_nano),
    }


def _unlisted(cost_nano: int | None, lines: Sequence[dict[str, Any]]) -> int | None:
    """What the total has beside its lines: of a request whose process died, what was booked for its call."""
    known = [line["cost_nano"] for line in lines]
    if cost_nano is None or None in known:
        return None
    return max(0, cost_nano - sum(known)) or None


def _line(written: list[Any]) -> dict[str, Any]:
    line = dict(zip(_LINE, written, strict=True))
    nano = line["cost_nano"]
    return line | {"cost_usd": None if nano is None else dollars(nano)}


def _attempt(written: Sequence[Any]) -> dict[str, Any]:
    """What each cost is null where the row does not say; `lines` are those of one that failed and is taken as charged:
    what it cost is in no other line."""
    known = dict.fromkeys(_ATTEMPT) | dict(zip(_ATTEMPT, written, strict=False))
    del known["service"]
    nano = known["cost_nano"]
    cost = None if nano is None else dollars(nano)
    return known | {"cost_usd": cost, "lines": [_line(line) for line in known["lines"] or ()]}


def _only(row: LedgerRow) -> list[tuple[object, ...]]:
    """The attempt of a row that does not name it: it was the only one. How it ended is known where the answer came."""
    if not row.attempts:
        return []
    ended = ("ok", row.status) if row.outcome == Outcome.OK else (None, None)
    return [(row.provider, row.model, *ended, row.upstream_ms, row.cost_nano)]


async def receipt_of(keystore: Keystore, request_id: str, *, tenant_id: str | None = None) -> dict[str, Any] | None:
    """The receipt of a request, of this tenant alone when one is given; None while the ledger has no row of it. Raises
    DatabaseUnavailable."""
    try:
        return receipt(await keystore.ledger.get(request_id, tenant_id=tenant_id))
    except LedgerUnknown:
        return None


async def record_of(
    keystore: Keystore, request_id: str, *, tenant_id: str | None = None, now: Clock = utc_now
) -> bytes:
    """What is kept of a request, with its receipt, as JSON; of one whose decision is gone, or never was, what its row
    of the ledger says. Raises DecisionUnknown or DatabaseUnavailable."""
    try:
        kept = await keystore.decisions.get(request_id, tenant_id=tenant_id)
    except DecisionUnknown:
        row = await _row_alone(keystore, request_id, tenant_id, now)
        if row is None:
            raise
        return orjson.dumps(_record(row, await _slug(keystore, row.tenant_id)))
    found = await receipt_of(keystore, request_id, tenant_id=tenant_id)
    return kept.document[:-1] + b',"receipt":' + orjson.dumps(found) + b"}"


async def _row_alone(keystore: Keystore, request_id: str, tenant_id: str | None, now: Clock) -> LedgerRow | None:
    """None also of a request that ended just now: its decision may be on its way."""
    try:
        row = await keystore.ledger.get(request_id, tenant_id=tenant_id)
    except LedgerUnknown:
        return None
    ended = row.began_at + timedelta(milliseconds=row.duration_ms)
    return row if now() - ended > _ON_ITS_WAY or not keystore.decisions.keeping.on else None


async def _slug(keystore: Keystore, tenant_id: str) -> str | None:
    try:
        return (await keystore.tenants.get(tenant_id)).slug
    except TenantUnknown:
        return None


def _record(row: LedgerRow, slug: str | None) -> dict[str, Any]:
    """In the shape of gateway.request_record, as far as a row knows it."""
    told = receipt(row)
    unknown = {"key_label": None, "key_former": None}
    shown = ("provider", "model", "outcome", "status", "duration_ms")
    return {
        "object": "request",
        "id": row.request_id,
        "client_request_id": row.client_request_id,
        "created_at": row.began_at,
        "duration_ms": row.duration_ms,
        "waited_ms": told["waited_ms"],
        "tenant": slug,
        "token": row.token_id or None,
        "endpoint": row.endpoint,
        "stream": row.stream,
        "outcome": row.outcome,
        "status": row.status,
        "fault": row.fault,
        "code": row.code,
        "served": {
            "provider": row.provider,
            "model": row.model,
            "key": None if row.key_source is None else f"{row.key_source}:{row.key_via}",
            **unknown,
            "cost_usd": told["cost_usd"],
            "catalogue": row.catalogue,
        },
        "passed_over": told["passed_over"],
        "attempts": [
            {name: one[name] for name in shown} | unknown | {"provider_request_id": None} for one in told["attempts"]
        ],
        "decision": None,
        "receipt": told,
    }
