"""The fields of a chat completion: what is known of each, what has a meaning here, and what no provider would do.

A table. Whatever is in none of these is a field that a provider on OpenAI's wire may know.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Check = Callable[[object], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_stop(value: object) -> bool:
    return _is_text(value) or _is_texts(value)


def _is_text_or_object(value: object) -> bool:
    return _is_text(value) or _is_object(value)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field that travels: its check, and what it must be in words."""

    check: Check
    must_be: str


NUMBER = Parameter(_is_number, "a number")
WHOLE = Parameter(_is_whole, "a whole number")
POSITIVE = Parameter(_is_positive, "a whole number of at least 1")
TEXT = Parameter(_is_text, "a string")
FLAG = Parameter(_is_flag, "true or false")
OBJECT = Parameter(_is_object, "an object")
OBJECTS = Parameter(_is_objects, "a list of objects")
TEXT_OR_OBJECT = Parameter(_is_text_or_object, "a string or an object")

# OpenAI's chat completion fields (API reference, 2026-11), then the extensions that open-weight providers document.
PARAMETERS: Mapping[str, Parameter] = {
    "audio": OBJECT,
    "frequency_penalty": NUMBER,
    "function_call": TEXT_OR_OBJECT,
    "functions": OBJECTS,
    "logit_bias": OBJECT,
    "logprobs": FLAG,
    "max_completion_tokens": POSITIVE,
    "max_tokens": POSITIVE,
    "metadata": OBJECT,
    "moderation": OBJECT,
    "modalities": Parameter(_is_texts, "a list of strings"),
    "n": POSITIVE,
    "parallel_tool_calls": FLAG,
    "prediction": OBJECT,
    "presence_penalty": NUMBER,
    "prompt_cache_key": TEXT,
    "prompt_cache_options": OBJECT,
    "prompt_cache_retention": TEXT,
    "reasoning_effort": TEXT,
    "response_format": OBJECT,
    "safety_identifier": TEXT,
    "seed": WHOLE,
    "service_tier": TEXT,
    "stop": Parameter(_is_stop, "a string or a list of strings"),
    "store": FLAG,
    "temperature": NUMBER,
    "tool_choice": TEXT_OR_OBJECT,
    "tools": OBJECTS,
    "top_logprobs": WHOLE,
    "top_p": NUMBER,
    "user": TEXT,
    "verbosity": TEXT,
    "web_search_options": OBJECT,
    "chat_template_kwargs": OBJECT,
    "enable_thinking": FLAG,
    "include_reasoning": FLAG,
    "min_p": NUMBER,
    "reasoning": OBJECT,
    "reasoning_split": FLAG,
    "repetition_penalty": NUMBER,
    "thinking": OBJECT,
    "thinking_budget": WHOLE,
    "top_k": WHOLE,
}
# Fields with a meaning of their own: below, and in router.preferences.
READ_HERE = ("model", "models", "messages", "stream", "stream_options", "provider", "wardgate", "usage")
# What is read of a body on any surface before it is sent, beside PARAMETERS.
JUDGED = frozenset(
    (
        *READ_HERE,
        "background",
        "best_of",
        "conversation",
        "input",
        "max_output_tokens",
        "previous_response_id",
        "prompt",
        "system",
    )
)
NOT_YET = {
    "route": "list the models in `models`; they are tried in order",
    "preset": "presets are not part of this gateway; an operator can name models in `[models.<alias>]`",
    "plugins": "plugins are not part of this version",
    "transforms": "transforms are not part of this version",
}


# Names by which libraries and other gateways are told about keys, hosts, headers, prices, retries and callbacks (the
# parameters of LiteLLM 1.106's acompletion and of its proxy's ban-list): no provider would do what they ask.
NOT_FOR_PROVIDERS = re.compile(
    r"(?:[a-z0-9_]+_)?(?:api_key|api_base|base_url|api_version|endpoint_url|credentials?)|extra_(?:headers|query|body)|headers"
    r"|.*_cost_per_.*|cost_per_.*|.*_token_cost.*|(?:litellm|aws|azure|vertex|s3|langfuse|langsmith|gcs)_.*|.*_?callbacks?"
    r"|(?:request_|stream_|mock_|force_)?timeout|mock_.*|(?:max|num)_retries|retry_policy|.*fallbacks?|.*fallback_dict"
    r"|custom_llm_provider|deployment_id|model_list|model_info|client|shared_session|ssl_verify|proxy|organization"
    r"|drop_params|additional_drop_params|allowed_openai_params|use_(?:in_pass_through|litellm_proxy)|guardrails|proxy_server_request|router_settings"
    r"|user_config|enable_json_schema_validation|include_server_side_tool_invocations|no-log|cache|caching|region_name"
)
