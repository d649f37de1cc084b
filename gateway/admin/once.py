"""`Idempotency-Key`: a write that is sent twice is done once.

Owns what is kept of an answer: never a field that is shown once. Must not know how it is kept (keystore.idempotency).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import orjson

from gateway.admin.calls import Call
from gateway.admin.problems import invalid
from gateway.asgi import Scope, headers_named
from gateway.control.actions import ACTIONS
from gateway.errors import ApiError
from gateway.idempotency_key import HEADER, WELL_FORMED
from gateway.tally import KEY
from keystore.errors import DatabaseUnavailable, KeystoreError
from keystore.idempotency import Stored, Ticket


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `headers` are those of its own, `replayed` when the request was done before."""

    status: int
    body: bytes
    replayed: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Once:
    """The idempotency of one call to the route `path`. `secret` are the fields that are shown once."""

    call: Call
    path: str
    secret: tuple[str, ...]

    async def answer(self, scope: Scope, raw: bytes, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of `work`, or the one that the same request had. What was refused may be asked again with the same
        key."""
        key = self._key(scope)
        if key is None:
            return await work()
        store, actor = self.call.services.keystore.idempotency, self.call.actor
        asked = (scope["method"], self.path, *map(str, sorted(scope["path_params"].items())), *_words(scope, raw))
        begun = await store.begin((actor.kind, actor.name, self.call.action), key, asked)
        if isinstance(begun, Stored):
            return Answer(begun.status, begun.result.encode(), replayed=True)
        try:
            answer = await work()
        except DatabaseUnavailable:  # whether it was done is not known: the key stays taken for a while
            raise
        except (KeystoreError, ApiError):
            await store.forget(begun)
            raise
        await self._keep(begun, answer, scope)
        return answer

    def _key(self, scope: Scope) -> str | None:
        sent = headers_named(scope, HEADER)
        if not sent or not ACTIONS[self.call.action].writes:
            return None
        if len(sent) > 1 or not WELL_FORMED.fullmatch(sent[0]):
            rule = "it must be one text of 1 to 255 printable ASCII characters"
            raise ApiError(invalid([{"field": HEADER, "rule": rule}]))
        return sent[0]

    async def _keep(self, ticket: Ticket, answer: Answer, scope: Scope) -> None:
        """A result that cannot be kept is told to the log; the operation is done all the same."""
        shown = orjson.loads(answer.body)
        if self.secret:
            shown |= dict.fromkeys(self.secret) | {"replayed": True}
        try:
            await self.call.services.keystore.idempotency.finish(ticket, answer.status, orjson.dumps(shown).decode())
        except KeystoreError as error:
            self.call.services.report(scope[KEY].request_id, error)


def _words(scope: Scope, raw: bytes) -> tuple[str, str]:
    return scope.get("query_string", b"").decode("latin-1"), raw.decode("utf-8", "replace")
