"""The control plane's application: FastAPI over the routes of the table.

Owns that a path or method that is none of its own is answered as the data plane answers it. Must not know the data
plane.
"""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.routes import control_routes
from gateway.admin.validation import refuse_invalid
from gateway.asgi import App
from gateway.paths import path_refused
from gateway.services import Services


def control_app(services: Services) -> App:
    """The ASGI application of the admin API and of self-service."""
    inner = FastAPI(
        title="Wardgate",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={HTTPException: _http_problem, RequestValidationError: refuse_invalid},
    )
    inner.router.routes.extend(control_routes(services))
    return inner


async def _http_problem(request: Request, error: Exception) -> Response:
    """404 and 405 of the router itself, in our shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    body, headers = path_refused(request.scope, error.status_code, dict(error.headers or {}), str(error.detail))
    return Response(body, status_code=error.status_code, headers=headers, media_type="application/json")
