"""Why an answer ended, from each wire's word to OpenAI's `finish_reason`.

Owns the tables; reads no answer. A word that is not in a table is passed on as it came, because inventing `stop` for it
would hide what happened. Sources: Anthropic's API reference (stop_reason) and Google's Generative Language API
reference (FinishReason, BlockReason), November 2026.
"""

from collections.abc import Callable, Mapping

STOP = "stop"
LENGTH = "length"
TOOL_CALLS = "tool_calls"
CONTENT_FILTER = "content_filter"

ANTHROPIC: Mapping[str, str] = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "max_tokens": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_use": TOOL_CALLS,
    "refusal": CONTENT_FILTER,
}
# candidates[].finishReason and promptFeedback.blockReason. STOP also ends an answer that holds function calls: whoever
# reads the answer says `tool_calls` then.
GEMINI: Mapping[str, str] = {
    "STOP": STOP,
    "MAX_TOKENS": LENGTH,
    "SAFETY": CONTENT_FILTER,
    "RECITATION": CONTENT_FILTER,
    "BLOCKLIST": CONTENT_FILTER,
    "PROHIBITED_CONTENT": CONTENT_FILTER,
    "SPII": CONTENT_FILTER,
    "IMAGE_SAFETY": CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": CONTENT_FILTER,
    "IMAGE_RECITATION": CONTENT_FILTER,
}
COHERE: Mapping[str, str] = {
    "COMPLETE": STOP,
    "STOP_SEQUENCE": STOP,
    "MAX_TOKENS": LENGTH,
    "TOOL_CALL": TOOL_CALLS,
}
FINISH_REASONS: Mapping[str, Mapping[str, str]] = {"anthropic": ANTHROPIC, "gemini": GEMINI, "cohere_chat": COHERE}
# How an unknown word is written: Google's and Cohere's are in upper case, OpenAI's are not.
UNKNOWN: Mapping[str, Callable[[str], str]] = {"gemini": str.lower, "cohere_chat": str.lower}


def finish_reason(wire_word: str, prefix: str) -> str:
    """OpenAI's word for `wire_word` on the wire of LiteLLM's `prefix`; the word itself where there is none."""
    known = FINISH_REASONS.get(prefix, {})
    return known.get(wire_word) or UNKNOWN.get(prefix, str)(wire_word)
