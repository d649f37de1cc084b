"""What a request may cost beyond the text of its body: pictures, files and conversations that are kept elsewhere, and
what is charged apart from tokens, as searches and tools that the provider runs.

Reads a body on any surface, as the caller wrote it. Whatever it does not know counts as what costs: a hard budget must
not be overrun by a field that is new. It never raises. Pure. Must not know models, prices or budgets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Object = Mapping[str, object]

# Fields that change what tokens are written, how, or how the answer is told; what they hold is in the body. The last
# lines are what single providers add to the common ones, by their API references.
_PLAIN_FIELDS: Final = frozenset(
    """
    audio best_of cache_control chat_template_kwargs client_metadata dimensions echo embedding_type
    enable_thinking encoding_format frequency_penalty function_call functions include include_reasoning input input_type
    instructions late_chunking logit_bias logprobs max_completion_tokens max_output_tokens max_tokens max_tool_calls
    messages metadata min_p modalities model models n normalized output_config output_dimension output_dtype
    output_format parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options
    prompt_cache_retention provider reasoning reasoning_effort reasoning_split repetition_penalty response_format
    safety_identifier seed service_tier stop stop_sequences store stream stream_options suffix system task temperature
    text thinking thinking_budget tool_choice tools top_k top_logprobs top_p truncate truncation usage user verbosity
    wardgate

    clear_thinking context_length_exceeded_behavior disable_reasoning do_sample guided_choice guided_grammar guided_json
    guided_regex ignore_eos include_stop_str_in_output incremental_output length_penalty min_tokens preserve_thinking
    prompt_mode prompt_truncate_len random_seed reasoning_format request_id safe_prompt skip_special_tokens
    spaces_between_special_tokens stop_token_ids structured_outputs tool_stream top_a typical_p user_id
    vl_high_resolution_images
    """.split()  # noqa: SIM905 - ninety names, one to a line, hide what they are
)
# What providers search for a fee by, or answer faster at another price. Whatever else nobody knows may cost, and may as
# well be a name that means nothing.
_FEES: Final = frozenset({"enable_search", "plugins", "search_parameters", "speed"})
_ELSEWHERE: Final = frozenset({"conversation", "previous_response_id", "thread"})  # what is read is not in the body
_KNOWN: Final = _PLAIN_FIELDS | _ELSEWHERE | {"prompt"}
_ITEMS: Final = ("messages", "input", "system")
_INNER: Final = ("content", "output", "summary")  # of a message, an item or a part: further parts
# Of parts and items, those whose tokens are in the text of the body. None: a message, or a part that names no type.
_TEXT: Final = frozenset(
    """
    apply_patch_call apply_patch_call_output custom_tool_call custom_tool_call_output function_call function_call_output
    input_text local_shell_call local_shell_call_output message output_text reasoning reasoning_text redacted_thinking
    refusal summary_text text thinking tool_result tool_use
    """.split()  # noqa: SIM905
)
_PICTURE: Final = frozenset({"image", "image_url", "input_image"})
# The caller runs these tools itself; the versions of Anthropic's end in a date.
_CALLERS_TOOLS: Final = frozenset({"apply_patch", "computer_use_preview", "custom", "function", "local_shell"})
_CALLERS_VERSIONED: Final = ("bash_", "computer_", "memory_", "text_editor_")
# What the others are is not in the body: their provider puts it in. Tokens of the first that fits; Anthropic documents
# 245 for bash, 700 for an editor, 735 and 499 around for a computer, 4,590 for a computer's toolset.
_TOLD: Final = frozenset({"custom", "function"})
_UNTOLD: Final = (("computer_toolset_", 5_000), ("", 1_500))


@dataclass(frozen=True, slots=True)
class Beyond:
    """`fees`: something is charged apart from tokens, or may be; `charged`: it is known to be. `elsewhere`: tokens are
    read that are not in the body. `picture_bytes` are those of the body that are pictures, which cost tokens by their
    size on the screen. `tool_tokens`: of tools that the caller names and runs, and the provider describes."""

    fees: bool = False
    elsewhere: bool = False
    pictures: int = 0
    picture_bytes: int = 0
    tool_tokens: int = 0
    charged: bool = False


NOTHING_BEYOND: Final = Beyond()


def beyond(body: Object) -> Beyond:
    """What this body asks for beside its text."""
    elsewhere = any(body.get(name) for name in _ELSEWHERE) or isinstance(body.get("prompt"), dict)
    pictures = picture_bytes = 0
    for part in _parts(body):
        kind = part.get("type")
        if kind in _PICTURE:
            pictures += 1
            picture_bytes += _picture_bytes(part)
        elsewhere = elsewhere or not (kind is None or kind in _PICTURE or kind in _TEXT)
        elsewhere = elsewhere or isinstance(part.get("audio"), dict)  # what was said before, by its id
    charged = is_charged(body)
    tool_tokens = sum(map(_tool_tokens, _tools(body)))
    return Beyond(charged or _may_cost(body), elsewhere, pictures, picture_bytes, tool_tokens, charged)


def is_charged(body: Object) -> bool:
    """Whether it asks for what is known to be charged apart from tokens: tools that the provider runs, and searches. A
    name that nobody knows is none of it: else it would take a call's cost away from its tenant's sums."""
    if any(not _is_callers(tool) for tool in _tools(body)):
        return True
    return not _FEES.isdisjoint(body) and any(not _is_idle(name, body[name]) for name in _FEES & body.keys())


def _may_cost(body: Object) -> bool:
    return not body.keys() <= _KNOWN and any(
        name not in _KNOWN and not _is_idle(name, value) for name, value in body.items()
    )


def _tools(body: Object) -> Sequence[object]:
    tools = body.get("tools")
    return tools if isinstance(tools, list) else ()


def _is_idle(name: str, value: object) -> bool:
    """Fields that cost with some values alone."""
    match name:
        case "speed":
            return value == "standard"
        case "context_management":  # what is cleared costs nothing; what is made shorter is read and written for it
            edits = value.get("edits") if isinstance(value, dict) else None
            return isinstance(edits, list) and all(
                isinstance(edit, dict) and str(edit.get("type")).startswith("clear_") for edit in edits
            )
    # An empty object may switch something on: xAI searches for `search_parameters: {}` when it likes to.
    return not value and not isinstance(
        value, dict
    )  # `background` is charged to its end, also when nobody waits for it any more


def _is_callers(tool: object) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return kind is None or kind in _CALLERS_TOOLS or (isinstance(kind, str) and kind.startswith(_CALLERS_VERSIONED))


def _tool_tokens(tool: object) -> int:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str) or kind in _TOLD or not _is_callers(tool):
        return 0
    return next(tokens for name, tokens in _UNTOLD if kind.startswith(name))


def _parts(body: Object) -> Iterator[Object]:
    """Messages, items, and the parts in them, however deep."""
    left: list[object] = [body.get(name) for name in _ITEMS]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += [one for one in value if isinstance(one, dict | list)]
        elif isinstance(value, dict):
            yield value
            left += [value[name] for name in _INNER if name in value]


def _picture_bytes(part: Object) -> int:
    """Of a picture that is in the body: its longest text, in base64."""
    texts: list[object] = []
    for one in (part.get("image_url"), part.get("source")):
        texts += one.values() if isinstance(one, dict) else [one]
    return max((len(one) for one in texts if isinstance(one, str)), default=0)
