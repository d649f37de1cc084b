"""Tells in an answer what it cost, when the caller asks for it with `usage: {"include": true}` (OpenRouter's field).

Owns the shape of `usage.cost`, `usage.is_byok` and `usage.cost_details`. Must not know how a cost is found.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.attempt_costs import FailedCost
from gateway.attempts import OpenStream
from gateway.errors import Problem
from gateway.events import TokenUsage
from gateway.openai_shape import encode
from gateway.seen import parse
from gateway.sse import EventReader
from gateway.streams import event
from gateway.tally import Tally
from gateway.upstream import StreamReply
from keystore.money import usd_of
from router.charge import Charge, Line
from router.query import KeySource

Priced = Callable[[TokenUsage | None], Charge | None]
"""What such usage costs at the model that serves."""


def told(body: bytes, charge: Charge | None, tally: Tally) -> bytes:
    """A plain answer with its cost in `usage`."""
    answer = parse(body)
    if not isinstance(answer, dict):
        return body
    usage = answer.get("usage")
    answer["usage"] = (usage if isinstance(usage, dict) else {}) | _cost(charge, tally)
    return encode(answer)


def _cost(charge: Charge | None, tally: Tally) -> dict[str, object]:
    failed = [] if tally.account is None else tally.account.failed
    parts = [None if charge is None else charge.nano, *(one.nano for one in failed)]
    details: dict[str, object] = {
        "price_release": tally.catalogue,
        "lines": [_line(line) for line in (() if charge is None else charge.lines)],
    }
    if failed:
        details["failed_attempts"] = [_failed(one) for one in failed]
    return {
        "cost": None if None in parts else _dollars(sum(part or 0 for part in parts)),
        "is_byok": tally.key_source == KeySource.BYOK,
        "cost_details": details,
    }


def _failed(cost: FailedCost) -> dict[str, object]:
    """An attempt that gave no answer and is taken as charged; `attempt` counts from 1."""
    return {
        "attempt": cost.place + 1,
        "lines": [_line(line) for line in (() if cost.charge is None else cost.charge.lines)],
        "cost": None if cost.nano is None else _dollars(cost.nano),
    }


def _line(line: Line) -> dict[str, object]:
    return {
        "class": line.price_class,
        "units": str(line.units),
        "price": None if line.price is None else orjson.Fragment(format(line.price, "f")),
        "cost": None if line.nano is None else _dollars(line.nano),
    }


def _dollars(nano: int) -> orjson.Fragment:
    """A number as it is, which no float is."""
    return orjson.Fragment(format(usd_of(nano), "f"))


@dataclass(frozen=True, slots=True)
class _Telling:
    """A stream whose usage chunk tells the cost as well."""

    stream: OpenStream
    priced: Priced
    tally: Tally

    @property
    def usage(self) -> TokenUsage | None:
        return self.stream.reply.usage

    @property
    def produced(self) -> int:
        return self.stream.reply.produced

    @property
    def reasoned(self) -> bool:
        return self.stream.reply.reasoned

    @property
    def request_id(self) -> str | None:
        return self.stream.reply.request_id

    def broke(self, problem: Problem) -> bytes:
        return self.stream.reply.broke(problem)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.stream.rest:
            yield self.said(piece)

    def said(self, piece: bytes) -> bytes:
        """A piece, its usage chunk with the cost; whatever tells no usage stays as it came."""
        if b'"usage"' not in piece:
            return piece
        whole = EventReader().feed(piece + b"\n\n")  # the last of a stream may lack its empty line
        documents = [(one.data, parse(one.data)) for one in whole]
        return b"".join(self._event(data, document) for data, document in documents)

    def _event(self, data: bytes, document: Any) -> bytes:
        usage = document.get("usage") if isinstance(document, dict) else None
        if not isinstance(usage, dict):
            return event(data)
        return event(encode(document | {"usage": usage | _cost(self.priced(self.usage), self.tally)}))

    async def aclose(self) -> None:
        await self.stream.reply.aclose()


def telling(stream: OpenStream, priced: Priced, tally: Tally) -> OpenStream:
    """The begun stream, with the cost in its usage chunk."""
    reply: StreamReply = (found := _Telling(stream, priced, tally))
    return OpenStream(found.said(stream.first), aiter(reply), reply)
