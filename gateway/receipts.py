"""A request's receipt: what is charged line by line, who was asked, with whose key, and what it comes to.

Owns the names of what is told of a row of the ledger, and that a kept decision is told with its receipt. Must not know
who asks.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.events import Outcome
from gateway.usage_report import dollars
from keystore.errors import LedgerUnknown
from keystore.keystore import Keystore
from keystore.ledger_row import LedgerRow

_LINE: Final = ("class", "units", "price_usd", "cost_nano")
_ATTEMPT: Final = ("provider", "model", "outcome", "status", "duration_ms", "cost_nano", "lines", "service")


def receipt(row: LedgerRow) -> dict[str, Any]:
    """The receipt of a row. `price_usd` is for one unit and null where it is not known; the total is the sum of the
    lines, those of failed attempts included, and null where one of them is not known."""
    detail = orjson.loads(row.detail)
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
        "lines": [_line(each) for each in detail.get("lines", ())],
        "attempts": [_attempt(each) for each in detail.get("attempts", _only(row))],
        "dropped": list(detail.get("dropped", ())),
        "currency": "USD",
        "cost_nano": row.cost_nano,
        "cost_usd": None if row.cost_nano is None else dollars(row.cost_nano),
    }


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


async def record_of(keystore: Keystore, request_id: str, *, tenant_id: str | None = None) -> bytes:
    """What is kept of a request, with its receipt, as JSON. Raises DecisionUnknown or DatabaseUnavailable."""
    kept = await keystore.decisions.get(request_id, tenant_id=tenant_id)
    found = await receipt_of(keystore, request_id, tenant_id=tenant_id)
    return kept.document[:-1] + b',"receipt":' + orjson.dumps(found) + b"}"
