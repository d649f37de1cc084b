"""The log: one JSON line an event, one shape for libraries too, and nothing in it that looks like a key."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import structlog

from gateway import logs
from gateway.events import (
    AttemptEnded,
    Delivery,
    Endpoint,
    Event,
    Events,
    FellBack,
    KeyResolved,
    Outcome,
    RequestCompleted,
    RouteRefused,
    SpendUnusual,
    TokenUsage,
    WebhookTried,
)
from gateway.scrub import MASK
from keystore.secret import Secret

COMPLETED = RequestCompleted(
    request_id="req_1",
    endpoint=Endpoint.CHAT_COMPLETIONS,
    method="POST",
    status=200,
    outcome=Outcome.OK,
    duration_s=1.23456789,
    upstream_s=1.2,
    tenant="acme",
    token_id="tok_1",
    requested_model="auto",
    provider="minimax",
    model="MiniMax-M2",
    key_source="byok",
    key_via="former",
    attempts=1,
    usage=TokenUsage(input_tokens=11, output_tokens=7),
    cost_usd=Decimal("0.0000001"),
)
RESOLVED = KeyResolved(
    request_id="req_1",
    tenant="acme",
    provider="minimax",
    via="former",
    setting_key="MINIMAX_2_7_API_KEY",
    store="credentials",
    canonical_name="MINIMAX_API_KEY",
)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to log to; the process's logging is put back as it was."""
    names = ("", *logs.QUIET, *logs.LITELLM)
    before = {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names}
    yield io.StringIO()
    for name, (level, handlers) in before.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers[:] = handlers


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def logged(stream: io.StringIO, event: Event, level: str = "debug") -> list[dict[str, Any]]:
    logs.LogSubscriber(logs.configure_logs(level, stream))(event)
    return lines(stream)


# --- lines of events -------------------------------------------------------------------------------------------------


def test_request_completed_is_one_line_with_every_known_fact(stream: io.StringIO) -> None:
    [line] = logged(stream, COMPLETED, "info")
    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.tzinfo == UTC
    assert abs((datetime.now(UTC) - stamp).total_seconds()) < 60
    assert line == {
        "level": "info",
        "event": "request.completed",
        "request_id": "req_1",
        "endpoint": "chat_completions",
        "method": "POST",
        "status": 200,
        "outcome": "ok",
        "duration_s": 1.234568,
        "upstream_s": 1.2,
        "overhead_s": 0.034568,
        "tenant": "acme",
        "token_id": "tok_1",
        "requested_model": "auto",
        "provider": "minimax",
        "model": "MiniMax-M2",
        "key_source": "byok",
        "key_via": "former",
        "attempts": 1,
        "dropped": [],
        "passed_over": [],
        "stream": False,
        "input_tokens": 11,
        "output_tokens": 7,
        "audio_input_tokens": 0,
        "audio_output_tokens": 0,
        "cache_write_1h_tokens": 0,
        "cache_write_tokens": 0,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": "0.0000001",
    }


def test_line_starts_with_time_level_and_event(stream: io.StringIO) -> None:
    [line] = logged(stream, COMPLETED)
    assert list(line)[:3] == ["timestamp", "level", "event"]


@pytest.mark.parametrize(
    ("fault", "level"),
    [
        (None, "info"),
        ("caller", "info"),
        ("plan", "info"),
        ("tenant_key", "warning"),
        ("provider", "warning"),
        ("gateway", "error"),
        ("something_new", "error"),
    ],
)
def test_level_of_a_request_follows_from_whose_fault_it_was(stream: io.StringIO, fault: str | None, level: str) -> None:
    [line] = logged(stream, replace(COMPLETED, fault=fault))
    assert line["level"] == level


def test_health_probe_is_quiet_unless_it_fails(stream: io.StringIO) -> None:
    probe = replace(COMPLETED, endpoint=Endpoint.OPS, provider=None)
    assert logged(stream, probe, "info") == []
    [line] = logged(stream, replace(probe, status=503), "info")
    assert line["status"] == 503


def test_callers_model_name_is_cut_when_it_is_long(stream: io.StringIO) -> None:
    [line] = logged(stream, replace(COMPLETED, requested_model="m" * 100_000))
    assert line["requested_model"] == "m" * logs.LONGEST_NAME


def test_key_under_a_former_name_logs_one_line_that_names_it(stream: io.StringIO) -> None:
    [line] = logged(stream, RESOLVED, "info")
    assert (line["event"], line["level"]) == ("key.legacy_name", "info")
    assert line["message"] == (
        "the key for minimax is the one stored as MINIMAX_2_7_API_KEY; its canonical name is MINIMAX_API_KEY"
    )
    wanted = {
        "tenant": "acme",
        "provider": "minimax",
        "setting_key": "MINIMAX_2_7_API_KEY",
        "canonical_name": "MINIMAX_API_KEY",
        "via": "former",
        "store": "credentials",
    }
    assert {name: line[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("via", "store", "event"),
    [
        ("canonical", "credentials", "key.resolved"),
        ("family", "credentials", "key.legacy_name"),
        ("former", "credentials", "key.legacy_name"),
        ("sibling", "credentials", "key.legacy_name"),
        ("canonical", "legacy", "key.legacy_name"),
        ("former", "legacy", "key.legacy_name"),
    ],
)
def test_line_of_a_resolved_key_follows_from_name_and_store(
    stream: io.StringIO, via: str, store: str, event: str
) -> None:
    [line] = logged(stream, replace(RESOLVED, via=via, store=store))
    assert line["event"] == event


def test_legacy_table_is_named_when_the_key_came_from_it(stream: io.StringIO) -> None:
    [line] = logged(stream, replace(RESOLVED, via="canonical", setting_key="MINIMAX_API_KEY", store="legacy"))
    assert line["message"] == (
        "the key for minimax is the one stored as MINIMAX_API_KEY; "
        "it stands unsealed in the legacy table tenant_settings"
    )


def test_missing_key_is_a_debug_line(stream: io.StringIO) -> None:
    [line] = logged(stream, KeyResolved("req_1", "acme", "minimax", "missing"))
    assert (line["event"], line["level"]) == ("key.missing", "debug")


@pytest.mark.parametrize(
    ("happened", "event", "level"),
    [
        (AttemptEnded("req_1", "minimax", "MiniMax-M2", "timeout", 5.0), "attempt", "debug"),
        (FellBack("req_1", "minimax", "deepseek", "timeout"), "fallback", "warning"),
        (
            RouteRefused("req_1", "acme", "auto", {"no_credential": 3}, "minimax needs a key"),
            "route.refused",
            "warning",
        ),
    ],
)
def test_other_events_have_their_line(stream: io.StringIO, happened: Event, event: str, level: str) -> None:
    [line] = logged(stream, happened)
    assert (line["event"], line["level"], line["request_id"]) == (event, level, "req_1")


@pytest.mark.parametrize(
    ("outcome", "level"),
    [(Delivery.DELIVERED, "info"), (Delivery.FAILED, "warning"), (Delivery.GIVEN_UP, "error")],
)
def test_line_of_a_webhook_is_as_loud_as_its_outcome(stream: io.StringIO, outcome: Delivery, level: str) -> None:
    [line] = logged(stream, WebhookTried("wh_000000000001", "msg_1", outcome, 2, 500))
    assert (line["event"], line["level"]) == (f"webhook.{outcome}", level)
    assert (line["webhook"], line["message"], line["tries"], line["status"]) == ("wh_000000000001", "msg_1", 2, 500)


def test_alerts_are_warnings_with_exact_dollars(stream: io.StringIO) -> None:
    hour, usual = "2026-11-20T12:00:00+00:00", Decimal("0.000000001")
    [line] = logged(stream, SpendUnusual("acme", None, hour, Decimal("1E+1"), usual, 10))
    assert (line["event"], line["level"], line["tenant"]) == ("spend.unusual", "warning", "acme")
    assert (line["spent_usd"], line["usual_usd"], line["hour"]) == ("10", "0.000000001", hour)


def test_refusal_carries_counts_and_nearest_miss(stream: io.StringIO) -> None:
    [line] = logged(stream, RouteRefused("req_1", "acme", "auto", {"no_credential": 3}, "minimax needs a key"))
    assert (line["counts"], line["nearest_miss"]) == ({"no_credential": 3}, "minimax needs a key")


def test_closed_stream_does_not_reach_the_publisher(stream: io.StringIO) -> None:
    events = Events(logs.LogSubscriber(logs.configure_logs("info", stream)))
    stream.close()
    events.publish(COMPLETED)
    assert events.failures == 1


# --- one shape for everyone ------------------------------------------------------------------------------------------


def test_library_record_comes_out_in_the_same_shape(stream: io.StringIO) -> None:
    logs.configure_logs("info", stream)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request %s", "received")
    [line] = lines(stream)
    assert line.pop("timestamp")
    assert line == {"level": "warning", "event": "Invalid HTTP request received", "logger": "uvicorn.error"}


def test_request_context_is_on_the_lines_of_libraries(stream: io.StringIO) -> None:
    logs.configure_logs("info", stream)
    with structlog.contextvars.bound_contextvars(request_id="req_9"):
        logging.getLogger("uvicorn.error").warning("slow")
    [line] = lines(stream)
    assert line["request_id"] == "req_9"


@pytest.mark.parametrize("name", [*logs.QUIET, *logs.LITELLM, "httpcore.http11", "sqlalchemy.engine.Engine"])
def test_talkative_library_is_held_to_warnings_when_all_else_is_debug(stream: io.StringIO, name: str) -> None:
    logs.configure_logs("debug", stream)
    logging.getLogger(name).info('POST {"messages": [{"content": "private"}]}')
    logging.getLogger("another").debug("seen")
    logging.getLogger(name).warning("worth knowing")
    assert [line["event"] for line in lines(stream)] == ["seen", "worth knowing"]


def test_litellm_line_stands_once_when_its_own_handler_was_added(stream: io.StringIO) -> None:
    logs.configure_logs("info", stream)
    logging.getLogger("LiteLLM").addHandler(logging.StreamHandler(stream))
    logs.quiet_libraries()
    logging.getLogger("LiteLLM").warning("once")
    assert [line["event"] for line in lines(stream)] == ["once"]


def test_second_configuration_replaces_the_first(stream: io.StringIO) -> None:
    logs.configure_logs("debug", stream)
    logs.configure_logs("error", stream)
    logging.getLogger("any").warning("too low")
    logging.getLogger("any").error("once")
    assert [line["event"] for line in lines(stream)] == ["once"]


def test_structlog_itself_stays_unconfigured(stream: io.StringIO) -> None:
    logs.configure_logs("info", stream)
    assert not structlog.is_configured()


def test_standard_output_is_the_default(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logs("info").info("here")
    assert json.loads(capsys.readouterr().out)["event"] == "here"


@pytest.mark.parametrize("level", ["info", "INFO", "Warning", "critical"])
def test_level_is_known_in_any_case(stream: io.StringIO, level: str) -> None:
    logs.configure_logs(level, stream)
    assert logging.getLogger().level == logs.LEVELS[level.lower()]


def test_unknown_level_names_the_nearest(stream: io.StringIO) -> None:
    with pytest.raises(logs.LogLevelError, match=r"not 'warn'; did you mean \"warning\"\?"):
        logs.configure_logs("warn", stream)


def test_line_is_json_when_a_value_is_not(stream: io.StringIO) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError

    loop: dict[str, object] = {}
    loop["itself"] = loop
    logger = logs.configure_logs("info", stream)
    logger.info("odd", lone="\ud800", infinite=float("inf"), raw=b"\xff", text="a\nb", no=Unprintable(), loop=loop)
    [line] = lines(stream)
    assert (line["infinite"], line["raw"], line["text"]) == ("inf", "\ufffd", "a\nb")
    assert line["no"] == "<Unprintable that cannot be printed: RuntimeError>"
    assert stream.getvalue().count("\n") == 1


# --- redaction -------------------------------------------------------------------------------------------------------

CANARY = "Q7zKfT2mWx9LcVb4NhRd8Ys3"
SHAPES = [
    f"sk-{CANARY}",
    f"sk-ant-api03-{CANARY}",
    f"sk-or-v1-{CANARY}",
    f"gsk_{CANARY}",
    f"xai-{CANARY}",
    f"AIza{CANARY}",
    f"wg_live_{CANARY}",
    f"wg_test_{CANARY}",
    f"wg_admin_{CANARY}",
    f"Bearer {CANARY}",
    f"bearer  {CANARY}",
    f"eyJhbGciOiJIUzI1NiJ9.{CANARY}.sig",
    f"https://example.com/v1?key={CANARY}",
    f"postgresql://wardgate:{CANARY}@db.internal/wardgate",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_key_is_masked_wherever_it_stands(stream: io.StringIO, shape: str) -> None:
    logger = logs.configure_logs("debug", stream)
    logger.info(
        f"in the event: {shape}",
        plain=shape,
        quoted=f'{{"key": "{shape}"}}',
        nested={"list": [{"deep": (shape, {shape})}], shape: 1},
        raw=shape.encode(),
        error=ValueError(shape),
    )
    logging.getLogger("library").warning("in a library's line: %s", shape)
    assert len(lines(stream)) == 2
    assert CANARY not in stream.getvalue()
    assert stream.getvalue().count(MASK) >= 7


@pytest.mark.parametrize("shape", SHAPES)
def test_key_is_masked_in_a_traceback_and_its_causes(stream: io.StringIO, shape: str) -> None:
    logger = logs.configure_logs("info", stream)
    try:
        try:
            raise KeyError(shape)
        except KeyError as cause:
            raise RuntimeError(f"upstream said: {shape}") from cause
    except RuntimeError as error:
        error.add_note(f"sent with {shape}")
        logger.error("request.failed", exc_info=error)
        logging.getLogger("library").exception("failed")
    ours, theirs = lines(stream)
    assert "RuntimeError: upstream said: " in ours["exception"]
    assert "RuntimeError: upstream said: " in theirs["exception"]
    assert "KeyError" in ours["exception"]
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize("name", sorted(logs.SECRET_FIELDS))
def test_value_of_a_secret_field_is_masked_whatever_it_looks_like(stream: io.StringIO, name: str) -> None:
    logs.configure_logs("info", stream).info("x", headers={name.upper(): CANARY}, **{name: CANARY})
    [line] = lines(stream)
    assert line[name] == line["headers"][name.upper()] == MASK


def test_key_deep_in_a_nest_is_masked(stream: io.StringIO) -> None:
    nest: object = f"sk-{CANARY}"
    for _ in range(30):
        nest = [nest]
    logs.configure_logs("info", stream).info("x", nest=nest)
    assert CANARY not in stream.getvalue()


def test_secret_object_shows_its_mask(stream: io.StringIO) -> None:
    logs.configure_logs("info", stream).info("x", value=Secret(CANARY))
    [line] = lines(stream)
    assert line["value"] == "Secret(***)"


def test_key_at_the_cut_of_a_long_text_leaves_no_part(stream: io.StringIO) -> None:
    for offset in range(60):
        text = "a" * (logs.LONGEST // 2 - offset) + f" sk-{CANARY} " + "b" * logs.LONGEST
        logs.configure_logs("info", stream).info("x", text=text)
    assert CANARY[:4] not in stream.getvalue()
    assert CANARY[-4:] not in stream.getvalue()


def test_long_text_keeps_both_ends(stream: io.StringIO) -> None:
    logs.configure_logs("info", stream).info("x", text="begin" + " a" * logs.LONGEST + "end")
    [line] = lines(stream)
    assert line["text"].startswith("begin")
    assert line["text"].endswith("end")
    assert len(line["text"]) < logs.LONGEST + 10


@pytest.mark.parametrize(
    "innocent",
    ["MINIMAX_2_7_API_KEY", "minimax/MiniMax-M2", "task-force-of-seven", "req_0123456789abcdef", "gpt-4o-mini"],
)
def test_ordinary_word_is_left_alone(stream: io.StringIO, innocent: str) -> None:
    logs.configure_logs("info", stream).info("x", word=innocent)
    [line] = lines(stream)
    assert line["word"] == innocent
