"""The last door: what an endpoint raises, and what a stopping server leaves undone."""

import asyncio
import json
from collections.abc import Callable

import pytest

from gateway.asgi import App, Message, Receive, Scope, Send, send_body
from gateway.edge import _Answer
from gateway.errors import ApiError, Problem
from gateway.events import Endpoint, Outcome
from gateway.guard import Guard
from gateway.tally import KEY, Tally
from router.reasons import Fault

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
AWAY = Problem(503, "keystore_unavailable", "The database is away.", Fault.GATEWAY)


class Call:
    """One request to a guarded endpoint: what was sent, reported and noted."""

    def __init__(self, endpoint: App, *, stuck: bool = False, stream: bool = False) -> None:
        self.tally = Tally("req_1", "POST", 0.0, endpoint=Endpoint.CHAT_COMPLETIONS, stream=stream)
        self.sent: list[Message] = []
        self.reported: list[BaseException] = []
        self.stuck = stuck
        self._guard = Guard(endpoint, lambda _id, error: self.reported.append(error))

    async def __call__(self) -> None:
        scope: Scope = {"method": "POST", "headers": [], KEY: self.tally}
        await self._guard(scope, self._receive, _Answer(scope, self.tally, self._send))

    async def _receive(self) -> Message:
        raise AssertionError

    async def _send(self, message: Message) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self.sent.append(message)

    async def cancelled(self) -> None:
        task = asyncio.create_task(self())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @property
    def outcome(self) -> tuple[Outcome, str | None, str | None]:
        event = self.tally.completed(1.0)
        return event.outcome, event.fault, event.code


def endpoint(*messages: Message, then: Callable[[], BaseException] | None = None) -> App:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if then is None:
            await asyncio.Event().wait()
        else:
            raise then()

    return serve


async def test_plain_request_that_outlives_the_drain_is_told() -> None:
    call = Call(endpoint())
    await call.cancelled()
    start, body = call.sent
    headers = dict(start["headers"])
    assert (start["status"], headers[b"x-should-retry"], headers[b"connection"]) == (503, b"true", b"close")
    error = json.loads(body["body"])["error"]
    assert (error["code"], error["fault"]) == ("shutting_down", "gateway")
    assert call.outcome == (Outcome.ERROR, "gateway", "shutting_down")


async def test_stream_that_outlives_the_drain_is_told_in_the_stream() -> None:
    call = Call(
        endpoint(START, {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}), stream=True
    )
    await call.cancelled()
    last = call.sent[-1]
    assert last["more_body"] is False and last["body"].startswith(b"data: {") and last["body"].endswith(b"}\n\n")
    assert json.loads(last["body"][6:])["error"]["code"] == "shutting_down"
    assert call.outcome == (Outcome.ERROR, "gateway", "shutting_down")


async def test_answer_that_had_ended_is_left_alone() -> None:
    call = Call(endpoint(START, {"type": "http.response.body", "body": b""}))
    await call.cancelled()
    assert len(call.sent) == 2 and call.outcome == (Outcome.OK, None, None)


async def test_client_that_does_not_read_holds_nothing_up() -> None:
    call = Call(endpoint(), stuck=True)
    async with asyncio.timeout(10):
        await call.cancelled()
    assert call.sent == [] and call.outcome == (Outcome.ERROR, "gateway", "shutting_down")


async def test_fault_of_the_gateway_is_reported_and_other_refusals_are_not() -> None:
    cause = OSError("no route to the database")

    def away() -> ApiError:
        error = ApiError(AWAY)
        error.__cause__ = cause
        return error

    call = Call(endpoint(then=away))
    await call()
    assert [error.__cause__ for error in call.reported] == [cause] and call.sent[0]["status"] == 503
    call = Call(endpoint(then=lambda: ApiError(Problem(400, "x", "x", Fault.CALLER))))
    await call()
    assert call.reported == [] and call.sent[0]["status"] == 400


async def test_answer_that_nobody_ended_is_an_error_and_one_that_ended_is_ok() -> None:
    tally = Tally("req_1", "GET", 0.0)
    assert (tally.completed(1.0).outcome, tally.completed(1.0).fault) == (Outcome.ERROR, "gateway")
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await send_body(_Answer({"headers": []}, tally, send), 200, b"{}")
    assert (tally.completed(1.0).outcome, tally.completed(1.0).fault) == (Outcome.OK, None)
