"""What a provider's failure means: one table from what was seen on the wire to a FailureKind.

It reads the raw status and body, not the exceptions of the library above, which fold several failures into one. The
words of a code are trusted first; a message only where it is a whole phrase, because messages repeat what callers sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from gateway.scrub import LONGEST, scrub
from gateway.seen import parse
from gateway.transport import AnswerRefused, Exchange, TransportRefusal
from gateway.upstream import UpstreamCall
from router.failure import Failure, FailureKind

LONGEST_WAIT_S: Final = 86_400.0  # a provider that asks for more than a day is not believed
ANY: Final = re.compile("")
QUOTED: Final = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|`[^`]*`")
NEVER: Final = re.compile(r"(?!)")
NUMBER: Final = re.compile(r"[0-9]{3}")
MOST_SAID: Final = 8 * LONGEST  # characters of a message that are looked at: searching takes time in the square of them


@dataclass(frozen=True, slots=True)
class Facts:
    """What an error says: its codes, its sentence for people, the field it names, the wait it asks for."""

    codes: str = ""  # code, type and status words, joined
    message: str = ""
    param: str | None = None
    retry_after_s: float | None = None

    @property
    def said(self) -> str:
        """The message without what it quotes: that is often the caller's own words."""
        return QUOTED.sub(" ", self.message)


@dataclass(frozen=True, slots=True)
class Row:
    """A failure by status range and by words; the first row that fits wins. `codes` and `message` are alternatives."""

    first_status: int
    last_status: int
    kind: FailureKind
    codes: re.Pattern[str] = ANY
    message: re.Pattern[str] = NEVER

    def fits(self, status: int, facts: Facts) -> bool:
        if not self.first_status <= status <= self.last_status:
            return False
        return bool(self.codes.search(facts.codes) or (not facts.param and self.message.search(facts.said)))


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


NO_QUOTA: Final = _words(
    r"\b(?:insufficient_quota|insufficient_(?:balance|credits?)|billing_error|billing_not_active)\b"
)
NO_QUOTA_SAID: Final = _words(
    r"credit balance is too low|insufficient (?:balance|credits?|quota)|exceeded your current quota"
)
TOO_LONG: Final = _words(r"\b(?:context_length_exceeded|string_above_max_length|request_too_large)\b")
TOO_LONG_SAID: Final = _words(
    r"maximum context length|prompt is too long|input token count .*exceed|exceeds? the context window"
)
CONTENT: Final = _words(r"\b(?:content_filter|content_policy_violation|moderation_blocked)\b")
CONTENT_SAID: Final = _words(
    r"content management policy|flagged by (?:our )?moderation|violat\w+ (?:our|the) (?:usage|content) polic"
)
NO_MODEL: Final = _words(r"\b(?:model_not_found|not_found_error|model_not_available)\b")
NO_MODEL_SAID: Final = _words(
    r"^(?:the )?model .{0,120}(?:does not exist|not found|is not available)|^(?:unknown|no such) model"
)
BAD_KEY: Final = _words(r"\b(?:invalid_api_key|api_key_invalid|authentication_error|account_deactivated)\b")
BAD_KEY_SAID: Final = _words(r"api[ _]key (?:is )?(?:not valid|invalid|expired)|(?:invalid|incorrect) api key")
DENIED: Final = _words(r"\b(?:permission_error|permission_denied|insufficient_permissions|forbidden)\b")
DENIED_SAID: Final = _words(r"\b(?:api key|permission|access)\b")

ROWS: Final = (
    Row(300, 399, FailureKind.MALFORMED),  # a redirect is never followed
    Row(400, 400, FailureKind.KEY_REJECTED, BAD_KEY, BAD_KEY_SAID),  # Google answers 400 to a bad key
    Row(401, 401, FailureKind.KEY_REJECTED),
    Row(402, 402, FailureKind.QUOTA_EXHAUSTED),
    Row(403, 404, FailureKind.CONTENT_FILTER, CONTENT, CONTENT_SAID),
    Row(403, 404, FailureKind.MODEL_UNAVAILABLE, NO_MODEL, NO_MODEL_SAID),
    Row(403, 403, FailureKind.KEY_REJECTED, BAD_KEY, BAD_KEY_SAID),
    Row(403, 403, FailureKind.KEY_REJECTED, DENIED, DENIED_SAID),
    Row(403, 403, FailureKind.SERVER_ERROR),  # a region, a firewall: not the key, as far as it says
    Row(404, 404, FailureKind.MODEL_UNAVAILABLE),
    Row(408, 408, FailureKind.TIMEOUT),
    Row(409, 409, FailureKind.SERVER_ERROR),
    Row(425, 425, FailureKind.SERVER_ERROR),
    Row(429, 429, FailureKind.QUOTA_EXHAUSTED, NO_QUOTA),
    Row(429, 429, FailureKind.RATE_LIMITED),
    Row(400, 499, FailureKind.QUOTA_EXHAUSTED, NO_QUOTA, NO_QUOTA_SAID),
    Row(400, 499, FailureKind.CONTEXT_LENGTH, TOO_LONG, TOO_LONG_SAID),
    Row(400, 499, FailureKind.CONTENT_FILTER, CONTENT, CONTENT_SAID),
    Row(400, 499, FailureKind.MODEL_UNAVAILABLE, NO_MODEL, NO_MODEL_SAID),
    Row(400, 499, FailureKind.BAD_REQUEST),
    Row(504, 504, FailureKind.TIMEOUT),
    Row(500, 599, FailureKind.SERVER_ERROR),
)
# The status that an error word stands for, where a provider sends the error inside a successful answer.
STATUS_OF_WORD: Final[Mapping[str, int]] = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "insufficient_quota": 429,
    "rate_limit": 429,
    "rate_limit_error": 429,
    "RESOURCE_EXHAUSTED": 429,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "INVALID_ARGUMENT": 400,
    "UNAVAILABLE": 503,
    "rate_limit_exceeded": 429,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "timeout_error": 504,
}


def failure_of(call: UpstreamCall, exchange: Exchange, error: BaseException | None) -> Failure:
    """The failure of an attempt that ended in `error`, by what the exchange saw of it."""
    return replace(_failure_of(call, exchange, error), request_id=exchange.request_id)


def _failure_of(call: UpstreamCall, exchange: Exchange, error: BaseException | None) -> Failure:
    if exchange.status is not None and exchange.status >= 300:
        facts = read_error(bytes(exchange.body))
        asked = wait_asked_s if exchange.status == 429 else retry_after_s
        return _by_table(call, exchange.status, facts, asked(exchange.headers, datetime.now(UTC)))
    if exchange.seen.blocked is not None:
        return failure(
            call, FailureKind.CONTENT_FILTER, f"the prompt was blocked ({exchange.seen.blocked})", status=200
        )
    if exchange.seen.error is not None:
        facts = facts_of(exchange.seen.error)
        return _by_table(call, status_inside(exchange.seen.error), facts, None)
    if exchange.seen.malformed:
        return failure(call, FailureKind.MALFORMED, "an event of the stream is not JSON", status=exchange.status)
    if exchange.error is not None:
        return _network_failure(call, exchange, exchange.error)
    if exchange.status is not None:
        return failure(call, FailureKind.MALFORMED, "the answer could not be read", status=exchange.status)
    if isinstance(error, TimeoutError):
        return failure(call, FailureKind.TIMEOUT, "nothing came in time")
    return failure(call, FailureKind.GATEWAY, f"the call could not be made ({type(error).__name__})")


def failure(
    call: UpstreamCall,
    kind: FailureKind,
    message: str,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
    param: str | None = None,
) -> Failure:
    """A Failure of this call; `message` is scrubbed of the call's own key and of anything that looks like one, and a
    `param` that holds such a thing is left out."""
    key = call.credential.secret.reveal()
    return Failure(
        kind=kind,
        provider_id=call.provider.id,
        model=call.model,
        status=status,
        retry_after_s=retry_after_s,
        message=scrub(message, key),
        param=param if param is not None and scrub(param, key) == param else None,
    )


def _by_table(call: UpstreamCall, status: int, facts: Facts, wait_s: float | None) -> Failure:
    return failure(
        call,
        kind_of(status, facts),
        facts.message or f"HTTP {status}",
        status=status,
        retry_after_s=facts.retry_after_s if wait_s is None else wait_s,
        param=facts.param,
    )


def _network_failure(call: UpstreamCall, exchange: Exchange, error: httpx.HTTPError) -> Failure:
    if isinstance(error, TransportRefusal):
        return failure(call, FailureKind.KEY_UNUSABLE, str(error))
    if isinstance(error, AnswerRefused):
        return failure(call, FailureKind.MALFORMED, str(error), status=exchange.status)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return failure(call, FailureKind.CONNECT, "no connection could be made")
    if isinstance(error, httpx.TimeoutException):
        text = "nothing came in time" if exchange.status is None else "it fell silent in the middle of its answer"
        return failure(call, FailureKind.TIMEOUT, text, status=exchange.status)
    if exchange.status is not None:
        text = "the connection broke in the middle of the answer"
        return failure(call, FailureKind.TRUNCATED, text, status=exchange.status)
    if isinstance(error, httpx.ProtocolError):
        return failure(call, FailureKind.MALFORMED, "what it sent is not HTTP, or it hung up without an answer")
    return failure(call, FailureKind.CONNECT, "the connection broke before an answer")


def kind_of(status: int, facts: Facts) -> FailureKind:
    """The kind of the first row that fits."""
    for row in ROWS:
        if row.fits(status, facts):
            return row.kind
    return FailureKind.MALFORMED


def status_inside(error: Mapping[str, object]) -> int:
    """The HTTP status that an error inside a 200 answer stands for; 502 when it does not say."""
    for name in ("code", "status", "type"):
        value = error.get(name)
        if isinstance(value, str) and NUMBER.fullmatch(value):
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
        if isinstance(value, str) and value in STATUS_OF_WORD:
            return STATUS_OF_WORD[value]
    return 502


def read_error(body: bytes) -> Facts:
    """What an error body says, in OpenAI's, Anthropic's, Google's, FastAPI's or no shape."""
    document = parse(body)
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return Facts(message=_said(document))
    error = document.get("error", document.get("detail", document))
    if isinstance(error, list) and error and isinstance(error[0], dict):
        return Facts(message=_said(str(error[0].get("msg", ""))))
    return facts_of(error) if isinstance(error, dict) else Facts(message=_said(error))


def facts_of(error: Mapping[str, object]) -> Facts:
    """The facts of an error object."""
    message, param = error.get("message"), error.get("param")
    details = error.get("details")
    words = [error.get(name) for name in ("code", "type", "status")] + _reasons(details)
    return Facts(
        codes=_said(" ".join(word for word in words if isinstance(word, str))),
        message=_said(message),
        param=param[:128] if isinstance(param, str) and param and param != "None" else None,
        retry_after_s=_retry_info(details),
    )


def _said(message: object) -> str:
    return message[:MOST_SAID] if isinstance(message, str) else ""


def _reasons(details: object) -> list[object]:
    """Google's ErrorInfo: `details[].reason`, e.g. API_KEY_INVALID."""
    return [item.get("reason") for item in details if isinstance(item, dict)] if isinstance(details, list) else []


def _retry_info(details: object) -> float | None:
    """Google's RetryInfo: `details[].retryDelay`, e.g. "22s"."""
    for item in details if isinstance(details, list) else []:
        delay = item.get("retryDelay") if isinstance(item, dict) else None
        if isinstance(delay, str) and re.fullmatch(r"\d+(?:\.\d+)?s", delay):
            return min(float(delay[:-1]), LONGEST_WAIT_S)
    return None


# How providers tell when a limit that is used up is reset: what is left, and when. OpenAI and Groq write durations
# ("6m0s", "20ms"), Anthropic times (RFC 3339).
LIMITS: Final = (
    *((f"x-ratelimit-remaining-{of}", f"x-ratelimit-reset-{of}") for of in ("requests", "tokens")),
    *(
        (f"anthropic-ratelimit-{of}-remaining", f"anthropic-ratelimit-{of}-reset")
        for of in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)
DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
UNITS_S: Final = (3600.0, 60.0, 1.0, 0.001)


def wait_asked_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """`retry_after_s`; else the latest reset of the limits that are used up, in seconds from `now`."""
    asked = retry_after_s(headers, now)
    if asked is not None:
        return asked
    resets = [_until_s(headers.get(reset, ""), now) for left, reset in LIMITS if headers.get(left) == "0"]
    return max((wait for wait in resets if wait is not None), default=None)


def _until_s(text: str, now: datetime) -> float | None:
    duration = DURATION.fullmatch(text) if text else None
    if duration:
        parts = zip(duration.groups(), UNITS_S, strict=True)
        return min(sum(float(part) * unit for part, unit in parts if part), LONGEST_WAIT_S)
    try:
        return min(max(0.0, (datetime.fromisoformat(text) - now).total_seconds()), LONGEST_WAIT_S)
    except (TypeError, ValueError):
        return None


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait that the provider asks for, in seconds: `retry-after-ms`, or `retry-after` as number or HTTP date."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit in ((milliseconds, 1000.0), (value, 1.0)):
        try:
            seconds = float(text) / unit if text else None
        except ValueError:
            seconds = None
        if seconds is not None and 0.0 <= seconds < float("inf"):
            return min(seconds, LONGEST_WAIT_S)
    if value is None:
        return None
    try:
        return min(max(0.0, (parsedate_to_datetime(value) - now).total_seconds()), LONGEST_WAIT_S)
    except (TypeError, ValueError):
        return None
