"""What was decided for a request and what it cost, over HTTP, for the operator."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from gateway.admin.calls import OfCall
from gateway.admin.parts import RequestId
from gateway.admin.shapes import Told
from gateway.control.gate import Operation
from gateway.receipts import record_of


class ChargeLine(Told):
    """So many units of one class; `price_usd` is for one, and null where it is not known."""

    price_class: Annotated[str, Field(alias="class")]
    units: str
    price_usd: str | None
    cost_nano: int | None
    cost_usd: str | None


class AttemptLine(Told):
    """Somebody who was asked; `outcome`, `status` and its cost are null where the ledger does not say them. `lines` are
    of one that failed and is taken as charged."""

    provider: str | None
    model: str | None
    outcome: str | None
    status: int | None
    duration_ms: int
    cost_nano: int | None
    cost_usd: str | None
    lines: list[ChargeLine]


class ReceiptOut(Told):
    """What a request cost: the total is the sum of the lines, those of the attempts included, and null where the cost
    of one is not known."""

    object: Literal["receipt"] = "receipt"
    request_id: str
    began_at: datetime
    state: Literal["settled", "released", "estimated"]
    outcome: str
    provider: str | None
    model: str | None
    key_source: str | None
    key_via: str | None
    setting_key: str | None
    catalogue: str | None
    lines: list[ChargeLine]
    attempts: list[AttemptLine]
    dropped: list[str]
    passed_over: Sequence[str] = ()  # better candidates that a budget did not allow
    waited_ms: int | None = None  # a bulk request, for its turn
    unlisted_nano: int | None = None  # in the total and in no line
    unlisted_usd: str | None = None
    currency: Literal["USD"] = "USD"
    cost_nano: int | None
    cost_usd: str | None


class RequestOut(Told):
    """A request that has ended: what was decided, the attempts, and how it ended. Never a prompt, never a key.
    `receipt` is null until the ledger has the row, about a second later; `decision` is null when it is kept no longer,
    or the request did not come so far."""

    object: Literal["request"] = "request"
    id: str
    client_request_id: str | None
    created_at: datetime
    duration_ms: int
    waited_ms: int | None = None  # a bulk request, for its turn
    tenant: str | None
    token: str | None
    endpoint: str
    stream: bool
    outcome: str
    status: int
    fault: str | None
    code: str | None
    passed_over: Sequence[str] = ()  # better candidates that a budget did not allow
    served: Mapping[str, Any]
    attempts: list[Mapping[str, Any]]
    decision: Mapping[str, Any] | None
    receipt: ReceiptOut | None


async def show_request(call: OfCall, request_id: RequestId) -> RequestOut:
    """What was decided for a request of any tenant, kept for a while, and its receipt once the ledger has its row."""

    async def work(at: Operation) -> bytes:
        return await record_of(at.keystore, request_id)

    return RequestOut.model_validate(orjson.loads(await call.run(work, target=request_id)))
