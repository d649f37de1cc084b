"""What is kept of one request: the decision that was made, the attempts, and how it ended. JSON, never a prompt.

Owns the shape of what `GET /v1/requests/{id}` answers. Made from events alone, so that serving a request knows nothing
of it. Must not know where it is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson

from gateway.events import AttemptEnded, Decided, RequestCompleted
from gateway.logs import redact
from gateway.scrub import KEY_SHAPES
from router.decision import Decision
from router.kept import kept_json


@dataclass(slots=True)
class Draft:
    """A request that is being served."""

    decided: Decided
    attempts: list[AttemptEnded] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """About how many small records it holds in memory."""
        return 1 + self.decided.decision.considered


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended, at the time `at`."""

    draft: Draft
    completed: RequestCompleted
    at: datetime

    @property
    def began(self) -> datetime:
        """When it came."""
        return self.at - timedelta(seconds=self.completed.duration_s)


class Told:
    """The decisions of one batch as JSON: the same decision is told once, however many requests it was made for."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[Decision, bytes]] = {}

    def of(self, decision: Decision) -> bytes:
        """The JSON of this very decision, and the end of its record."""
        known = self._known.get(id(decision))
        if known is None:
            known = self._known[id(decision)] = (decision, orjson.dumps(kept_json(decision)) + b"}")
        return known[1]


def document(ended: Ended, told: Told) -> tuple[bytes, ...]:
    """The record as JSON, in pieces of which the last may be another record's too. A caller may have written a key
    where a model's name belongs: then it is masked."""
    done, decided = ended.completed, ended.draft.decided
    record = {
        "object": "request",
        "id": done.request_id,
        "client_request_id": done.client_request_id,
        "created_at": ended.began.isoformat(),
        "duration_ms": _ms(done.duration_s),
        "waited_ms": None if done.waited_s is None else _ms(done.waited_s),
        "tenant": done.tenant,
        "token": done.token_id,
        "endpoint": done.endpoint,
        "stream": done.stream,
        "outcome": done.outcome,
        "status": done.status,
        "fault": done.fault,
        "code": done.code,
        "passed_over": done.passed_over,
        "served": _served(done),
        "attempts": _attempts(ended.draft.attempts),
    }
    said = f"{decided.decision.query.model} {decided.decision.asked} {done.client_request_id or ''}"
    if KEY_SHAPES.search(said):
        return (orjson.dumps(redact(record | {"decision": kept_json(decided.decision)})),)
    return orjson.dumps(record)[:-1] + b',"decision":', told.of(decided.decision)


def _served(done: RequestCompleted) -> dict[str, object]:
    """What the answer's headers say of who was asked last; a stream's cost too, which no header could."""
    return {
        "provider": done.provider,
        "model": done.model,
        "key": None if done.key_source is None else f"{done.key_source}:{done.key_via}",
        "key_label": done.key_label,
        "key_former": done.key_former,
        "cost_usd": None if done.cost_usd is None else format(done.cost_usd, "f"),
        "catalogue": done.catalogue,
    }


def _attempts(attempts: Sequence[AttemptEnded]) -> list[dict[str, object]]:
    return [
        {
            "provider": one.provider,
            "model": one.model,
            "outcome": one.outcome,
            "status": one.status,
            "duration_ms": _ms(one.duration_s),
            "key_label": one.key_label,
            "key_former": one.key_former,
            "provider_request_id": one.provider_request_id,
        }
        for one in attempts
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
