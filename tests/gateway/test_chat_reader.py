"""The fast reader of OpenAI's wire against the slow one: any events, any line ends, cut anywhere."""

import json
import re
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.chat_reader import ChatReader
from gateway.seen import Seen, parse
from gateway.sse import MAX_EVENT, EventReader, event_of

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)
USAGE = st.sampled_from([{"prompt_tokens": 3, "completion_tokens": 2}, {}, None, {"service_tier": "flex"}, 7])
CHOICE = st.fixed_dictionaries(
    {"delta": st.fixed_dictionaries({"content": TEXT})},
    optional={
        "index": st.sampled_from([0, 1, 2, -1, 1.0, "0", None]),
        "finish_reason": st.sampled_from([None, "", "stop", "length", 3]),
        "usage": USAGE,
    },
)
CHUNK = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=3)},
    optional={
        "id": TEXT,
        "object": st.sampled_from(["chat.completion.chunk", "error", "", 5]),
        "usage": USAGE,
        "service_tier": st.sampled_from([None, "", "default", 5]),
        "error": st.sampled_from([None, "", {}, False]),
        "extra": st.sampled_from([[1, {"choices": [{"index": 9}]}], "data: [DONE]", "\ud83d", 1e400, "a\n\nb"]),
    },
)
ODD = st.sampled_from(
    [
        '{"error": {"message": "no"}}',
        '{"error": "no"}',
        '{"object": "error", "message": "no"}',
        '{"choices": null, "usage": {"prompt_tokens": 1}}',
        '{"usage": {"prompt_tokens": 1}}',
        '{"a":' * 3000 + "1" + "}" * 3000,
        "{",
        "null",
        "[]",
        "",
        " [DONE] ",
        "[DONE]",
    ]
)
FIELD = st.sampled_from(
    [": a comment", ":", "id: 7", "retry: 5", "event: chunk", "event: error", "event", "nonsense", ""]
)
EOL = st.sampled_from(["\n", "\n", "\r\n", "\r"])


@st.composite
def events(draw: st.DrawFn) -> str:
    """One event with its empty line; its data on one line or on several."""
    end = draw(EOL)
    data = draw(st.one_of(CHUNK.map(lambda chunk: json.dumps(chunk, ensure_ascii=draw(st.booleans()))), ODD))
    data = data.encode("utf-8", "replace").decode()
    lines = [draw(FIELD)] if draw(st.integers(0, 4)) == 0 else []
    if draw(st.integers(0, 9)) > 0:
        space = draw(st.sampled_from([" ", "", " ", "  "]))
        parts = data.split(", ") if draw(st.integers(0, 5)) == 0 else [data]
        lines += [f"data:{space}{part}{',' if n + 1 < len(parts) else ''}" for n, part in enumerate(parts)]
    return end.join(lines) + end + draw(EOL if end != "\r" else st.sampled_from(["\r", "\r\n"]))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream, and the same in pieces."""
    raw = "".join(draw(st.lists(events(), max_size=6))).encode()
    if draw(st.booleans()):
        raw = raw[: draw(st.integers(0, len(raw)))]
    if draw(st.integers(0, 9)) == 0:
        raw = b"\xef\xbb\xbf" + raw
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(raw))), max_size=6)))
    places = [0, *[cut for cut in cuts if cut < len(raw)], len(raw)]
    return raw, [raw[a:b] for a, b in pairwise(places) if b > a]


LINE_END = re.compile(rb"\r\n|\n|\r")


def slowly(raw: bytes) -> tuple[Seen, list[bytes], bytes]:
    """The facts, the events up to what ends or breaks the stream, and what is left without an end: line by line."""
    seen, whole, start, held = Seen(), list[bytes](), 0, 0
    reader = EventReader()
    for end in LINE_END.finditer(raw):
        line = raw[start : end.end()]
        start = end.end()
        before = raw[held:start]
        for event in reader.feed(line):
            seen.note_event(event)
        if line in (b"\n", b"\r", b"\r\n"):
            if seen.malformed or seen.error is not None:
                return seen, whole, b""
            whole.append(before)
            held = start
            if seen.ended:
                return seen, whole, b""
    return seen, whole, raw[held:]


def left_of(rest: bytes) -> bytes:
    """What of an event without its end goes out: nothing of one that was cut, or that is an error."""
    found, seen = event_of(rest.rstrip(b"\r\n")), Seen()
    if found is not None:
        seen.note_event(found)
    return b"" if seen.malformed or seen.error is not None else rest


def told(seen: Seen) -> tuple[object, ...]:
    usage = None if seen.usage is None else dict(seen.usage)
    return seen.finish, seen.choices, usage, seen.ended, seen.error, seen.malformed, seen.service_tier


def usage_only(event: bytes) -> bool:
    """Whether an event is the chunk that the gateway asked for."""
    found = event_of(event.rstrip(b"\r\n"))
    document = parse(found.data) if found else None
    return isinstance(document, dict) and document.get("usage") is not None and not document.get("choices")


@given(stream=streams())
@settings(max_examples=300, deadline=None)
def test_all_bytes_go_out_and_the_facts_are_those_of_the_slow_reader(stream: tuple[bytes, list[bytes]]) -> None:
    raw, pieces = stream
    assume(not raw.endswith(b"\n\r"))  # half a line end: nobody knows yet
    seen, whole, rest = slowly(raw)
    reader = ChatReader(Seen(), keep_usage=True)
    out = []
    for piece in pieces:
        out.append(reader.feed(piece))
        sent = b"".join(out)
        assert not sent or sent.endswith((b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\n", b"\r")), sent
        if reader.over:
            break
    assert told(reader.seen) == told(seen)
    shown, expected = b"".join(out) + reader.rest(), b"".join(whole) + left_of(rest)
    if reader.over:  # the end of the last line may come in a later piece; empty lines belong to what broke it
        shown, expected = shown.rstrip(b"\r\n"), expected.rstrip(b"\r\n")
    assert shown == expected


@given(stream=streams())
@settings(max_examples=200, deadline=None)
def test_without_asking_the_usage_chunks_alone_are_left_out(stream: tuple[bytes, list[bytes]]) -> None:
    raw, pieces = stream
    assume(not raw.endswith(b"\n\r"))  # half a line end: nobody knows yet
    seen, whole, rest = slowly(raw)
    reader = ChatReader(Seen(), keep_usage=False)
    out = b""
    for piece in pieces:
        out += reader.feed(piece)
        if reader.over:
            break
    kept = b"".join(event for event in whole if not usage_only(event))
    assert told(reader.seen) == told(seen)
    rest = b"" if usage_only(rest) else left_of(rest)
    assert lines(out + reader.rest()) == lines(kept + rest)


def lines(raw: bytes) -> list[bytes]:
    """Without the empty ones: what is left out may leave a line end of its own behind."""
    return [line for line in LINE_END.split(raw) if line]


def chunks(*datas: str, end: str = "\n") -> bytes:
    return "".join(f"data: {data}{end}{end}" for data in datas).encode()


ONE = '{"choices":[{"index":0,"delta":{"content":"a"}}]}'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_nothing_is_held_back_of_whole_events_and_nothing_comes_after_the_end_mark(end: str) -> None:
    raw = chunks(ONE, ONE, "[DONE]", end=end)
    reader = ChatReader(Seen(), keep_usage=True)
    assert reader.feed(chunks(ONE, end=end)) == chunks(ONE, end=end)
    for cut in range(1, len(raw)):
        reader = ChatReader(Seen(), keep_usage=True)
        out = reader.feed(raw[:cut])
        out += b"" if reader.over else reader.feed(raw[cut:] + b"data: more\n\ndata: and m")
        assert out + reader.rest() in (raw, raw + b"\n") and reader.over


def test_extra_empty_lines_are_the_providers_and_stay() -> None:
    raw = chunks(ONE).join([b"\n", b"\n\n\n", b"\n"]) + b"\n"
    reader = ChatReader(Seen(), keep_usage=False)
    assert reader.feed(raw) + reader.rest() == raw


def test_json_that_is_too_deep_breaks_the_stream_and_not_the_gateway() -> None:
    deep = '{"choices":[],"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    reader = ChatReader(Seen(), keep_usage=True)
    assert reader.feed(chunks(ONE, deep, ONE)) == chunks(ONE) and reader.seen.malformed


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: " + b"x" * 993 + b"\n", b"\r\n" + b"x" * 998])
def test_event_without_an_end_is_bounded_in_time_and_memory(piece: bytes) -> None:
    reader = ChatReader(Seen(), keep_usage=True)
    began = time.process_time()
    tracemalloc.start()
    assert reader.feed(b"data: ") == b""
    fed = 0
    while not reader.over:
        assert reader.feed(piece) == b""
        fed += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fed <= MAX_EVENT + 2000 and peak < 3 * MAX_EVENT
    assert time.process_time() - began < 5
