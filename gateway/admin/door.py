"""The door of each route: who calls, may they, what did they send; then FastAPI's handler; then one answer.

Owns the order. The caller is known and admitted before one byte of the body is read, and once more when all of it is
there; a body is read with a limit, as JSON and nothing else, before FastAPI sees it. Must not know what an operation
does.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final
from urllib.parse import parse_qsl

from gateway.admin.calls import CALL, Call, actor_of
from gateway.admin.once import Answer, Once
from gateway.admin.problems import invalid, problem_of, scope_problem
from gateway.asgi import App, Message, Receive, Scope, Send, headers_named, read_body, send_body, while_connected
from gateway.auth import identify_caller
from gateway.control.actions import ACTIONS, Action
from gateway.control.gate import NotAllowed, needed_right
from gateway.errors import ApiError, Problem, bad_request
from gateway.events import Endpoint
from gateway.json_body import parse_object
from gateway.services import Services
from gateway.tally import KEY, Tally
from keystore.errors import KeystoreError
from router.reasons import Fault

MOST_BYTES: Final = 64 * 1024
FIELDS: Final = "wardgate.fields"  # where the names of the models' fields are left for the validation's errors
NOT_JSON: Final = (
    "The body must be one JSON object in UTF-8, with each name once in an object, whole numbers within 64 bits, and at"
    " most 64 levels deep."
)


class Audience(Enum):
    """Whose tokens a route is for: the operator's, tenants', or both; with the label of its requests in the metrics."""

    OPERATORS = Endpoint.ADMIN
    TENANTS = Endpoint.KEYS
    BOTH = "both"

    def takes(self, of_tenant: bool) -> bool:
        return self is Audience.BOTH or of_tenant == (self is Audience.TENANTS)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.KEYS if self is Audience.TENANTS else Endpoint.ADMIN


@dataclass(frozen=True, slots=True)
class Row:
    """One route. `once` are the fields of its answer that are shown once and never kept for a repeated request."""

    method: str
    path: str
    action: str
    handler: Callable[..., Coroutine[Any, Any, object]]
    summary: str
    tag: str
    audience: Audience = Audience.OPERATORS
    status: int = 200
    once: tuple[str, ...] = ()

    @property
    def rule(self) -> Action:
        return ACTIONS[self.action]


@dataclass(frozen=True, slots=True)
class Door:
    """Stands around the handler of one row. `fields` are the names that the models of its query and body have."""

    app: App
    row: Row
    services: Services
    takes_body: bool
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        tally.endpoint = self.row.audience.endpoint
        sent: list[object] = []
        try:
            call = await self._admitted(scope, tally)
            self._check_query(scope)
            raw = await self._body(scope, receive, sent)
            if raw:  # a body may take its time: what was taken away meanwhile is not done
                call = await self._admitted(scope, tally)
            if self.row.rule.writes:  # a write is brought to its end, whether or not somebody waits for the answer
                await self._reply(call, scope, raw, send)
                return
            answering = self._reply(call, scope, raw, send)
            await while_connected(scope, receive, answering, answered=lambda: tally.ended)
        except KeystoreError as error:
            raise ApiError(problem_of(error, sent)) from error  # the log says why, where it is the gateway's fault

    async def _admitted(self, scope: Scope, tally: Tally) -> Call:
        """The caller, who may do this; ApiError 401, 403 or 503."""
        services, row = self.services, self.row
        caller = await identify_caller(scope, services.keystore, services.now())
        tally.token_id, tally.tenant = caller.token_id, caller.tenant.slug if caller.tenant else None
        actor = actor_of(caller, scope)
        here = row.audience.takes(caller.tenant is not None)
        try:
            await services.control.admit(actor, row.action, here=here)
        except NotAllowed:
            raise ApiError(
                self._not_here(caller.tenant is not None, here, needed_right(actor, row.rule).value)
            ) from None
        return Call(services, caller, actor, row.action)

    def _not_here(self, of_tenant: bool, here: bool, right: str) -> Problem:
        if here:
            return scope_problem(right)
        if of_tenant:
            message = "A tenant's token does nothing here; use an admin token (`wardgate token create --kind admin`)."
            return Problem(403, "admin_token_required", message, Fault.CALLER)
        message = "An admin token belongs to no tenant; the keys of a tenant are at /admin/tenants/{tenant}/keys."
        return Problem(403, "tenant_token_required", message, Fault.CALLER)

    def _check_query(self, scope: Scope) -> None:
        """No parameter that has no meaning here, and none twice; ApiError 400."""
        text = scope.get("query_string", b"").decode("latin-1")
        names = [name for name, _ in parse_qsl(text, keep_blank_values=True)]
        known = sorted(self.fields.get("query", ()))
        if set(names) - set(known):
            told = f"known are {', '.join(known)}" if known else "there are none here"
            raise ApiError(invalid([{"field": "query", "rule": f"there is a parameter that is not known; {told}"}]))
        if len(names) > len(set(names)):
            raise ApiError(invalid([{"field": "query", "rule": "a parameter stands twice; send it once"}]))

    async def _body(self, scope: Scope, receive: Receive, sent: list[object]) -> bytes:
        """The body as it came, checked to be JSON that every reader reads alike; `sent` is given what it holds."""
        limits = self.services.limits
        raw = await read_body(scope, receive, limit=MOST_BYTES, timeout_s=limits.body_timeout_s)
        if not raw:
            return b"{}" if self.takes_body else b""
        if not self.takes_body:
            raise bad_request("This takes no body; send none.")
        kinds = headers_named(scope, "content-type")
        if [kind.partition(";")[0].strip().lower() for kind in kinds] != ["application/json"]:
            message = "The body must be sent as `content-type: application/json`."
            raise ApiError(Problem(415, "unsupported_media_type", message, Fault.CALLER))
        try:
            sent.extend(parse_object(raw).values())  # the names are those of the model, or nothing is done
        except ApiError:
            raise bad_request(NOT_JSON, code="invalid_json") from None
        return raw

    async def _reply(self, call: Call, scope: Scope, raw: bytes, send: Send) -> None:
        once = Once(call, self.row.path, self.row.once)
        answer = await once.answer(scope, raw, lambda: self._answer(call, scope, raw))
        replayed = {"idempotency-replayed": "true"} if answer.replayed else {}
        headers = {"cache-control": "no-store", **answer.headers, **replayed}
        await send_body(send, answer.status, answer.body, headers=headers)

    async def _answer(self, call: Call, scope: Scope, raw: bytes) -> Answer:
        """What the handler answers. It must have passed the gate."""
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-type", b"content-length")]
        inner = {
            **scope,
            "headers": [*headers, (b"content-type", b"application/json")],
            CALL: call,
            FIELDS: self.fields,
        }
        kept = _Kept()
        await self.app(inner, _Ready(raw), kept)
        if not call.ran:
            raise RuntimeError(f"the handler of {self.row.action} did not pass the gate")
        return Answer(kept.status, bytes(kept.body), headers=kept.headers)


class _Ready:
    """`receive` of a body that is here already."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    async def __call__(self) -> Message:
        return {"type": "http.request", "body": self._raw, "more_body": False}


class _Kept:
    """`send` that keeps the answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            self.headers = {name: value for name, value in pairs if name != "content-length"}
        else:
            self.body += message.get("body", b"")
