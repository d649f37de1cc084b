"""An error in the shape of Anthropic's API: the same problem, other words around it.

Pure. Source: Anthropic's API reference, "Errors", and anthropic-python's types, November 2026.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from gateway.errors import Problem

TYPE_OF_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",  # the caller's body did not come in time
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    424: "api_error",
    429: "rate_limit_error",
    431: "request_too_large",
    500: "api_error",
    501: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    505: "invalid_request_error",
}
# Where the word says more than the status.
TYPE_OF_CODE: Final[Mapping[str, str]] = {"insufficient_quota": "billing_error"}


def problem_object(problem: Problem) -> dict[str, object]:
    """`{"type": "error", "error": {"type", "message", ...}}`: our own fields stand beside Anthropic's two."""
    kind = TYPE_OF_CODE.get(problem.code) or TYPE_OF_STATUS[problem.status]
    return {"type": "error", "error": {**problem.error_object(), "type": kind}}


def problem_body(problem: Problem, request_id: str | None = None) -> bytes:
    """The error body, with the id under which the log tells more."""
    return orjson.dumps({**problem_object(problem), "request_id": request_id})
