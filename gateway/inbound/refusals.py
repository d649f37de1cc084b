"""Why a connection is refused below the application: one row a reason, and its answer in OpenAI's shape.

Must not know how a reason is found out, and never repeats what was sent.
"""

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from gateway.errors import Problem
from router.reasons import Fault


class Refusal(StrEnum):
    """The closed set of reasons: a label of a metric, and a field of the log."""

    BODY_TIMEOUT = "body_timeout"
    FRAMING = "framing"
    HEADER_TIMEOUT = "header_timeout"
    HEADERS_TOO_LARGE = "headers_too_large"
    HOST = "host"
    MALFORMED = "malformed"
    NO_REQUEST = "no_request"
    PIPELINED = "pipelined"
    SLOW_READER = "slow_reader"
    TOO_MANY_HEADERS = "too_many_headers"
    TRANSFER_ENCODING = "transfer_encoding"
    UPGRADE = "upgrade"
    UNREAD_BODY = "unread_body"
    VERSION = "version"


# Reason -> status, code, sentence. The others close the connection: nobody waits for an answer, or one has begun.
ROWS: Final[Mapping[Refusal, tuple[int, str, str]]] = {
    Refusal.FRAMING: (400, "invalid_http", "The chunks of the body are too small, or say too much beside it."),
    Refusal.HEADER_TIMEOUT: (408, "request_timeout", "The headers did not arrive in time. Send the request again."),
    Refusal.HEADERS_TOO_LARGE: (431, "headers_too_large", "The headers are larger than this gateway accepts."),
    Refusal.HOST: (400, "invalid_http", "The request must have exactly one Host header."),
    Refusal.MALFORMED: (400, "invalid_http", "The request is not valid HTTP/1.1."),
    Refusal.PIPELINED: (400, "invalid_http", "Too many requests were sent ahead on one connection."),
    Refusal.TOO_MANY_HEADERS: (431, "headers_too_large", "The request has more headers than this gateway accepts."),
    Refusal.TRANSFER_ENCODING: (501, "invalid_http", "The only transfer encoding is `chunked`, in HTTP/1.1."),
    Refusal.UPGRADE: (400, "invalid_http", "This gateway does not tunnel, and takes no chunked body with an upgrade."),
    Refusal.VERSION: (505, "invalid_http", "This gateway speaks HTTP/1.1."),
}  # fmt: skip


def answer(refusal: Refusal, request_id: str, detail: str = "") -> bytes | None:
    """The whole answer, after which the connection ends; None for a reason that has none. `detail` is a fixed text of
    the parser, never of the caller."""
    row = ROWS.get(refusal)
    if row is None:
        return None
    status, code, sentence = row
    message = f"{sentence} ({detail})" if detail else sentence
    problem = Problem(status, code, message, Fault.CALLER, caller_may_retry=status == 408)
    body = problem.body()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        "x-wardgate-request-id": request_id,
        **problem.response_headers(),
        "connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode() + body
