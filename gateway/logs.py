"""One JSON line for each thing that happened, on one stream: ours from events, the libraries' from `logging`.

A subscriber of events beside the metrics. Owns the names and levels of the lines and the last redaction before the
stream. Must not know how a call is served. Values of keys never come here; what looks like one is masked all the same.
"""

import asyncio
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final, Protocol, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from gateway.events import (
    AttemptEnded,
    BudgetCrossed,
    Decided,
    Delivery,
    Endpoint,
    Event,
    FellBack,
    HealthChanged,
    KeyResolved,
    RequestCompleted,
    RetryRefused,
    RouteRefused,
    SpendUnusual,
    WebhookTried,
)
from gateway.scrub import KEY_SHAPES, MASK
from keystore.resolve import Store, Via
from router.reasons import Fault

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
WORDS: Final = {number: word for word, number in LEVELS.items()}
# Libraries that write request bodies, statements or headers below WARNING, or a line of theirs to each of ours.
QUIET: Final = (
    *("aiohttp", "aiosqlite", "alembic", "asyncio", "asyncpg", "hpack", "httpcore", "httpx", "openai", "sqlalchemy"),
    "urllib3",
)
LITELLM: Final = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "litellm")


class LogLevelError(ValueError):
    """The log level is not one of those known."""


class EventLogger(FilteringBoundLogger, Protocol):
    """structlog's logger, and a short way for the lines of events."""

    def line(self, level: int, event: str, facts: Mapping[str, object]) -> None:
        """A line of facts that hold no secret, with what is bound to the logger. Writes whatever the level is."""


def _line(self: Any, level: int, event: str, facts: Mapping[str, object]) -> None:
    stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {"timestamp": stamp, "level": WORDS[level], "event": event, **self._context, **facts}
    self._logger.msg(_rendered(None, "", line))


def configure_logs(level: str = "info", stream: TextIO | None = None) -> EventLogger:
    """Send the log of the whole process to `stream` (standard output) as JSON lines; returns our own logger.

    structlog's module-wide configuration is not touched. A second call replaces what the first one set up. Raises
    LogLevelError for an unknown level.
    """
    number = _level_number(level)
    out = sys.stdout if stream is None else stream
    root = logging.getLogger()
    for former in [handler for handler in root.handlers if isinstance(handler, _LibraryLines)]:
        root.removeHandler(former)
    root.addHandler(_LibraryLines(out, number))
    root.setLevel(number)
    quiet_libraries()
    filtering = structlog.make_filtering_bound_logger(number)
    logger = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", AtTurnsEnd(out))),
        processors=[*_FACTS, *_LINE],
        wrapper_class=type("EventLogger", (filtering,), {"line": _line}),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast("EventLogger", logger)


def quiet_libraries() -> None:
    """Hold talkative libraries to WARNING. Call it again after LiteLLM's import, which adds handlers of its own."""
    for name in (*QUIET, *LITELLM):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in LITELLM:
        logging.getLogger(name).handlers.clear()  # it hands each line to the root logger as well


def _level_number(level: str) -> int:
    number = LEVELS.get(level.lower())
    if number is None:
        close = get_close_matches(level.lower(), LEVELS, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        raise LogLevelError(f"WARDGATE_LOG_LEVEL is one of {', '.join(LEVELS)}, not {level!r}{hint}")
    return number


class _LibraryLines(logging.StreamHandler[TextIO]):
    """Writes the records of `logging` in the shape of our own lines; `event` is their text."""

    def __init__(self, stream: TextIO, level: int) -> None:
        super().__init__(stream)
        self.setLevel(level)
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[structlog.stdlib.add_logger_name, *_FACTS],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_LINE],
            )
        )


# --- redaction -------------------------------------------------------------------------------------------------------

SECRET_FIELDS: Final = frozenset(
    {"api_key", "api-key", "authorization", "cookie", "password", "secret", "set-cookie", "setting_value", "token"}
    | {"proxy-authorization", "x-api-key", "x-goog-api-key"}
)
URL_PASSWORD: Final = re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*(?=@)")
SHORTEST_KEY: Final = 8  # characters; most values are shorter words, and no key is
LONGEST: Final = 8_000  # characters of one value; both ends are kept, an exception's last line is its message
DEEPEST: Final = 8


def redact(value: object, depth: int = 0) -> object:
    """`value` as plain JSON data with whatever looks like a key or a token masked."""
    if isinstance(value, str):
        return _masked(value)
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping) and depth < DEEPEST:
        return {_masked(str(name)): _field(str(name), held, depth) for name, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < DEEPEST:
        return [redact(each, depth + 1) for each in value]
    return _masked(_text(value))


def _field(name: str, value: object, depth: int) -> object:
    return MASK if name.lower() in SECRET_FIELDS and value is not None else redact(value, depth + 1)


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    try:
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    except Exception as error:  # noqa: BLE001 - a value that cannot be printed must not cost the line
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"


def _masked(text: str) -> str:
    if len(text) < SHORTEST_KEY:
        return text
    text = URL_PASSWORD.sub(MASK, KEY_SHAPES.sub(MASK, text))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"


def _redacted(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    return {name: _field(name, value, 0) for name, value in line.items()}


def _rendered(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    try:
        return orjson.dumps(line).decode()
    except TypeError:  # a whole number beyond 64 bits, half an emoji
        return json.dumps(line)


def _ordered(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    return {name: line[name] for name in ("timestamp", "level", "event") if name in line} | dict(line)


_FACTS: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
)
_LINE: Final[tuple[Processor, ...]] = (_redacted, _ordered, _rendered)

# --- events ----------------------------------------------------------------------------------------------------------

LEVEL_OF_FAULT: Final[Mapping[str | None, int]] = {
    None: logging.INFO,
    Fault.CALLER: logging.INFO,
    Fault.PLAN: logging.INFO,
    Fault.TENANT_KEY: logging.WARNING,
    Fault.PROVIDER: logging.WARNING,
    Fault.GATEWAY: logging.ERROR,
}
LEVEL_OF_DELIVERY: Final[Mapping[Delivery, int]] = {
    Delivery.DELIVERED: logging.INFO,
    Delivery.FAILED: logging.WARNING,
    Delivery.GIVEN_UP: logging.ERROR,
}
# Of a request's facts those that callers, operators and providers word; the others are ids and words of our own.
FROM_OUTSIDE: Final = frozenset(
    {"client_request_id", "dropped", "key_label", "model", "requested_model", "service_tier", "tenant"}
)
REMEMBERED: Final = 1_000  # texts
LONGEST_NAME: Final = 200  # characters of a model name as the caller wrote it


class AtTurnsEnd:
    """A stream that is flushed once for all lines of one turn of the event loop: a flush costs what all the rest of a
    line does. Outside the loop each line is flushed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waits = False
        self._failed: Exception | None = None
        self.write = out.write

    def flush(self) -> None:
        """At the end of this turn. Raises what the last flush raised: then a line may be lost, and that is counted."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        if self._waits:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._out.flush()
            return
        self._waits = True
        loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._waits = False
        try:
            self._out.flush()
        except (OSError, ValueError) as error:
            self._failed = error


class LogSubscriber:
    """Writes one line for each event."""

    def __init__(self, logger: EventLogger) -> None:
        self._log = logger
        self._debugs = logger.is_enabled_for(logging.DEBUG)
        self._clean: set[str] = set()  # texts in which nothing was masked: names come again and again
        self._on: dict[type, Callable[..., None]] = {
            RequestCompleted: self._request_completed,
            Decided: lambda _: None,  # `GET /v1/requests/{id}` tells it whole
            KeyResolved: self._key_resolved,
            AttemptEnded: self._attempt_ended,
            FellBack: self._fell_back,
            RetryRefused: self._retry_refused,
            HealthChanged: self._health_changed,
            RouteRefused: self._route_refused,
            BudgetCrossed: lambda event: self._log.warning("budget.threshold", **_facts(event)),
            SpendUnusual: lambda event: self._log.warning("spend.unusual", **_facts(event)),
            WebhookTried: self._webhook_tried,
        }

    def __call__(self, event: Event) -> None:
        """Write the line of one event."""
        self._on[type(event)](event)

    def _request_completed(self, event: RequestCompleted) -> None:
        level = LEVEL_OF_FAULT.get(event.fault, logging.ERROR)
        if event.endpoint is Endpoint.OPS:  # health probes, several a minute
            level = logging.DEBUG if event.status < 400 else logging.INFO
        if not self._log.is_enabled_for(level):
            return
        facts = _facts(event)
        usage = facts.pop("usage", None)
        if usage is not None:
            facts |= _facts(usage)
        for name in FROM_OUTSIDE & facts.keys():
            facts[name] = self._redacted(facts[name])
        if event.cost_usd is not None:
            facts["cost_usd"] = format(event.cost_usd, "f")
        facts["overhead_s"] = round(event.overhead_s, 6)
        self._log.line(level, "request.completed", facts)

    def _redacted(self, value: object) -> object:
        if isinstance(value, str) and value in self._clean:
            return value
        told = redact(value)
        if told == value and isinstance(value, str):  # what was masked is remembered nowhere
            if len(self._clean) >= REMEMBERED:
                self._clean.clear()
            self._clean.add(value)
        return told

    def _key_resolved(self, event: KeyResolved) -> None:
        usual = event.setting_key is None or (event.via == Via.CANONICAL and event.store != Store.LEGACY)
        if usual and not self._debugs:
            return
        if event.setting_key is None:
            self._log.debug("key.missing", **_facts(event))
        elif usual:
            self._log.debug("key.resolved", **_facts(event))
        else:
            self._log.info("key.legacy_name", message=_legacy_sentence(event), **_facts(event))

    def _attempt_ended(self, event: AttemptEnded) -> None:
        if self._debugs:
            self._log.debug("attempt", **_facts(event))

    def _fell_back(self, event: FellBack) -> None:
        self._log.warning("fallback", **_facts(event))

    def _retry_refused(self, event: RetryRefused) -> None:
        self._log.warning("retry.refused", **_facts(event))

    def _health_changed(self, event: HealthChanged) -> None:
        level = logging.DEBUG if event.elsewhere else logging.INFO if event.change == "well" else logging.WARNING
        self._log.log(level, "health.changed", **_facts(event))

    def _route_refused(self, event: RouteRefused) -> None:
        self._log.warning("route.refused", **_facts(event))

    def _webhook_tried(self, event: WebhookTried) -> None:
        self._log.log(LEVEL_OF_DELIVERY[event.outcome], f"webhook.{event.outcome.value}", **_facts(event))


def _facts(record: object) -> dict[str, object]:
    """The record's fields that have a value; seconds in whole microseconds, a caller's text cut."""
    facts: dict[str, object] = {}
    for name in record.__slots__:  # type: ignore[attr-defined]
        value = getattr(record, name)
        if value is None:
            continue
        if isinstance(value, float):
            value = round(value, 6)
        elif name == "requested_model":
            value = value[:LONGEST_NAME]
        facts[name] = value
    return facts


def _legacy_sentence(event: KeyResolved) -> str:
    parts = [f"the key for {event.provider} is the one stored as {event.setting_key}"]
    if event.canonical_name is not None and event.canonical_name != event.setting_key:
        parts.append(f"its canonical name is {event.canonical_name}")
    if event.store == Store.LEGACY:
        parts.append("it stands unsealed in the legacy table tenant_settings")
    return "; ".join(parts)
