"""What a provider's failure means: one table from what was seen on the wire to a FailureKind.

It reads the raw status and body, not the exceptions of the library above, which fold several failures into one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import orjson

from gateway.scrub import scrub
from gateway.transport import Exchange, TransportRefusal
from gateway.upstream import UpstreamCall
from router.failure import Failure, FailureKind

ANY = re.compile("")


@dataclass(frozen=True, slots=True)
class Row:
    """A failure by status range and by words in the provider's error object; the first row that fits wins."""

    first_status: int
    last_status: int
    words: re.Pattern[str]
    kind: FailureKind


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


BAD_KEY = _words(r"api[_ ]key[_ ](?:invalid|not valid)|invalid[_ ]api[_ ]key|incorrect api key")
CONTENT = _words(r"content[_ ]?(?:filter|policy)|moderation|safety (?:system|setting)")
NO_QUOTA = _words(r"insufficient[_ ](?:quota|balance|credit)|credit balance|billing")
TOO_LONG = _words(r"context[_ ](?:length|window)|maximum context|prompt is too long|too many tokens|input token count")
NO_MODEL = _words(r"model[_ ]not[_ ]found|(?:unknown|no such) model|model .{0,80}does not exist")

ROWS = (
    Row(300, 399, ANY, FailureKind.MALFORMED),  # a redirect is never followed
    Row(400, 400, BAD_KEY, FailureKind.KEY_REJECTED),  # Google answers 400 to a bad key
    Row(401, 401, ANY, FailureKind.KEY_REJECTED),
    Row(402, 402, ANY, FailureKind.QUOTA_EXHAUSTED),
    Row(403, 403, CONTENT, FailureKind.CONTENT_FILTER),
    Row(403, 403, ANY, FailureKind.KEY_REJECTED),
    Row(404, 404, ANY, FailureKind.MODEL_UNAVAILABLE),
    Row(408, 408, ANY, FailureKind.TIMEOUT),
    Row(429, 429, NO_QUOTA, FailureKind.QUOTA_EXHAUSTED),
    Row(429, 429, ANY, FailureKind.RATE_LIMITED),
    Row(400, 499, TOO_LONG, FailureKind.CONTEXT_LENGTH),
    Row(400, 499, CONTENT, FailureKind.CONTENT_FILTER),
    Row(400, 499, NO_MODEL, FailureKind.MODEL_UNAVAILABLE),
    Row(400, 499, NO_QUOTA, FailureKind.QUOTA_EXHAUSTED),
    Row(400, 499, ANY, FailureKind.BAD_REQUEST),
    Row(504, 504, ANY, FailureKind.TIMEOUT),
    Row(500, 599, ANY, FailureKind.SERVER_ERROR),
)


def failure_of(call: UpstreamCall, exchange: Exchange, error: BaseException) -> Failure:
    """The failure of an attempt that ended in `error`, by what the exchange saw of it."""
    if exchange.error is not None:
        return _network_failure(call, exchange, exchange.error)
    if exchange.status is not None and exchange.status >= 300:
        return _status_failure(call, exchange)
    if exchange.status is not None:
        return failure(call, FailureKind.MALFORMED, "the provider's answer could not be read", status=exchange.status)
    if isinstance(error, TimeoutError):
        return failure(call, FailureKind.TIMEOUT, "the provider did not answer in time")
    return failure(call, FailureKind.GATEWAY, f"the call could not be made ({type(error).__name__})")


def failure(
    call: UpstreamCall,
    kind: FailureKind,
    message: str,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
) -> Failure:
    """A Failure of this call; `message` is scrubbed of the call's own key and of anything that looks like one."""
    return Failure(
        kind=kind,
        provider_id=call.provider.id,
        model=call.model,
        status=status,
        retry_after_s=retry_after_s,
        message=scrub(message, call.credential.secret.reveal()),
    )


def _network_failure(call: UpstreamCall, exchange: Exchange, error: httpx.HTTPError) -> Failure:
    if isinstance(error, TransportRefusal):
        return failure(call, FailureKind.KEY_UNUSABLE, str(error))
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return failure(call, FailureKind.CONNECT, "the provider could not be reached")
    if isinstance(error, httpx.TimeoutException):
        return failure(call, FailureKind.TIMEOUT, "the provider did not answer in time")
    if isinstance(error, httpx.ProtocolError):
        return failure(call, FailureKind.MALFORMED, "the provider broke off, or what it sent is not HTTP")
    if exchange.status is not None:
        text = "the connection broke in the middle of the answer"
        return failure(call, FailureKind.TRUNCATED, text, status=exchange.status)
    return failure(call, FailureKind.CONNECT, "the connection to the provider broke")


def _status_failure(call: UpstreamCall, exchange: Exchange) -> Failure:
    status = exchange.status or 0
    words, message = read_error(exchange.error_body)
    kind = kind_of(status, words)
    retry_after = retry_after_s(exchange.headers, datetime.now(UTC))
    return failure(call, kind, message or f"HTTP {status}", status=status, retry_after_s=retry_after)


def kind_of(status: int, words: str) -> FailureKind:
    """The first row whose status range and words fit."""
    for row in ROWS:
        if row.first_status <= status <= row.last_status and row.words.search(words):
            return row.kind
    return FailureKind.MALFORMED


def read_error(body: bytes) -> tuple[str, str]:
    """(all words to search in, message for people) of an error body in OpenAI's, Anthropic's, Google's or no shape."""
    text = body.decode("utf-8", "replace")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return text[:2000], ""
    if isinstance(document, list) and document:
        document = document[0]
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        message = error.get("message")
        return text[:4000], message if isinstance(message, str) else ""
    return text[:4000], error if isinstance(error, str) else ""


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait that the provider asks for, in seconds: `retry-after-ms`, or `retry-after` as number or HTTP date."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit in ((milliseconds, 1000.0), (value, 1.0)):
        try:
            seconds = float(text) / unit if text else None
        except ValueError:
            seconds = None
        if seconds is not None and 0.0 <= seconds < 1e9:
            return seconds
    if value is None:
        return None
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):
        return None
