"""What a caller sees is OpenAI's shape, without a trace of the library in between."""

import pytest

from gateway import openai_shape
from gateway.events import TokenUsage

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 2},
    "cache_read_input_tokens": 3,
    "cache_creation_input_tokens": 5,
}
MESSAGE = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    "function_call": None,
    "reasoning_content": "because",
    "provider_specific_fields": {"refusal": "no"},
    "annotations": [],
}
DUMPED = {
    "id": "chatcmpl-1",
    "created": 1,
    "model": "m",
    "object": "chat.completion",
    "system_fingerprint": None,
    "choices": [{"finish_reason": "tool_calls", "index": 0, "message": MESSAGE, "provider_specific_fields": {}}],
    "usage": USAGE,
    "moderation": None,
    "service_tier": "default",
}


def test_plain_answer_has_the_required_fields_and_none_of_the_librarys() -> None:
    assert openai_shape.completion(DUMPED) == {
        "id": "chatcmpl-1",
        "created": 1,
        "model": "m",
        "object": "chat.completion",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": MESSAGE["tool_calls"],
                    "reasoning_content": "because",
                    "refusal": None,
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


def test_chunk_keeps_fragments_of_arguments_and_drops_empty_fields() -> None:
    delta = {
        "role": None,
        "content": None,
        "tool_calls": [{"index": 1, "id": None, "type": None, "function": {"name": None, "arguments": '{"a'}}],
        "provider_specific_fields": None,
    }
    dumped = {"id": "x", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    chunk = openai_shape.chunk(dumped)
    assert chunk["choices"] == [
        {
            "index": 0,
            "delta": {"tool_calls": [{"index": 1, "function": {"arguments": '{"a'}}]},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert "usage" not in chunk and chunk["object"] == "chat.completion.chunk"


def test_usage_counts_cached_and_reasoning_tokens_and_is_unknown_when_absent() -> None:
    assert openai_shape.token_usage(USAGE) == TokenUsage(9, 4, 3, 2, 5)
    assert openai_shape.token_usage(None) is None
    assert openai_shape.token_usage({"total_tokens": 3}) is None


XAI = {"prompt_tokens": 32, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 94}}
READ = {"prompt_tokens": 100, "completion_tokens": 5}
HITS = {"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20}


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (XAI | {"total_tokens": 135}, TokenUsage(32, 103, reasoning_tokens=94)),  # beside the completion
        (XAI | {"total_tokens": 41}, TokenUsage(32, 9, reasoning_tokens=94)),  # inside it
        (XAI, TokenUsage(32, 9, reasoning_tokens=94)),
        (XAI | {"total_tokens": 200}, TokenUsage(32, 9, reasoning_tokens=94)),  # no sum of these
        (READ | {"cached_tokens": 80}, TokenUsage(100, 5, 80)),
        (READ | {"cached_tokens": 80, "prompt_tokens_details": {"cached_tokens": None}}, TokenUsage(100, 5, 80)),
        (READ | {"cached_tokens": 80, "prompt_tokens_details": {"cached_tokens": 0}}, TokenUsage(100, 5, 0)),
        (READ | {"cached_tokens": 80, "prompt_tokens_details": {"cached_tokens": 64}}, TokenUsage(100, 5, 64)),
        (READ | HITS, TokenUsage(100, 5, 80)),
        (READ | {"num_cached_tokens": 80}, TokenUsage(100, 5, 80)),
        (READ | {"prompt_token_details": {"cached_tokens": 80}}, TokenUsage(100, 5, 80)),
        (READ | {"cached_tokens": "80"}, TokenUsage(100, 5, 0)),
        (
            READ | {"prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 90}},
            TokenUsage(100, 5, cache_write_tokens=90),
        ),
    ],
)
def test_counts_are_read_where_providers_put_them(usage: dict[str, object], counted: TokenUsage) -> None:
    assert openai_shape.token_usage(usage) == counted


@pytest.mark.parametrize("wrong", [None, 1.5, "3", -1, True, [], 10**10])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_count_that_is_none_is_not_taken_for_nothing(name: str, wrong: object) -> None:
    assert openai_shape.token_usage(READ | {name: wrong}) is None
    assert openai_shape.token_usage({other: 1 for other in READ if other != name}) is None


def test_nothing_written_is_a_count_and_embeddings_write_nothing() -> None:
    assert openai_shape.token_usage({"prompt_tokens": 9, "completion_tokens": 0}) == TokenUsage(9, 0)
    for usage in ({"prompt_tokens": 9}, {"prompt_tokens": 9, "completion_tokens": None, "total_tokens": 9}):
        assert openai_shape.embedding_usage(usage) == TokenUsage(9, 0)
    assert openai_shape.embedding_usage({"total_tokens": 9}) is None and openai_shape.embedding_usage(None) is None
