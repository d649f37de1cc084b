"""`GET /v1/budgets`: what may still be spent with the caller's token."""

import orjson

from gateway.admin.problems import problem_of
from gateway.asgi import Receive, Scope, Send, send_body
from gateway.budgeting.telling import over, states_of, told
from gateway.errors import ApiError, bad_request
from gateway.events import Endpoint
from gateway.receiving import identify
from gateway.services import Services
from gateway.tally import KEY, Tally
from keystore.errors import DatabaseUnavailable


class Budgets:
    """A plain ASGI endpoint: the budgets that the token is under, its plan's and its tenant's too. Nothing that is sent
    names a tenant or a token."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        tally.endpoint = Endpoint.BUDGETS
        services = self._services
        admitted = await identify(scope, services, tally)
        if scope.get("query_string"):
            raise bad_request("This takes no query parameters: the tenant and the token are those of the caller.")
        plans = services.books.current.plans
        try:
            states = await states_of(services.keystore, admitted.tenant, plans, services.now())
        except DatabaseUnavailable as error:
            raise ApiError(problem_of(error)) from error
        mine = [{"object": "budget"} | told(state) for state in over(states, tally.token_id or "")]
        body = orjson.dumps({"object": "list", "data": mine}, option=orjson.OPT_UTC_Z)
        headers = {"cache-control": "no-store"}
        await send_body(send, 200, body, headers=headers, head=scope["method"] == "HEAD")
