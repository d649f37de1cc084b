"""Stands around each endpoint: what it raises becomes one answer in one shape, or none when an answer has begun."""

from collections.abc import Callable

from gateway.asgi import App, ClientLeft, Receive, Scope, Send, send_body
from gateway.errors import INTERNAL, ApiError, Problem
from gateway.events import Outcome
from gateway.tally import KEY, Tally
from router.reasons import Fault

CLIENT_CLOSED = 499  # nginx's number for a client that left; nobody receives it, logs and metrics count it


class Guard:
    """Wraps an endpoint; `report` takes an unexpected exception with the request's id."""

    def __init__(self, endpoint: App, report: Callable[[str, BaseException], None]) -> None:
        self._endpoint = endpoint
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        try:
            await self._endpoint(scope, receive, send)
        except ApiError as error:
            await _refuse(error.problem, scope, send, tally)
        except ClientLeft:
            tally.outcome = Outcome.CLIENT_LEFT
            tally.status = tally.status or CLIENT_CLOSED
            tally.fault = Fault.CALLER.value
        except Exception as error:  # noqa: BLE001 - the last door: nothing may leave as a traceback
            self._report(tally.request_id, error)
            await _refuse(INTERNAL, scope, send, tally)


async def _refuse(problem: Problem, scope: Scope, send: Send, tally: Tally) -> None:
    tally.note(problem)
    if tally.begun:  # too late for another status: the server breaks the connection off on the unfinished answer
        return
    head = scope["method"] == "HEAD"
    await send_body(send, problem.status, problem.body(), headers=problem.response_headers(), head=head)
