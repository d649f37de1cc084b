"""Stands around each endpoint: what it raises becomes one answer in one shape, or none when an answer has begun."""

import asyncio
from collections.abc import Callable

from gateway.asgi import App, ClientLeft, Receive, Scope, Send, send_body
from gateway.errors import INTERNAL, ApiError, Problem
from gateway.events import Outcome
from gateway.tally import KEY, Tally
from gateway.wording import OPENAI, Wording
from router.reasons import Fault

FAREWELL_S = 1.0  # for the last words to an answer that is broken off
SHUTTING_DOWN = Problem(
    503,
    "shutting_down",
    "The gateway is shutting down and could not finish this request. Send it again.",
    Fault.GATEWAY,
    caller_may_retry=True,
    headers={"connection": "close"},
)
CLIENT_CLOSED = 499  # nginx's number for a client that left; nobody receives it, logs and metrics count it


class Guard:
    """Wraps an endpoint; `report` takes, with the request's id, an unexpected exception or an ApiError that is the
    gateway's own fault."""

    def __init__(self, endpoint: App, report: Callable[[str, BaseException], None], wording: Wording = OPENAI) -> None:
        self._endpoint = endpoint
        self._report = report
        self._wording = wording

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        if self._wording.id_header is not None:
            tally.headers[self._wording.id_header] = tally.client_request_id or tally.request_id
        try:
            await self._endpoint(scope, receive, send)
        except ApiError as error:
            if error.problem.fault is Fault.GATEWAY:
                self._report(tally.request_id, error)
            await self._refuse(error.problem, scope, send, tally)
        except ClientLeft:
            tally.outcome = Outcome.CLIENT_LEFT
            tally.status = tally.status or CLIENT_CLOSED
            tally.fault = Fault.CALLER.value
        except asyncio.CancelledError:  # the server stops, and this request outlived the time to end
            await self._break_off(scope, send, tally)
            raise
        except Exception as error:  # noqa: BLE001 - the last door: nothing may leave as a traceback
            self._report(tally.request_id, error)
            await self._refuse(INTERNAL, scope, send, tally)

    async def _refuse(self, problem: Problem, scope: Scope, send: Send, tally: Tally) -> None:
        tally.note(problem)
        if tally.begun:  # too late for another status: the server breaks the connection off on the unfinished answer
            return
        public_id = tally.client_request_id or tally.request_id
        body, head = self._wording.body(problem, public_id), scope["method"] == "HEAD"
        await send_body(send, problem.status, body, headers=problem.response_headers(), head=head)

    async def _break_off(self, scope: Scope, send: Send, tally: Tally) -> None:
        """Tell whoever still waits that the gateway stops. In a task of its own: a second cancellation cannot stop it,
        and a client that does not read cannot hold it up."""
        if tally.ended:
            return
        tally.outcome = None
        tally.note(SHUTTING_DOWN)
        words = asyncio.ensure_future(self._last_words(scope, send, tally))
        await asyncio.wait({words}, timeout=FAREWELL_S)
        if words.done():
            words.exception()  # seen: there is nobody left to tell
        else:
            words.cancel()

    async def _last_words(self, scope: Scope, send: Send, tally: Tally) -> None:
        if not tally.begun:
            await self._refuse(SHUTTING_DOWN, scope, send, tally)
        elif tally.stream:  # the SDKs raise on this event; no end mark follows
            event = self._wording.event(SHUTTING_DOWN)
            await send({"type": "http.response.body", "body": event, "more_body": False})
