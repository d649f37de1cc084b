"""What a caller is told when something is wrong: one error model, rendered in OpenAI's shape.

Every error names whose fault it is (`router.reasons.Fault`) with the same word in body, metric and log, and says in
`x-should-retry` whether the SDK's own retry can help.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from router.reasons import Fault

TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    424: "provider_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    501: "invalid_request_error",
    502: "provider_error",
    503: "server_error",
    504: "provider_error",
    505: "invalid_request_error",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as data. `extra` holds our own fields of the error object (counts per reason, upstream status...)."""

    status: int
    code: str
    message: str
    fault: Fault
    param: str | None = None
    retry_after_s: float | None = None
    caller_may_retry: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    def error_object(self) -> dict[str, object]:
        """The value of `error` in an OpenAI error body; `code` is a word, `param` a field name or null."""
        kind = "insufficient_quota" if self.code == "insufficient_quota" else TYPE_OF_STATUS[self.status]
        return {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
            "fault": self.fault.value,
            **self.extra,
        }

    def body(self) -> bytes:
        return orjson.dumps({"error": self.error_object()})

    def response_headers(self) -> dict[str, str]:
        """`x-should-retry` always; `retry-after` (seconds, rounded up) when the wait is known.

        openai-node ignores waits above 60 s and hammers instead, so a retry is then ruled out (WIRE.md 5.2).
        """
        may_retry = self.caller_may_retry and (self.retry_after_s or 0.0) <= 60.0
        headers = {"x-should-retry": "true" if may_retry else "false", **self.headers}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(0, -int(-self.retry_after_s // 1)))
        return headers


class ApiError(Exception):
    """A Problem on its way to the caller."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def bad_request(message: str, *, param: str | None = None, code: str = "invalid_request") -> ApiError:
    """The caller's mistake: 400, never 422."""
    return ApiError(Problem(400, code, message, Fault.CALLER, param=param))


INTERNAL = Problem(
    500,
    "internal_error",
    "The gateway failed on this request. The log holds the details under its request id.",
    Fault.GATEWAY,
    caller_may_retry=True,
)
