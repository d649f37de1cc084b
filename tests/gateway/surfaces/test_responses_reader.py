"""What is read along with a native answer of the Responses API."""

from typing import Any

import pytest

from gateway.surfaces.responses_reader import ResponsesReader

USAGE = {"input_tokens": 1, "output_tokens": 2}


def reader(*events: tuple[str, dict[str, Any]]) -> ResponsesReader:
    made = ResponsesReader()
    for name, document in events:
        made.note(name, document)
    return made


def test_nothing_yet() -> None:
    made = reader(
        ("response.created", {"response": {"status": "in_progress", "usage": None, "error": None}}),
        ("response.queued", {"response": {}}),
        ("response.in_progress", {}),
    )
    assert (made.started, made.ended, made.usage, made.error, made.service_tier) == (False, False, None, None, None)


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete"])
def test_a_whole_stream(end: str) -> None:
    made = reader(
        ("response.created", {"response": {"service_tier": "auto"}}),
        ("response.output_item.added", {"item": {}}),
    )
    assert (made.started, made.ended, made.service_tier) == (True, False, "auto")
    made.note("response.output_text.delta", {"delta": "x"})
    made.note(end, {"response": {"usage": USAGE, "service_tier": "default"}})
    assert (made.started, made.ended, made.usage, made.error) == (True, True, USAGE, None)
    assert made.service_tier == "default"


def test_a_failure_before_any_output_leaves_the_way_to_others_open() -> None:
    error = {"code": "server_error", "message": "x"}
    made = reader(("response.created", {}), ("response.failed", {"response": {"error": error, "usage": None}}))
    assert (made.started, made.ended, made.error) == (False, True, error)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"type": "error", "code": "c", "message": "m"}, {"type": "error", "code": "c", "message": "m"}),
        ({"type": "error", "error": {"code": "c", "message": "m"}}, {"code": "c", "message": "m"}),
    ],
)
def test_an_error_event_is_understood_as_documented_and_as_sent(document: dict[str, Any], error: object) -> None:
    made = reader(("error", document))
    assert (made.started, made.ended, made.error) == (False, False, error)
    made.note("response.failed", {"response": {"error": {"code": "later", "message": ""}}})
    assert made.error == error, "the first says it best"
    assert made.ended


@pytest.mark.parametrize(
    ("status", "ended", "started"),
    [
        ("completed", True, True),
        ("incomplete", True, True),
        ("cancelled", True, True),
        ("failed", True, False),
        ("in_progress", False, True),
    ],
)
def test_a_plain_answer(status: str, ended: bool, started: bool) -> None:
    made = ResponsesReader()
    made.note_answer({"status": status, "usage": USAGE, "error": None, "service_tier": "flex"})
    assert (made.ended, made.started, made.usage, made.error, made.service_tier) == (
        ended,
        started,
        USAGE,
        None,
        "flex",
    )
