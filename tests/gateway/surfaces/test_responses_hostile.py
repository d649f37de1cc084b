"""Whatever a caller or a provider sends, the pure modules answer: with a translation, a 400, or what can be read."""

import re
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.surfaces.responses_answer import answer, usage_of
from gateway.surfaces.responses_events import Events
from gateway.surfaces.responses_reader import ResponsesReader
from gateway.surfaces.responses_request import looks_like_responses, mixed_to_chat, to_chat


def named(words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(re.findall(r"\w+", words))


REQUEST_NAMES = named(
    "allowed_callers arguments call_id caller content context detail effort encrypted_content file_id format function"
    " id image_url include input instructions messages mode name output parameters previous_response_id reasoning role"
    " schema store strict summary text tool_calls tool_choice tools top_logprobs type verbosity"
)
REQUEST_WORDS = named(
    "allowed_tools assistant auto custom custom_tool_call function function_call function_call_output input_file"
    " input_image input_text item_reference json_schema message output_text reasoning refusal tool user x"
)
ANSWER_NAMES = named(
    "annotations arguments bytes choices completion_tokens content delta error finish_reason function id index"
    " input_tokens logprob logprobs message name output prompt_tokens prompt_tokens_details reasoning reasoning_content"
    " refusal response service_tier status thinking token tool_calls top_logprobs type url_citation usage"
)
ANSWER_WORDS = st.sampled_from(["", "stop", "length", "url_citation", "completed", "x", "\ud83d"])


def values(names: st.SearchStrategy[str], words: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-2, 2) | words
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


ASKED = values(REQUEST_NAMES, REQUEST_WORDS)
TOLD = values(ANSWER_NAMES, ANSWER_WORDS)
ITEMS = st.dictionaries(REQUEST_NAMES, ASKED, min_size=1, max_size=5)
BODIES = st.dictionaries(REQUEST_NAMES, ASKED, max_size=4) | st.builds(lambda items: {"input": items}, st.lists(ITEMS))
CHOICES = st.dictionaries(ANSWER_NAMES, TOLD, max_size=4)
CHUNKS = st.builds(lambda choice, rest: {**rest, "choices": [choice]}, CHOICES, CHOICES) | CHOICES


@settings(deadline=None)
@given(BODIES)
def test_a_request_is_translated_or_the_callers_mistake(body: dict[str, Any]) -> None:
    looks_like_responses(body)
    for translate in (to_chat, mixed_to_chat):
        try:
            translation = translate(body)
        except ApiError as error:
            assert error.problem.status == 400
            assert error.problem.param
        else:
            assert translation.body["messages"] or translate is mixed_to_chat
            orjson.dumps(translation.body)


@settings(deadline=None)
@given(BODIES, st.lists(CHUNKS, max_size=4), CHOICES)
def test_a_providers_answer_is_read_as_far_as_it_can_be(body: Any, chunks: list[Any], usage: Any) -> None:
    events = Events(body, answer_id="resp_a", created=7, model="m")
    stream = b"".join(events.chunk(each) for each in chunks) + events.end(usage)
    assert stream.startswith(b"event: response.created\n")
    for each in chunks:
        assert answer(each, body, answer_id="resp_a", created=7)["object"] == "response"
    usage_of(usage)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["error", "response.completed", "response.created", "x"]), CHUNKS)))
def test_a_native_stream_is_read_whatever_it_holds(events: list[tuple[str, Any]]) -> None:
    reader = ResponsesReader()
    for name, document in events:
        reader.note(name, document)
        ResponsesReader().note_answer(document)
    assert reader.ended is any(name == "response.completed" for name, _ in events)
