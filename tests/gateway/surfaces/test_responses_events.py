"""The typed events of a translated stream, held against the SDK's own types, in any split of what is said."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.errors import Problem
from gateway.surfaces.responses_answer import answer
from gateway.surfaces.responses_events import Events
from router.reasons import Fault
from tests.gateway.surfaces.spoken import USAGE, call, chunk, completion, documents, pieces, read

STRICT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
BODY: dict[str, Any] = {"input": "hello", "tools": [{"type": "function", "name": "f", "parameters": {}}]}
Json = dict[str, Any]


def events_of(body: Json) -> Events:
    return Events(body, answer_id="resp_a", created=7, model="m")


def told(*chunks: Json, body: Json = BODY, usage: Json | None = USAGE) -> list[Json]:
    """The events of a whole stream, each checked."""
    events = events_of(body)
    stream = b"".join(events.chunk(each) for each in chunks) + events.end(usage)
    return checked(stream)


def checked(stream: bytes) -> list[Json]:
    said = documents(stream)
    assert [event.name for event in read(stream)] == [document["type"] for document in said]
    assert [document["sequence_number"] for document in said] == list(range(len(said)))
    assert b"[DONE]" not in stream
    for document in said:
        STRICT.validate_python(document)
    return said


def kinds(said: Sequence[Json]) -> list[str]:
    return [document["type"].removeprefix("response.") for document in said]


def test_a_text() -> None:
    said = told(chunk({"role": "assistant", "content": ""}), chunk({"content": "h"}), chunk({"content": "i"}, "stop"))
    assert kinds(said) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert said[0]["response"]["status"] == "in_progress"
    assert said[6]["text"] == "hi"
    assert said[-1]["response"]["usage"]["input_tokens"] == 20
    assert said[-1]["response"]["store"] is False


def test_the_first_chunk_alone_says_that_it_began() -> None:
    events = events_of(BODY)
    assert kinds(documents(events.chunk(chunk({"role": "assistant"})))) == ["created", "in_progress"]
    assert events.chunk(chunk()) == b""
    assert events.chunk({"choices": [], "usage": USAGE}) == b""


def test_nothing_said() -> None:
    said = told(usage=None)
    assert kinds(said) == ["created", "in_progress", "completed"]
    assert (said[-1]["response"]["output"], said[-1]["response"]["usage"]) == ([], None)


def test_reasoning_then_text_then_calls_that_alternate() -> None:
    said = told(
        chunk({"reasoning_content": "h"}),
        chunk({"reasoning_content": "m"}),
        chunk({"content": "I look."}),
        chunk(call(0, id="c1", name="f")),
        chunk(call(1, "{", id="c2", name="g")),
        chunk(call(0, '{"a":')),
        chunk(call(1, "}")),
        chunk(call(0, "1}"), "tool_calls"),
    )
    assert kinds(said)[2:8] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
    ]
    final = said[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert [item.get("arguments") for item in final["output"][2:]] == ['{"a":1}', "{}"]
    done = [document for document in said if document["type"] == "response.function_call_arguments.done"]
    assert [(each["name"], each["arguments"]) for each in done] == [("f", '{"a":1}'), ("g", "{}")]


def test_reasoning_as_the_summary_that_was_asked_for() -> None:
    body = {"input": "q", "reasoning": {"summary": "auto"}}
    said = told(chunk({"reasoning": "hm"}), chunk({"content": "hi"}, "stop"), body=body)
    assert kinds(said)[2:8] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert said[-1]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "hm"}]


def test_a_refusal_after_a_text_is_a_part_of_its_own() -> None:
    said = told(chunk({"content": "Well"}), chunk({"refusal": "n"}), chunk({"refusal": "o"}, "stop"))
    assert said[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "Well", "annotations": [], "logprobs": []},
        {"type": "refusal", "refusal": "no"},
    ]
    assert [each["content_index"] for each in said if "delta" in each] == [0, 1, 1]


def test_a_citation() -> None:
    cited = {"start_index": 0, "end_index": 2, "title": "t", "url": "https://x.example"}
    annotations = [{"type": "url_citation", "url_citation": cited}]
    said = told(chunk({"content": "hi"}), chunk({"annotations": annotations * 2}, "stop"))
    added = [each for each in said if each["type"] == "response.output_text.annotation.added"]
    assert [(each["annotation_index"], each["annotation"]["url"]) for each in added] == [
        (0, "https://x.example"),
        (1, "https://x.example"),
    ]
    assert len(said[-1]["response"]["output"][0]["content"][0]["annotations"]) == 2


def test_logprobs_go_with_their_text() -> None:
    entry = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}
    said = told(chunk({"content": "hi"}, logprobs={"content": [entry]}), chunk({"content": "!"}, "stop"))
    assert [each["logprobs"] for each in said if each["type"] == "response.output_text.delta"] == [[entry], []]
    assert next(each for each in said if each["type"] == "response.output_text.done")["logprobs"] == [entry]


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_is_not_whole(finish: str, reason: str) -> None:
    said = told(chunk({"reasoning": "hm"}), chunk({"content": "h"}), chunk({}, finish))
    assert said[-1]["type"] == "response.incomplete"
    final = said[-1]["response"]
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert [item["status"] for item in final["output"]] == ["completed", "incomplete"]
    done = [each["item"]["status"] for each in said if each["type"] == "response.output_item.done"]
    assert done == ["completed", "incomplete"]
    assert told(chunk({}, finish))[-1]["response"]["output"] == []


def test_calls_as_some_providers_number_and_name_them() -> None:
    """All under index 0; without an index or id; the name after the id; the name again in each piece; never a name."""
    said = told(
        chunk(call(0, "{}", id="c1", name="f")),
        chunk(call(0, "{}", id="c2", name="g")),
        chunk(call(0, " ", id="c2", name="g")),
    )
    assert [(each["call_id"], each["arguments"]) for each in said[-1]["response"]["output"]] == [
        ("c1", "{}"),
        ("c2", "{} "),
    ]
    said = told(chunk({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}))
    assert said[-1]["response"]["output"][0]["call_id"] == "call_a_0"
    said = told(chunk({"content": "x"}), chunk(call(0, "{", id="c1")), chunk(call(0, "}", name="f")))
    assert [each["delta"] for each in said if "arguments.delta" in each["type"]] == ["{}"]
    said = told(chunk({"content": "x"}), chunk({"tool_calls": [{"index": 0, "id": "c1"}, {"index": 1}]}))
    assert [each.get("name") for each in said[-1]["response"]["output"]] == [None, "", ""]
    said = told(chunk(call(0, "{}", id="c1")))
    assert said[-1]["response"]["output"][0]["arguments"] == "{}"


def test_a_part_keeps_nothing_of_the_one_before() -> None:
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    cited = {"start_index": 0, "end_index": 1, "title": "t", "url": "https://x.example"}
    first = {"content": "a", "annotations": [{"type": "url_citation", "url_citation": cited}]}
    said = told(chunk(first, logprobs={"content": [entry]}), chunk({"refusal": "b"}), chunk({"content": "c"}, "stop"))
    assert said[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "a", "annotations": [{"type": "url_citation", **cited}], "logprobs": [entry]},
        {"type": "refusal", "refusal": "b"},
        {"type": "output_text", "text": "c", "annotations": [], "logprobs": []},
    ]


def test_a_name_that_is_repeated_without_an_id_is_the_same_call() -> None:
    said = told(chunk(call(0, "{", id="c", name="f")), chunk(call(0, "}", name="f")))
    assert [(each["call_id"], each["arguments"]) for each in said[-1]["response"]["output"]] == [("c", "{}")]


def test_what_comes_after_a_call_is_a_new_message() -> None:
    said = told(chunk({"content": "a"}), chunk(call(0, "{}", id="c", name="f")), chunk({"content": "b"}, "stop"))
    assert [item["type"] for item in said[-1]["response"]["output"]] == ["message", "function_call", "message"]


def test_the_tier_that_served_is_told() -> None:
    assert told(chunk({"content": "x"}, "stop") | {"service_tier": "flex"})[-1]["response"]["service_tier"] == "flex"


def test_half_an_emoji_goes_out_as_it_came() -> None:
    events = events_of(BODY)
    events.chunk(chunk())
    assert rb'"delta":"\ud83d"' in events.chunk(chunk({"content": "\ud83d"}))


# ---- a break

LOST = Problem(502, "stream_broken", "The upstream closed the stream.", Fault.PROVIDER)
SLOW_DOWN = Problem(429, "rate_limit_exceeded", "Slow down.", Fault.PROVIDER)


def test_a_break_is_an_error_and_a_failure_and_never_a_success() -> None:
    events = events_of(BODY)
    said = checked(
        events.chunk(chunk({"reasoning": "hm"}))
        + events.chunk(chunk({"content": "Once"}))
        + events.chunk(chunk(call(0, '{"a', id="c", name="f")))
        + events.broke(LOST)
    )
    assert kinds(said)[-2:] == ["error", "failed"]
    assert not {"completed", "incomplete"} & set(kinds(said))
    error, failed = said[-2:]
    assert {name: error[name] for name in ("code", "message", "param")} == {
        "code": "stream_broken",
        "message": "The upstream closed the stream.",
        "param": None,
    }
    assert error["error"] == LOST.error_object()
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": LOST.message}
    assert failed["response"]["usage"] is None
    assert [(item["type"], item["status"]) for item in failed["response"]["output"]] == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("function_call", "incomplete"),
    ]


def test_what_is_open_at_a_break_is_incomplete() -> None:
    events = events_of(BODY)
    stream = events.chunk(chunk({"content": "Once"})) + events.broke(SLOW_DOWN)
    said = checked(stream)
    assert "output_item.done" not in kinds(said)
    assert said[-1]["response"]["output"][0]["status"] == "incomplete"
    assert said[-1]["response"]["output"][0]["content"][0]["text"] == "Once"
    assert said[-1]["response"]["error"]["code"] == "rate_limit_exceeded"


def test_a_break_before_anything() -> None:
    assert kinds(checked(events_of(BODY).broke(LOST))) == ["error", "failed"]


# ---- any split says the same

TEXTS = st.text(max_size=30)
CUTS = st.lists(st.integers(0, 40), max_size=6)


@settings(deadline=None)
@given(reasoning=TEXTS, text=TEXTS, refusal=TEXTS, calls=st.lists(TEXTS, max_size=3), cuts=CUTS, finish=st.booleans())
def test_any_split_gives_the_plain_answer(
    reasoning: str, text: str, refusal: str, calls: list[str], cuts: list[int], finish: bool
) -> None:
    why = "length" if finish else "stop"
    chunks = [chunk({"reasoning_content": piece}) for piece in pieces(reasoning, cuts)]
    chunks += [chunk({"content": piece}) for piece in pieces(text, cuts)]
    chunks += [chunk({"refusal": piece}) for piece in pieces(refusal, cuts)]
    chunks += [chunk(call(at, id=f"c{at}", name=f"f{at}")) for at in range(len(calls))]
    chunks += [chunk(call(at, piece)) for at, held in reversed(list(enumerate(calls))) for piece in pieces(held, cuts)]
    said = told(*chunks, chunk({}, why))
    named = [
        {"id": f"c{at}", "type": "function", "function": {"name": f"f{at}", "arguments": held}}
        for at, held in enumerate(calls)
    ]
    message = {"content": text, "refusal": refusal, "reasoning_content": reasoning, "tool_calls": named}
    assert said[-1]["response"] == answer(completion(message, why), BODY, answer_id="resp_a", created=7)
    check_items(said)


DELTAS = st.one_of(
    st.builds(lambda text: {"reasoning": text}, TEXTS),
    st.builds(lambda text: {"content": text}, TEXTS),
    st.builds(lambda text: {"refusal": text}, TEXTS),
    st.builds(
        lambda at, held, name: call(at, held, id=f"c{at}", **name),
        st.integers(0, 2),
        TEXTS,
        st.sampled_from([{}, {"name": "f"}]),
    ),
)


@settings(deadline=None)
@given(st.lists(DELTAS, max_size=12), st.sampled_from(["stop", "length", None]))
def test_every_item_is_announced_and_done_once(deltas: list[Json], finish: str | None) -> None:
    check_items(told(*(chunk(delta) for delta in deltas), chunk({}, finish)))


def check_items(said: list[Json]) -> None:
    """Every item and part added once, then done once as the final answer has it; deltas in between, at its place."""
    final = said[-1]["response"]["output"]
    added = [each["item"]["id"] for each in said if each["type"] == "response.output_item.added"]
    done = {each["item"]["id"]: each["item"] for each in said if each["type"] == "response.output_item.done"}
    assert added == [item["id"] for item in final]
    assert Counter(kinds(said))["output_item.done"] == len(added)
    assert [done[name] for name in added] == final
    opened = Counter(re.sub(r"\.(added|done)$", "", kind) for kind in kinds(said) if "_part." in kind)
    assert all(count % 2 == 0 for count in opened.values())
    live: set[str] = set()
    for each in said:
        if each["type"] == "response.output_item.added":
            live.add(each["item"]["id"])
        elif each["type"] == "response.output_item.done":
            live.remove(each["item"]["id"])
        elif "item_id" in each:
            assert each["item_id"] in live
            assert final[each["output_index"]]["id"] == each["item_id"]
