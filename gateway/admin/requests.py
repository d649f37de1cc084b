"""What was decided for a request, over HTTP, for the operator."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import orjson

from gateway.admin.calls import OfCall
from gateway.admin.parts import RequestId
from gateway.admin.shapes import Told
from gateway.control.gate import Operation


class RequestOut(Told):
    """A request that has ended: what was decided, the attempts, and how it ended. Never a prompt, never a key."""

    object: Literal["request"] = "request"
    id: str
    client_request_id: str | None
    created_at: datetime
    duration_ms: int
    tenant: str | None
    token: str | None
    endpoint: str
    stream: bool
    outcome: str
    status: int
    fault: str | None
    code: str | None
    served: Mapping[str, Any]
    attempts: list[Mapping[str, Any]]
    decision: Mapping[str, Any]


async def show_request(call: OfCall, request_id: RequestId) -> RequestOut:
    """What was decided for a request of any tenant, kept for a while."""

    async def work(at: Operation) -> bytes:
        return (await at.keystore.decisions.get(request_id)).document

    return RequestOut.model_validate(orjson.loads(await call.run(work, target=request_id)))
