"""What a caller sees is OpenAI's shape, without a trace of the library in between."""

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
