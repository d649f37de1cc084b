"""Ends, usage and errors are read from what the provider really sent."""

import json
from collections.abc import Callable

import pytest

from gateway.chat_reader import ChatReader
from gateway.native_readers import MessagesStreamReader, ResponsesStreamReader
from gateway.seen import FREELY, MOST_INNER, Seen, parse, skim
from gateway.sse import Event
from gateway.stream_reader import StreamReader


def seen(*documents: object) -> Seen:
    facts = Seen()
    for document in documents:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        facts.note_event(Event("", data))
    return facts


def delta(index: int, reason: str | None = None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": index, "delta": more, "finish_reason": reason}]}


COMPLETE = {
    "a reason for the one choice": (seen(delta(0), delta(0, "stop")), 1, True),
    "an end mark alone": (seen(delta(0), b"[DONE]"), 1, True),
    "no end at all": (seen(delta(0, content="data: [DONE]")), 1, False),
    "an empty reason is none": (seen(delta(0, "")), 1, False),
    "one of two choices": (seen(delta(0, "stop"), delta(1)), 2, False),
    "the second choice never came": (seen(delta(0, "stop")), 2, False),
    "both choices": (seen(delta(1, "stop"), delta(0, "length")), 2, True),
    "Anthropic": (seen({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}), 1, True),
    "Anthropic, message_stop": (seen({"type": "message_stop"}), 1, True),
    "Anthropic, not yet": (seen({"type": "message_start", "message": {"stop_reason": None}}), 1, False),
    "Gemini": (seen({"candidates": [{"finishReason": "STOP"}]}), 1, True),
    "nothing": (seen(), 1, False),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_answer_is_complete_when_every_choice_was_ended(name: str) -> None:
    facts, choices, complete = COMPLETE[name]
    assert facts.complete(choices) is complete


def test_reasons_are_kept_in_the_providers_own_words() -> None:
    assert seen(delta(0, "insufficient_system_resource"), delta(2, "eos")).finish == {
        0: "insufficient_system_resource",
        2: "eos",
    }


def test_usage_is_gathered_on_every_wire() -> None:
    assert seen({"choices": [], "usage": {"prompt_tokens": 1}}).usage == {"prompt_tokens": 1}
    assert seen({"usageMetadata": {"promptTokenCount": 2}}).usage == {"promptTokenCount": 2}
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}
    end = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}
    assert seen(start, end).usage == {"input_tokens": 3, "output_tokens": 9}
    assert seen({"usage": None}, {"usage": {}}).usage is None


def ended(index: int, written: int) -> dict[str, object]:
    usage = {"prompt_tokens": 3, "completion_tokens": written}
    return {"choices": [{"index": index, "delta": {}, "finish_reason": "stop", "usage": usage}]}


def test_usage_in_a_choice_is_that_of_an_answer_with_one_alone() -> None:
    total = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}
    assert seen(delta(0), ended(0, 4)).usage == {"prompt_tokens": 3, "completion_tokens": 4}
    assert seen(delta(0), delta(1), ended(0, 4), ended(1, 5)).usage is None
    assert seen(delta(0), ended(0, 4), total).usage == {"prompt_tokens": 3, "completion_tokens": 9}


OPENAI = [
    (delta(0, content="x", reasoning_content="hm"), True),
    (delta(0, reasoning="hm"), True),
    (delta(0, content='{"reasoning_content":"hm"}', reasoning_content=None, reasoning=""), False),
]
MESSAGES = [
    ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}, True),
    ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "thinking_delta"}}, False),
]
RESPONSES = [
    ({"type": "response.reasoning_text.delta", "delta": "hm"}, True),
    ({"type": "response.reasoning_summary_text.delta", "delta": "in short"}, False),
    ({"type": "response.output_text.delta", "delta": "x"}, False),
]


@pytest.mark.parametrize(("document", "reasoned"), [*OPENAI, *MESSAGES, *RESPONSES])
def test_reasoning_is_seen_on_every_wire(document: dict[str, object], reasoned: bool) -> None:
    facts = seen(document)
    assert (facts.reasoned, facts.pieces) == (reasoned, 1)


@pytest.mark.parametrize(
    ("reader", "wire"),
    [
        (lambda facts: ChatReader(facts, keep_usage=True), OPENAI),
        (MessagesStreamReader, MESSAGES),
        (ResponsesStreamReader, RESPONSES),
    ],
)
def test_reasoning_is_seen_by_who_reads_along(
    reader: Callable[[Seen], StreamReader], wire: list[tuple[dict[str, object], bool]]
) -> None:
    for document, reasoned in wire:
        facts = Seen()
        reader(facts).feed(b"data: " + json.dumps(document).encode() + b"\n\n")
        assert (facts.reasoned, facts.pieces) == (reasoned, 1)


def test_errors_inside_a_successful_answer_are_kept() -> None:
    assert seen({"error": {"message": "Overloaded", "code": 529}}).error == {"message": "Overloaded", "code": 529}
    assert seen({"error": "no"}).error == {"message": "no"}
    assert seen({"promptFeedback": {"blockReason": "SAFETY"}}).blocked == "SAFETY"
    assert seen({"error": None}).error is None


def test_event_that_is_not_json_is_malformed_and_odd_json_is_not() -> None:
    assert seen(b"{broken").malformed
    assert not seen(b'{"choices": [{"index": 0, "delta": {"content": "\\ud83d"}, "logprobs": -Infinity}]}').malformed
    assert parse(b"nope") is None and parse(b"[1]") == [1]


def test_odd_types_do_no_harm() -> None:
    odd = {"choices": [{"index": "x"}, 5, {"finish_reason": 3}], "candidates": "x", "usage": 3, "delta": [], "error": 0}
    assert seen(odd).finish == {}


LONG = "x" * FREELY
LARGE: dict[str, dict[str, object]] = {
    "chat": {"id": LONG, "choices": [{"index": 0, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}},
    "long choices": {"choices": [{"message": {"content": LONG}}], "service_tier": "flex"},
    "embeddings": {"object": "list", "data": [{"embedding": LONG}], "usage": {"prompt_tokens": 3}},
    "response": {"object": "response", "output": [LONG], "usage": {"input_tokens": 3}, "error": None},
    "message": {"type": "message", "content": [LONG], "usage": {"input_tokens": 3}},
    "an error": {"error": {"message": "no"}, "x": LONG},
    "a long error": {"error": {"message": LONG}},
    "no choices": {"choices": [], "x": LONG},
}


@pytest.mark.parametrize("name", LARGE)
def test_large_answer_is_skimmed_for_what_is_read_of_it(name: str) -> None:
    whole = json.dumps(LARGE[name]).encode()
    skimmed, parsed = skim(whole), parse(whole)
    assert isinstance(skimmed, dict) and isinstance(parsed, dict)
    for field in ("choices", "data", "error"):
        assert bool(skimmed.get(field)) is bool(parsed.get(field)), field
    for field in ("usage", "type", "object", "service_tier"):
        assert skimmed.get(field) == parsed.get(field), field


def test_document_of_more_than_anybody_says_is_no_document() -> None:
    inner = b"{}," * (MOST_INNER + 1)
    assert parse(b"[" + inner + b"{}]") is None and parse(b'["' + inner.replace(b"{}", b"ab") + b'"]') is not None
    assert isinstance(skim(b'{"choices":[' + inner + b'{}],"usage":{"prompt_tokens":3}}'), dict)
    assert skim(b"[" + inner + b"{}]") is None and parse(b'{"a":' + b"[" * 300_000) is None


def test_large_answer_that_only_lenient_readers_take_is_taken() -> None:
    document = skim(b'{"usage":{"prompt_tokens":3},"x":-Infinity,"y":"' + b"x" * FREELY + b'"}')
    assert isinstance(document, dict) and document["usage"] == {"prompt_tokens": 3}
