"""How much of an event, or of a whole answer, is text that a model wrote."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chat_reader import ChatReader
from gateway.native_readers import MessagesStreamReader, ResponsesStreamReader
from gateway.output_text import text_size
from gateway.seen import Seen, parse
from gateway.stream_reader import StreamReader

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
SOUND = {"id": "a", "data": "QUJD" * 500, "transcript": "hello"}


def chat(**delta: object) -> dict[str, object]:
    logprobs = {"content": [{"token": "hello", "logprob": -1, "bytes": [1], "top_logprobs": []}]}
    return {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant"} | delta, "logprobs": logprobs}]}


def block(kind: str, **more: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind} | more}


def gemini(part: dict[str, object]) -> dict[str, object]:
    return {"candidates": [{"content": {"parts": [part], "role": "model"}}], "modelVersion": "gemini-2.5-flash"}


SIZES: list[tuple[dict[str, object], int]] = [
    (chat(content="hello"), 5),
    (chat(content=""), 0),
    (chat(content=None, reasoning_content="hmm"), 3),
    (chat(content="a", reasoning="hmm", reasoning_content="hmm"), 4),  # both names for the same
    (chat(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}]), 3),  # Mistral's
    (chat(refusal="no"), 2),
    (chat(tool_calls=[{"index": 0, **CALL}]), 11),
    (chat(tool_calls=[{"index": 0, "function": {"arguments": {"a": 1}}}]), 7),
    (chat(function_call={"name": "look", "arguments": "{}"}), 6),
    (chat(audio=SOUND), 5),
    (chat(annotations=[{"url_citation": {"title": "x" * 99}}], citations=["x" * 99]), 0),
    (chat(content="½"), 2),
    (chat(content="\ud83d"), 3),
    ({"choices": [{"index": 0, "text": "hello"}]}, 5),
    (block("text_delta", text="hello"), 5),
    (block("thinking_delta", thinking="hmm"), 3),
    (block("input_json_delta", partial_json='{"a'), 3),
    (block("signature_delta", signature="x" * 6000), 0),
    (block("citations_delta", citation={"cited_text": "x" * 99}), 0),
    ({"type": "response.output_text.delta", "delta": "hello", "logprobs": [{"token": "hello"}], "item_id": "i"}, 5),
    ({"type": "response.function_call_arguments.delta", "delta": '{"a'}, 3),
    ({"type": "response.audio.delta", "delta": "QUJD" * 500}, 0),
    ({"type": "response.output_audio.delta", "delta": "QUJD" * 500}, 0),
    ({"type": "response.audio.transcript.delta", "delta": "hello"}, 5),
    (gemini({"text": "hello"}), 5),
    (gemini({"functionCall": {"name": "look", "args": {"a": 1}}, "thoughtSignature": "x" * 999}), 11),
    (gemini({"inlineData": {"mimeType": "image/png", "data": "QUJD" * 500}}), 0),
    ({"type": "content-delta", "delta": {"message": {"content": {"text": "hello"}}}}, 5),  # Cohere's
    ({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "hmm"}}}, 3),
    ({"type": "tool-call-delta", "delta": {"message": {"tool_calls": {"function": {"arguments": "{}"}}}}}, 2),
    # whole answers
    ({"choices": [{"message": {"content": "hello", "audio": SOUND, "tool_calls": [CALL]}}, {"text": "no"}]}, 23),
    (
        {"type": "message", "content": [{"type": "text", "text": "hello"}, {"type": "redacted_thinking", "data": "x"}]},
        5,
    ),
    ({"type": "message", "content": [{"type": "tool_use", "name": "look", "input": {"a": 1}, "id": "toolu_1"}]}, 11),
    ({"type": "message", "content": [{"type": "mcp_tool_result", "content": [{"type": "text", "text": "x"}]}]}, 0),
    (
        {
            "object": "response",
            "instructions": "be brief",
            "text": {"format": {"type": "text"}},
            "tools": [{"type": "function", "name": "look"}],
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hmm"}], "encrypted_content": "x"},
                {"type": "message", "content": [{"type": "output_text", "text": "hello", "annotations": []}]},
                {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "c"},
            ],
        },
        14,
    ),
    ({"error": {"message": "no"}}, 0),
]


@pytest.mark.parametrize(("document", "size"), SIZES)
def test_text_is_counted_in_bytes_and_nothing_else_is(document: dict[str, object], size: int) -> None:
    assert text_size(document) == size


NAMES = ["choices", "delta", "message", "content", "text", "reasoning", "arguments", "parts", "output", "input", "x"]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
)


@given(JSON)
def test_odd_documents_do_no_harm(document: object) -> None:
    assert 0 <= text_size(document) <= len(json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def test_depth_does_no_harm() -> None:
    deep: dict[str, object] = {"text": "hello"}
    for _ in range(5000):
        deep = {"content": [deep]}
    assert text_size(deep) == 5
    for depth in range(900, 1023, 3):
        assert text_size(parse(b'{"arguments":' + b'{"a":' * depth + b"1" + b"}" * (depth + 1))) in (0, 6 * depth + 1)


@pytest.mark.parametrize("name", ["content", "reasoning", "tool_calls", "other"])
def test_depth_does_no_harm_in_a_stream(name: str) -> None:
    for depth in [*range(900, 1300, 7), 100_000]:
        facts = Seen()
        deep = "[" * depth + "]" * depth
        ChatReader(facts, keep_usage=True).feed(f'data: {{"choices":[{{"delta":{{"{name}":{deep}}}}}]}}\n\n'.encode())
        assert facts.malformed or facts.produced == 1


def test_more_than_anybody_says_takes_no_time() -> None:
    bomb = {"choices": [{"delta": {"content": [{"text": "x"}] * 500_000}}]}
    began = time.process_time()
    assert text_size(bomb) < 60_000
    assert time.process_time() - began < 0.5


def fed(reader: type[StreamReader] | None, *documents: object) -> Seen:
    facts = Seen()
    reads = ChatReader(facts, keep_usage=True) if reader is None else reader(facts)
    for document in documents:
        reads.feed(b"data: " + json.dumps(document).encode() + b"\n\n")
    return facts


def logprobs(count: int) -> list[dict[str, object]]:
    """Chunks of one word, with what else it might have been: no two of one length."""
    return [
        {"choices": [{"index": 0, "delta": {"content": " word"}, "logprobs": {"content": [{"top": "x" * (n * 37)}]}}]}
        for n in range(count)
    ]


STREAMS: dict[str, tuple[type[StreamReader] | None, list[dict[str, object]], int]] = {
    "log probabilities": (None, logprobs(30), 30),
    "log probabilities, longest first": (None, logprobs(30)[::-1], 30),
    "a second of sound": (None, [chat(audio={"data": "QUJD" * 4000})] * 4, 4),
    "words": (None, [chat(content=word) for word in ("a", " recommendation", " is", ",", " then")] * 9, 45),
    "sentences": (None, [chat(content="some words that come together ")] * 8, 60),
    "calls": (None, [chat(content=" a"), *[chat(tool_calls=[{"function": {"arguments": '{"'}}])] * 9], 10),
    "two choices": (None, [{"choices": [{"index": n, "delta": {"content": "hello "}} for n in (0, 1)]}] * 5, 10),
    "one for all": (
        None,
        [{"choices": [{"index": 0, "delta": {"content": "hello " * 20}, "finish_reason": "stop"}]}],
        30,
    ),
    "an end alone": (None, [chat(content=" a"), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}], 1),
    "a signature": (
        MessagesStreamReader,
        [*[block("thinking_delta", thinking=" hmm")] * 30, block("signature_delta", signature="x" * 6000)],
        31,
    ),
    "sentences of thought": (MessagesStreamReader, [block("thinking_delta", thinking="x" * 40)] * 3, 30),
    "spoken": (ResponsesStreamReader, [{"type": "response.audio.delta", "delta": "QUJD" * 4000}] * 4, 4),
}


@pytest.mark.parametrize("name", STREAMS)
def test_stream_that_nobody_counted_is_counted_by_its_text(name: str) -> None:
    reader, documents, tokens = STREAMS[name]
    assert fed(reader, *documents).produced == tokens


@given(st.lists(st.tuples(st.text(max_size=30), st.integers(0, 300)), max_size=20))
def test_as_many_as_the_slow_reader_finds_or_nearly(said: list[tuple[str, int]]) -> None:
    """The quick one may take what stands around a word for a part of it, and what escapes a letter; and a word for what
    stands around it, where that was more in the events before."""
    quick, slow = Seen(), Seen()
    reader = ChatReader(quick, keep_usage=True)
    for text, more in said:
        document = {"choices": [{"index": 0, "delta": {"content": text}}], "more": "x" * more}
        reader.feed(b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n")
        slow.note_output(document)
    assert quick.pieces == slow.pieces
    escapes = sum(text.count(letter) for text, _ in said for letter in '"\\\b\f\n\r\t')
    assert quick.text - slow.text <= 16 * len(said) + escapes
    assert slow.text - quick.text <= 16 * len(said) + sum(more for _, more in said)
