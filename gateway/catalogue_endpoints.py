"""What a tenant may ask about itself without spending: `GET /v1/models[/{id}]`, `POST /v1/route`, and
`GET /v1/requests/{id}`: the decision that was made, and its receipt."""

import orjson

from gateway.admin.problems import problem_of
from gateway.asgi import Receive, Scope, Send, send_body
from gateway.deciding import usable_offers
from gateway.errors import ApiError, Problem
from gateway.events import Endpoint
from gateway.fronts import CHAT_FRONT
from gateway.receipts import record_of
from gateway.receiving import admit_uncalled, decided, identify, keyring_of, receive_request
from gateway.services import Services
from gateway.tally import KEY, Tally
from keystore.errors import DatabaseUnavailable, DecisionUnknown
from router.catalogue import Catalogue, Offer
from router.explain import to_json
from router.reasons import Fault


class Models:
    """`GET /v1/models`: what this tenant can use now, by plan and key, in a stable order."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        tally.endpoint = Endpoint.MODELS
        book = self._services.books.for_request(tally)
        admitted = await identify(scope, self._services, tally)
        wanted = scope.get("path_params", {}).get("model_id")
        services = self._services
        keyring = await keyring_of(admitted.tenant, services)
        today, allowed = services.now().date(), admitted.allowed_models
        offers = usable_offers(admitted.tenant, keyring, book, today, allowed_models=allowed)
        body: dict[str, object]
        if wanted is None:
            body = {"object": "list", "data": [model_object(offer, offer.id) for offer in offers]}
        else:
            body = _one(wanted.rstrip("/"), offers, book.catalogue)
        await send_body(send, 200, orjson.dumps(body), head=scope["method"] == "HEAD")


def _one(wanted: str, offers: list[Offer], catalogue: Catalogue) -> dict[str, object]:
    for offer in offers:
        if wanted.lower() in (offer.id.lower(), offer.model.lower()):
            return model_object(offer, wanted)
    known = catalogue.offer(wanted) is not None
    why = "is known, but this tenant cannot use it now" if known else "is not known here"
    message = f"The model {wanted[:200]!r} {why}. `GET /v1/models` lists what can be used, `POST /v1/route` says why."
    raise ApiError(Problem(404, "model_not_found", message, Fault.CALLER, param="model"))


def model_object(offer: Offer, model_id: str) -> dict[str, object]:
    """OpenAI's Model object. `created` is 0: the price map does not say when a model appeared."""
    body: dict[str, object] = {"id": model_id, "object": "model", "created": 0, "owned_by": offer.provider_id}
    if offer.deprecated_on is not None:
        body["shutdown_date"] = offer.deprecated_on.isoformat()
    return body


class Route:
    """`POST /v1/route`: the whole decision for a chat body, without a call and without spending."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services, tally = self._services, scope[KEY]
        tally.endpoint = Endpoint.ROUTE
        book = services.books.for_request(tally)
        admitted = await identify(scope, services, tally)
        request = await receive_request(scope, receive, services, tally, CHAT_FRONT)
        keyring = await keyring_of(admitted.tenant, services)
        await admit_uncalled(admitted.tenant, keyring, book, services, tally)
        decision = decided(request, admitted, keyring, book, services)
        await send_body(send, 200, orjson.dumps(to_json(decision)))


class Requests:
    """`GET /v1/requests/{id}`: what was decided for a request of this tenant, how it ended, and what it cost."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        tally.endpoint = Endpoint.REQUESTS
        admitted = await identify(scope, self._services, tally)
        wanted = scope["path_params"]["request_id"]
        try:
            record = await record_of(self._services.keystore, wanted, tenant_id=admitted.tenant.id)
        except (DecisionUnknown, DatabaseUnavailable) as error:
            raise ApiError(problem_of(error)) from None
        await send_body(send, 200, record, head=scope["method"] == "HEAD")
