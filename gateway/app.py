"""The application: the data plane's places over the services, the control plane behind them, every answer in one shape.

The data plane's endpoints are plain ASGI. The control plane is FastAPI, which takes longer to import and to build than
all the rest of a start: it is made when it is first asked for. `/v1/x` and `/v1/x/` are both served, and each also
without `/v1`.
"""

import asyncio

from gateway.asgi import App, Receive, Scope, Send
from gateway.browsers import Browsers
from gateway.budget_endpoint import Budgets
from gateway.calls import Calls, CountTokens
from gateway.catalogue_endpoints import Models, Requests, Route
from gateway.edge import Edge
from gateway.fronts import CHAT_FRONT, COMPLETIONS_FRONT, EMBEDDINGS_FRONT, MESSAGES_FRONT, RESPONSES_FRONT
from gateway.guard import Guard
from gateway.ops import Live, Ready
from gateway.paths import CONTROL, Paths, Place, wording_of
from gateway.services import Services
from gateway.usage_endpoint import Usage


def build_app(services: Services) -> App:
    """The ASGI application for `services`."""
    app: App = Paths(places(services), ControlPlane(services))
    return Edge(
        Browsers(app, services.origins, closed=CONTROL) if services.origins else app,
        events=services.events,
        metrics=services.metrics,
        catalogue=lambda: services.books.current.catalogue.version,
    )


class ControlPlane:
    """The admin API and self-service, imported and built in a thread with the first request for them; those that come
    meanwhile wait for the same."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._app: App | None = None
        self._making: asyncio.Task[App] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._app or await self._made())(scope, receive, send)

    async def _made(self) -> App:
        self._making = self._making or asyncio.create_task(asyncio.to_thread(self._make))
        try:
            self._app = await asyncio.shield(self._making)
        except Exception:
            self._making = None  # the next request tries again
            raise
        return self._app

    def _make(self) -> App:
        from gateway.admin.app import control_app

        return control_app(self._services)


def places(services: Services) -> list[Place]:
    """The data plane's."""
    models = Models(services)
    table: list[tuple[str, str, App]] = [
        ("/chat/completions", "POST", Calls(services, CHAT_FRONT)),
        ("/completions", "POST", Calls(services, COMPLETIONS_FRONT)),
        ("/embeddings", "POST", Calls(services, EMBEDDINGS_FRONT)),
        ("/responses", "POST", Calls(services, RESPONSES_FRONT)),
        ("/messages", "POST", Calls(services, MESSAGES_FRONT)),
        ("/messages/count_tokens", "POST", CountTokens(services)),
        ("/models", "GET", models),
        ("/models/{model_id:path}", "GET", models),
        ("/route", "POST", Route(services)),
        ("/requests/{request_id}", "GET", Requests(services)),
        ("/usage", "GET", Usage(services)),
        ("/budgets", "GET", Budgets(services)),
    ]
    found = [Place(path, "GET", Live()) for path in ("/", "/livez", "/healthz")]
    found.append(Place("/readyz", "GET", Ready(services)))
    for path, method, endpoint in table:
        guarded = Guard(endpoint, services.report, wording_of(path))
        for prefix in ("/v1", ""):
            found.append(Place(prefix + path, method, guarded))
            if not path.endswith(":path}"):
                found.append(Place(prefix + path + "/", method, guarded))
    return found
