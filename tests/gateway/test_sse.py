"""Events are read the same however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse import MAX_EVENT, Event, EventReader, EventTooLarge

STREAM = (
    b'\xef\xbb\xbfevent: start\r\ndata: {"a": 1}\r\n\r\n'
    b": keep-alive\n\n"
    b'data: {"b": "\xc3\xbc \\n data: x \xe2\x80\xa8"}\n\n'
    b"data: one\rdata: two\r\r"
    b"event: ping\n\n"
    b"id: 3\ndata:tight\n\n"
    b"data\n\n"
    b"data: [DONE]\n\n"
    b"data: never dispatched\n"
)
EVENTS = [
    Event("start", b'{"a": 1}'),
    Event("", b'{"b": "\xc3\xbc \\n data: x \xe2\x80\xa8"}'),
    Event("", b"one\ntwo"),
    Event("", b"tight"),
    Event("", b""),
    Event("", b"[DONE]"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    reader, events, at = EventReader(), [], 0
    for end in [*sorted(cuts), len(STREAM)]:
        events += reader.feed(STREAM[at:end])
        at = end
    assert events == EVENTS


@pytest.mark.parametrize("endless", [b"x" * 65536, b"data: 1\n" * 8192])
def test_event_without_an_end_is_refused_before_it_fills_the_memory(endless: bytes) -> None:
    reader, fed = EventReader(), 0
    with pytest.raises(EventTooLarge):
        while fed < 8 * MAX_EVENT:
            reader.feed(endless)
            fed += len(endless)
    assert fed <= 5 * MAX_EVENT
