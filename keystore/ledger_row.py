"""One row of the ledger: what a request used, what it cost, and who answered.

Owns the row's fields and its form in a journal: JSON in one line. Pure. Must not know where rows are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec
import orjson


class State(StrEnum):
    """What became of the money that a request could cost."""

    RESERVED = "reserved"  # in a journal alone: the request has begun, and may ask somebody
    SETTLED = "settled"  # the provider counted
    RELEASED = "released"  # nothing was used
    ESTIMATED = "estimated"  # something was used, and nobody counted all of it


LOST: Final = "lost"  # the outcome of a request whose process died


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """A request that ended, or in a journal one that began. Tokens as in gateway.events.TokenUsage, None where nobody
    counted; `cost_nano` in whole nano-dollars, None where a class that was used has no price; times in ms."""

    request_id: str
    began_at: datetime
    tenant_id: str
    token_id: str
    endpoint: str
    state: State
    outcome: str
    client_request_id: str | None = None
    stream: bool = False
    model_asked: str | None = None
    provider: str | None = None
    model: str | None = None
    key_source: str | None = None
    key_via: str | None = None
    setting_key: str | None = None
    status: int = 0
    fault: str | None = None
    code: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nano: int | None = None
    catalogue: str | None = None
    attempts: int = 0
    duration_ms: int = 0
    upstream_ms: int = 0
    first_token_ms: int | None = None
    managed_nano: int | None = (
        None  # of cost_nano, with the operator's keys; None: all or none, by key_source. No column
    )
    byok_nano: int | None = None  # where cost_nano is None: what budgets count, as managed_nano. No column
    holds: tuple[
        tuple[str, str, int], ...
    ] = ()  # who holds how much of which budget for it: holder, key, nano. No column
    detail: str = "{}"  # JSON: {"lines": [[class, units, price in dollars, nano-dollars], ...], "attempts": [...]}

    def line(self) -> bytes:
        """JSON without a line end."""
        return orjson.dumps(self)

    @classmethod
    def of_line(cls, line: bytes) -> "LedgerRow":
        """The row of such a line; ValueError when it is none. Fields that are not known are left out."""
        row = _DECODER.decode(line)
        if row.began_at.tzinfo is UTC:
            return row
        try:
            return replace(row, began_at=row.began_at.astimezone(UTC))
        except OverflowError:
            raise ValueError("a time that UTC does not have") from None


def line(row: Mapping[str, object]) -> bytes:
    """The line of a row that is given by its fields' names: those that are left out are as LedgerRow has them."""
    return orjson.dumps(row)


_DECODER: Final = msgspec.json.Decoder(LedgerRow)
