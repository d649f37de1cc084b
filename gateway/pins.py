"""Which provider keeps what a Responses request refers to: learnt from native answers, for as long as the process runs.

`previous_response_id` and `conversation` name what one provider stored; no other can go on from it. Bounded; the oldest
is forgotten first. Must not know HTTP. Other processes have their own memory: where more than one provider could be
meant and nothing is remembered, the caller is asked to name one, and nothing is sent.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from gateway.chat_request import ChatRequest
from gateway.errors import ApiError, Problem
from gateway.sse import EventReader
from gateway.surface import RESPONSES
from keystore.providers import Registry
from router.aliases import AUTO
from router.decision import Decision
from router.reasons import Fault

MOST: Final = 100_000  # ids of all tenants
MOST_ID: Final = 256  # characters of an id that is remembered
# The fields that refer to something stored, and the error's code where nobody knows whose it is.
REFERENCES: Final[Mapping[str, str]] = {
    "previous_response_id": "previous_response_unknown",
    "conversation": "conversation_unknown",
}


class _Named(msgspec.Struct, gc=False):
    id: str = ""


class _Answer(msgspec.Struct, gc=False):
    id: str = ""
    conversation: _Named | None = None


class _Event(msgspec.Struct, gc=False):
    response: _Answer | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_EVENT: Final = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Pin:
    """Who made it."""

    provider_id: str
    model: str


class Pins:
    """The memory of one process: (tenant id, id of a response or conversation) -> who made it."""

    def __init__(self, most: int = MOST) -> None:
        self._known: OrderedDict[tuple[str, str], Pin] = OrderedDict()
        self._most = most

    def learn(self, tenant_id: str, said: bytes, pin: Pin, *, stream: bool) -> None:
        """Remember the ids in a native answer, or in what came first of a native stream."""
        answer = _begun(said) if stream else _decoded(said)
        if answer is None:
            return
        for name in (answer.id, answer.conversation.id if answer.conversation else ""):
            if 0 < len(name) <= MOST_ID:
                self._known[tenant_id, name] = pin
                self._known.move_to_end((tenant_id, name))
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def of(self, tenant_id: str, request: ChatRequest) -> Pin | None:
        """Who made what this request refers to, where that is known."""
        pins = (self._known.get((tenant_id, name)) for _, name in references(request))
        return next((pin for pin in pins if pin is not None), None)

    def applied(self, tenant_id: str, request: ChatRequest) -> ChatRequest:
        """The request for nobody but who made what it refers to; `auto` is the model that answered then. Whom the
        caller names in `provider.only` stays named: `check` refuses what cannot be both."""
        pin = self.of(tenant_id, request)
        own = request.body.get("provider")
        only = own.get("only") if isinstance(own, dict) else None
        if pin is None or (isinstance(only, list) and pin.provider_id not in only):
            return request
        preferences = {name: value for name, value in own.items() if name != "order"} if isinstance(own, dict) else {}
        body = {**request.body, "provider": {**preferences, "only": [pin.provider_id]}}
        is_auto = request.model.lower().partition(":")[0] == AUTO
        model = f"{pin.provider_id}/{pin.model}" if is_auto else request.model
        return replace(request, model=model, body=body)

    def check(self, tenant_id: str, request: ChatRequest, decision: Decision, registry: Registry) -> None:
        """Raise ApiError 400 where more than one provider could be meant: a guess would be an error of theirs; and
        where the one that is known is not the one that the caller wants."""
        pin = self.of(tenant_id, request)
        if pin is not None:
            if any(candidate.offer.provider_id != pin.provider_id for candidate in decision.ranked):
                raise _kept_elsewhere(references(request)[0][0], pin)
            return
        for field, name in references(request):
            asked = {candidate.offer.provider_id for candidate in decision.ranked}
            might = sorted(provider_id for provider_id in asked if _native(provider_id, registry))
            if len(might) > 1:
                raise _unknown(field, name, might)


def references(request: ChatRequest) -> list[tuple[str, str]]:
    """What a Responses request refers to: field and id."""
    if request.surface is not RESPONSES:
        return []
    found: list[tuple[str, str]] = []
    for field in REFERENCES:
        value = request.asked.get(field)
        name = value.get("id") if isinstance(value, dict) else value
        if isinstance(name, str) and name:
            found.append((field, name))
    return found


def _native(provider_id: str, registry: Registry) -> bool:
    provider = registry.get(provider_id)
    return provider is not None and RESPONSES.native(provider)


def _unknown(field: str, name: str, might: list[str]) -> ApiError:
    message = (
        f"This gateway does not remember who keeps {name[:64]!r}, which `{field}` refers to, and {', '.join(might)} "
        'could be meant. Ask for `model`: "provider/model", or name one in `provider.only`; or send the whole '
        "conversation. An answer that was translated is stored nowhere."
    )
    return ApiError(Problem(400, REFERENCES[field], message, Fault.CALLER, param=field))


def _kept_elsewhere(field: str, pin: Pin) -> ApiError:
    message = f"`{field}` refers to what {pin.provider_id} keeps, and `provider.only` names others; nobody was asked."
    return ApiError(Problem(400, REFERENCES[field], message, Fault.CALLER, param=field))


def _decoded(raw: bytes) -> _Answer | None:
    try:
        return _ANSWER.decode(raw)
    except ValueError:
        return None


def _begun(first: bytes) -> _Answer | None:
    """The response in the first event that holds one."""
    for event in EventReader().feed(first):
        try:
            held = _EVENT.decode(event.data).response
        except ValueError:
            continue
        if held is not None:
            return held
    return None
