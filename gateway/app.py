"""The application: one list of routes over the services, and every answer in one shape.

The data plane's endpoints are plain ASGI inside FastAPI; FastAPI itself is for the admin API and self-service.
No path is answered with a redirect: an SDK would follow it, so `/v1/x` and `/v1/x/` are both served, and each also
without `/v1`.
"""

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as PathRoute

from gateway.admin.problems import refuse_invalid
from gateway.admin.routes import control_routes
from gateway.asgi import App, Receive, Scope, Send
from gateway.browsers import Browsers
from gateway.calls import Calls, CountTokens
from gateway.catalogue_endpoints import Models, Requests, Route
from gateway.edge import Edge
from gateway.errors import Problem
from gateway.fronts import CHAT_FRONT, COMPLETIONS_FRONT, EMBEDDINGS_FRONT, MESSAGES_FRONT, RESPONSES_FRONT
from gateway.guard import Guard
from gateway.ops import Live, Ready
from gateway.services import Services
from gateway.tally import KEY, Tally
from gateway.wording import ANTHROPIC, OPENAI, RESPONSES, Wording
from router.reasons import Fault

WORDINGS: Final = {"messages": ANTHROPIC, "responses": RESPONSES}
CONTROL: Final = frozenset({"admin", "keys"})  # parts of a path


def build_app(services: Services) -> App:
    """The ASGI application for `services`."""
    inner = FastAPI(
        title="Wardgate",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={HTTPException: _http_problem, RequestValidationError: refuse_invalid},
    )
    routes = _routes(services)
    inner.router.routes.extend(routes)
    inner.router.routes.extend(control_routes(services))
    app: App = _Straight(inner, routes)
    return Edge(
        Browsers(app, services.origins, closed=CONTROL) if services.origins else app,
        events=services.events,
        metrics=services.metrics,
        catalogue=lambda: services.books.current.catalogue.version,
    )


class _Straight:
    """Hands a request for a fixed path of the data plane to its endpoint; all others take FastAPI's way, which costs a
    request what all the rest of the gateway does."""

    def __init__(self, otherwise: App, routes: Sequence[PathRoute]) -> None:
        self.otherwise = otherwise
        fixed = [route for route in routes if not route.param_convertors]
        self._endpoints = {(method, route.path): route.app for route in fixed for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = (scope.get("method", ""), scope.get("path", ""))
        await self._endpoints.get(asked, self.otherwise)(scope, receive, send)


def _routes(services: Services) -> list[PathRoute]:
    models = Models(services)
    table: list[tuple[str, list[str], App]] = [
        ("/chat/completions", ["POST"], Calls(services, CHAT_FRONT)),
        ("/completions", ["POST"], Calls(services, COMPLETIONS_FRONT)),
        ("/embeddings", ["POST"], Calls(services, EMBEDDINGS_FRONT)),
        ("/responses", ["POST"], Calls(services, RESPONSES_FRONT)),
        ("/messages", ["POST"], Calls(services, MESSAGES_FRONT)),
        ("/messages/count_tokens", ["POST"], CountTokens(services)),
        ("/models", ["GET"], models),
        ("/models/{model_id:path}", ["GET"], models),
        ("/route", ["POST"], Route(services)),
        ("/requests/{request_id}", ["GET"], Requests(services)),
    ]
    routes = [PathRoute("/", Live(), methods=["GET"]), PathRoute("/livez", Live(), methods=["GET"])]
    routes.append(PathRoute("/healthz", Live(), methods=["GET"]))
    routes.append(PathRoute("/readyz", Ready(services), methods=["GET"]))
    for path, methods, endpoint in table:
        guarded = Guard(endpoint, services.report, WORDINGS.get(path.split("/")[1], OPENAI))
        for prefix in ("/v1", ""):
            routes.append(PathRoute(prefix + path, guarded, methods=methods))
            if not path.endswith(":path}"):
                routes.append(PathRoute(prefix + path + "/", guarded, methods=methods))
    return routes


async def _http_problem(request: Request, error: Exception) -> Response:
    """404 and 405 of the router itself, in the shape of the path's wire."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    method, path = request.method, _shown(request.scope["path"])
    messages = {
        404: (
            "unknown_path",
            f"There is nothing at {method} {path}. Chat completions are at POST /v1/chat/completions.",
        ),
        405: ("method_not_allowed", f"{path[:1].upper()}{path[1:]} does not take {method}; see the `allow` header."),
    }
    code, message = messages.get(error.status_code, ("invalid_request", str(error.detail)))
    problem = Problem(error.status_code, code, message, Fault.CALLER, headers=dict(error.headers or {}))
    tally: Tally = request.scope[KEY]
    tally.note(problem)
    wording, headers = _wording(path), problem.response_headers()
    if wording.id_header is not None:
        headers[wording.id_header] = tally.client_request_id or tally.request_id
    return Response(
        wording.body(problem, tally.request_id),
        status_code=problem.status,
        headers=headers,
        media_type="application/json",
    )


def _wording(path: str) -> Wording:
    return WORDINGS.get(path.strip("/").removeprefix("v1/").split("/")[0], OPENAI)


def _shown(path: str) -> str:
    """The path for a message; one that was meant for the control plane may hold a key, and is not repeated."""
    return "this path" if CONTROL & set(path.casefold().split("/")) else path[:200]
