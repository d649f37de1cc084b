"""The routes, built from the table, and the OpenAPI document, built from the routes.

Owns how a row becomes a route: FastAPI's handler behind a door, with and without a trailing slash, self-service also
without `/v1`. There are no pages that load scripts.
"""

import asyncio
import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute
from starlette.routing import Route as PathRoute

from gateway.admin.calls import OfCall
from gateway.admin.door import Audience, Door, Row
from gateway.admin.shapes import ErrorBody
from gateway.admin.table import ROWS, TAGS
from gateway.control.gate import Operation
from gateway.guard import Guard
from gateway.services import Services

SCHEMES: Final[dict[str, dict[str, str]]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer wg_admin_...`"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
STATUSES: Final = {
    400: "What was sent is not right; it is not repeated.",
    401: "No token, or one that is not accepted.",
    403: "The token may not do this.",
    404: "There is no such thing here.",
    409: "It is there already, was changed meanwhile, or the idempotency key is taken.",
    413: "The body is larger than 64 KiB.",
    415: "The body is not JSON.",
    503: "The database is away; see `retry-after`.",
}
IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": 255},
    "description": "The same key with the same request is done once within 24 hours.",
}
ABOUT: Final = (
    "Wardgate's control plane. Tokens are accepted in three headers and nowhere else. Every operation is checked and"
    " noted by one gate. Errors never repeat what was sent."
)


def control_routes(services: Services) -> list[BaseRoute]:
    """Every route of the admin API and of self-service, for `build_app`."""
    documented: list[APIRoute] = []
    rows = (*ROWS, _description(cache(lambda: _document(documented))))  # made when it is first asked for
    documented += [_api_route(row) for row in rows]
    return [each for row, route in zip(rows, documented, strict=True) for each in _served(row, route, services)]


def _description(document: Callable[[], dict[str, Any]]) -> Row:
    """The row of the document itself."""

    async def describe(call: OfCall) -> dict[str, Any]:
        """This document."""

        async def work(at: Operation) -> dict[str, Any]:
            return await asyncio.to_thread(document)

        return await call.run(work, tenant=call.actor.tenant_id)

    path, summary = "/admin/openapi.json", "The OpenAPI document"
    return Row("GET", path, "api.describe", describe, summary, "self-service", Audience.BOTH)


def _served(row: Row, route: APIRoute, services: Services) -> Iterator[BaseRoute]:
    """The route with its door, and its aliases, which lead to the same door."""
    models = {"query": _query_fields(route), "body": _body_fields(route)}
    door = Door(route.app, row, services, takes_body=route.body_field is not None, fields=models)
    route.app = Guard(door, services.report)
    yield route
    for path in _paths(row):
        if path != row.path:
            alias = PathRoute(path, route.app, methods=[row.method])
            alias.methods = {row.method}  # no HEAD beside a GET: the canonical route has none
            yield alias


def _paths(row: Row) -> Iterable[str]:
    bare = [row.path, row.path.removeprefix("/v1")]
    return dict.fromkeys(path + end for path in bare for end in ("", "/"))


def _api_route(row: Row) -> APIRoute:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": what} for status, what in STATUSES.items()
    }
    extra: dict[str, Any] = {"security": [{name: []} for name in SCHEMES]}
    if row.rule.writes:
        extra["parameters"] = [IDEMPOTENCY]
    needed = [row.rule.right] if row.audience is Audience.OPERATORS else [row.rule.tenant_right]
    return APIRoute(
        row.path,
        row.handler,
        methods=[row.method],
        status_code=row.status,
        summary=row.summary,
        description=f"{row.handler.__doc__ or ''} Needs the scope `{needed[0]}`. Action `{row.action}`.",
        tags=[row.tag],
        responses=errors | {"4XX": {"model": ErrorBody, "description": "Any other refusal."}},
        operation_id=f"{row.handler.__module__.rpartition('.')[2]}_{row.handler.__name__}",
        openapi_extra=extra,
    )


def _query_fields(route: APIRoute) -> frozenset[str]:
    models = [param.field_info.annotation for param in route.dependant.query_params]
    return frozenset(name for model in models for name in _names_of(model))


def _body_fields(route: APIRoute) -> frozenset[str]:
    return frozenset(_names_of(route.body_field.field_info.annotation)) if route.body_field else frozenset()


def _names_of(model: object) -> Iterable[str]:
    return model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else ()


def _document(routes: list[APIRoute]) -> dict[str, Any]:
    tags = [{"name": name, "description": about} for name, about in TAGS.items()]
    made = get_openapi(title="Wardgate", version=version("wardgate"), description=ABOUT, routes=routes, tags=tags)
    made.setdefault("components", {})["securitySchemes"] = copy.deepcopy(SCHEMES)
    return made
