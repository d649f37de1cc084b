"""The reader of server-sent events finds the first event that is not JSON, however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.event_check import MAX_EVENT, EventCheck

GOOD = (
    b'event: message_start\r\ndata: {"type": "message_start"}\r\n\r\n'
    b": keep-alive\n\n"
    b'data: {"a": "\xc3\xbc \\n data: x"}\n\n'
    b'data: {"b":\ndata: 1}\n\n'
    b"event: ping\n\n"
    b'id: 3\ndata:{"c":2}\n\n'
    b"data: [DONE]\n\n"
)
BAD = [b"data: {broken\n\n", b"data: {}{}\n\n", b"data: hello\r\n\r\n", b"data: [DONE\n\n", b'data: {"x": NaN}\n\n']


def first_bad(stream: bytes, cuts: list[int]) -> int | None:
    """Where the first bad event ends in `stream`, fed in pieces."""
    check, at = EventCheck(), 0
    for end in [*sorted(cut for cut in cuts if cut < len(stream)), len(stream)]:
        found = check.feed(stream[at:end])
        if found is not None:
            return at + found
        at = end
    return None


@given(st.lists(st.integers(0, len(GOOD)), max_size=8))
def test_good_stream_passes_however_it_is_cut(cuts: list[int]) -> None:
    assert first_bad(GOOD, cuts) is None


@given(st.sampled_from(BAD), st.lists(st.integers(0, len(GOOD) + 20), max_size=8))
def test_first_bad_event_is_found_at_its_end_however_it_is_cut(bad: bytes, cuts: list[int]) -> None:
    assert first_bad(GOOD + bad + GOOD, cuts) == len(GOOD + bad)


@pytest.mark.parametrize("endless", [b"x" * 65536, b"data: 1\n" * 8192])
def test_event_without_an_end_is_found_before_it_fills_the_memory(endless: bytes) -> None:
    check = EventCheck()
    fed = 0
    while check.feed(endless) is None:
        fed += len(endless)
        assert fed <= 1.2 * MAX_EVENT
