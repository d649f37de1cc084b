"""One request from its head to its answer, as a straight line: read, check the key, read the question, choose the
behaviour, perform it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.sandbox import openai_wire
from gateway.sandbox.answers import Question, compose, words
from gateway.sandbox.behaviours import HEADER, NORMAL, Behaviour, BehaviourError, in_message, in_model, parse
from gateway.sandbox.exchange import Exchange
from gateway.sandbox.keys import KeyCheck
from gateway.sandbox.performance import Performance, Reply, json_reply
from gateway.sandbox.routes import Operation
from gateway.sandbox.script import Caller, Script
from gateway.sandbox.visit import Visit
from gateway.sandbox.wire import Fault, Path, RequestFaultError, refuse

MODELS_SINCE = 1_767_225_600  # 2026-01-01: `created` of the models
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
REDIRECT = 307
UNAUTHORISED = 401
BAD_GATEWAY = 502


@dataclass(frozen=True, slots=True)
class House:
    """What is the same for every request of one sandbox."""

    keys: KeyCheck
    gap_s: float
    hold_s: float
    models: tuple[str, ...]
    clock: Callable[[], float]  # seconds since 1970
    script: Script


@dataclass(frozen=True, slots=True)
class Turn:
    """One request's turn. `note` writes to its record in the journal."""

    house: House
    exchange: Exchange
    visit: Visit
    number: int
    note: Callable[..., None]

    async def take(self) -> None:
        """Answer the request."""
        raw = await self.exchange.read()
        self.note(raw=raw)
        try:
            refused = self._refusal()
            if refused is not None:
                await self._performance(NORMAL).reply(refused)
                return
            await self._answer(raw)
        except RequestFaultError as error:
            await self._performance(NORMAL).reply(self._fault(error.fault))
        except BehaviourError as error:
            await self._performance(NORMAL).reply(self._fault(Fault(400, str(error), "sandbox_order")))

    def _refusal(self) -> Reply | None:
        """The answer to what is decided without the body: a wrong path, method or key."""
        visit, wire = self.visit, self.visit.route.wire
        if visit.route.operation is Operation.UNKNOWN:
            raise refuse(f"Invalid URL ({visit.method} {visit.path})", status=404)
        if visit.route.operation is Operation.WRONG_METHOD:
            raise refuse(f"Not allowed to {visit.method} on {visit.path}", status=405)
        if visit.route.operation is Operation.GREETING:
            return json_reply(200, {"sandbox": "wardgate", "wires": ["openai", "anthropic", "gemini"]})
        if self.house.keys.accepts(visit.key):
            return None
        status, body = wire.key_refused(visit.key)
        return json_reply(status, body, wire.headers(self.number))

    async def _answer(self, raw: bytes) -> None:
        match self.visit.route.operation:
            case Operation.CHAT:
                question = self._question(_json_object(raw))
                await self._perform(question.model, question.said, question)
            case Operation.COUNT_TOKENS:
                question = self._question({**_json_object(raw), "max_tokens": 1})  # which alone a count has no need of
                await self._perform(question.model, question.said, {"input_tokens": words(question.texts)})
            case Operation.EMBEDDINGS:
                body = _json_object(raw)
                await self._perform(openai_wire.model_of(body), "", openai_wire.embeddings(body))
            case Operation.MODELS:
                await self._perform("", "", openai_wire.models(self.house.models, MODELS_SINCE))
            case _:
                await self._perform(self.visit.route.model, "", self._model_entry())

    def _question(self, body: Mapping[str, Any]) -> Question:
        route = self.visit.route
        return route.wire.read(body, Path(route.model, route.stream, self.visit.headers, self.visit.query))

    def _model_entry(self) -> dict[str, Any]:
        model = self.visit.route.model
        if model not in self.house.models:
            raise refuse(f"The model '{model}' does not exist", param="model", code="model_not_found", status=404)
        return openai_wire.model_entry(model, MODELS_SINCE)

    async def _perform(self, model: str, said: str, what: Question | dict[str, Any]) -> None:
        """Answer `what` (a question, or the body that is the answer) as it is ordered for this request."""
        behaviour = self._behaviour(model, said)
        self.note(model=model, behaviour=behaviour.to_text())
        performance = self._performance(behaviour)
        await performance.begin()
        ordered = self._ordered_reply(behaviour)
        if ordered is not None:
            await performance.reply(ordered)
        elif isinstance(what, Question):
            await self._speak(performance, what)
        else:
            await performance.reply(json_reply(200, what, self._headers(behaviour)))

    async def _speak(self, performance: Performance, question: Question) -> None:
        wire, behaviour, headers = self.visit.route.wire, performance.behaviour, self._headers(performance.behaviour)
        answer = compose(question, behaviour, number=self.number, created=int(self.house.clock()))
        if question.stream:
            events = wire.stream(answer, include_usage=question.include_usage)
            error = wire.stream_error(Fault(behaviour.status or 500, behaviour.message, behaviour.code))
            await performance.stream(events, headers, error)
        else:
            await performance.reply(json_reply(200, wire.whole(answer), headers, tokens=answer.output_tokens))

    def _behaviour(self, model: str, said: str) -> Behaviour:
        """The order for this request: of the script, else of the header, else of the message, else of the model."""
        scripted = self.house.script.next_for(Caller(self.visit.route.wire.name, model, self.visit.key.text))
        if scripted is not None:
            return scripted
        if (order := self.visit.headers.get(HEADER)) is not None:
            return parse(order)
        return in_message(said) or in_model(model) or NORMAL

    def _ordered_reply(self, behaviour: Behaviour) -> Reply | None:
        """The reply of an order that leaves no room for an answer."""
        headers = tuple(self._headers(behaviour))
        if behaviour.redirect:
            return Reply(behaviour.status or REDIRECT, (*headers, ("location", behaviour.redirect)), b"")
        if behaviour.html:
            return Reply(behaviour.status or BAD_GATEWAY, (*headers, ("content-type", "text/html")), PAGE)
        if behaviour.status is None or behaviour.error_in_stream_after is not None:
            return None
        return json_reply(behaviour.status, self._ordered_error(behaviour, behaviour.status), headers)

    def _ordered_error(self, behaviour: Behaviour, status: int) -> dict[str, Any]:
        wire, key = self.visit.route.wire, self.visit.key
        if behaviour.echo_key:
            return wire.error(Fault(status, f"Incorrect API key provided: {key.text}", behaviour.code))
        refusal, body = wire.key_refused(key)
        if status == refusal == UNAUTHORISED and behaviour.message is None and behaviour.code is None:
            return body
        return wire.error(Fault(status, behaviour.message, behaviour.code))

    def _headers(self, behaviour: Behaviour) -> list[tuple[str, str]]:
        """The wire's own headers and the ordered ones."""
        ordered = [("retry-after", behaviour.retry_after), ("retry-after-ms", behaviour.retry_after_ms)]
        if behaviour.set_cookie:
            ordered.append(("set-cookie", f"sandbox_session={self.visit.key.sha256[:12]}; Path=/; HttpOnly"))
        own = self.visit.route.wire.headers(self.number)
        return own + [(name, value) for name, value in ordered if value is not None]

    def _fault(self, fault: Fault) -> Reply:
        wire = self.visit.route.wire
        return json_reply(fault.status, wire.error(fault), wire.headers(self.number))

    def _performance(self, behaviour: Behaviour) -> Performance:
        gap_s = self.house.gap_s if behaviour.gap is None else behaviour.gap
        return Performance(self.exchange, behaviour, self.note, gap_s, self.house.hold_s)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise refuse("We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise refuse("The body of your request must be a JSON object.")
    return body
