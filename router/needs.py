"""What a chat request needs of a model: room for its input and output, and abilities.

Owns how needs are read from a body in OpenAI's shape. Reads what it knows and passes over the rest; it never raises,
since the body was checked before. Must not know models or providers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from router.beyond import NOTHING_BEYOND, Beyond, beyond, is_charged
from router.price_rows import Capability
from router.prices import ServiceTier

# Estimates, corrected by nothing yet: English runs at 4 to 4.7 UTF-8 bytes a token with today's tokenizers, code at 3
# to 4, Chinese at 3 to 5.
_BYTES_PER_TOKEN: Final = 4
_MOST: Final = 2**31 - 1  # tokens or answers: who asks for more asks for so much, so that no product of them overflows
_TOKENS_PER_MESSAGE: Final = 4  # role and separators (OpenAI cookbook, "How to count tokens")
_TOKENS_PER_IMAGE: Final = 765  # 1024 x 1024 in high detail (OpenAI vision guide)
_TOKENS_PER_FILE: Final = 1_500  # a page or two of a PDF; the size of the rest is not known here

_FEES: Final = Beyond(fees=True, charged=True)
# Other words for how long a model may think; which of several a provider heeds is not known.
_OTHER_THOUGHTS: Final = ("chat_template_kwargs", "reasoning", "reasoning_effort", "thinking")

_SERVICES: Final[Mapping[str, ServiceTier]] = {tier.value: tier for tier in ServiceTier}

_PART_NEEDS: Final[Mapping[str, Capability]] = {
    "image_url": Capability.VISION,
    "input_audio": Capability.AUDIO_INPUT,
    "file": Capability.PDF_INPUT,
    "video_url": Capability.VIDEO_INPUT,
}
_PART_TOKENS: Final[Mapping[str, int]] = {
    "image_url": _TOKENS_PER_IMAGE,
    "input_audio": _TOKENS_PER_FILE,
    "file": _TOKENS_PER_FILE,
    "video_url": _TOKENS_PER_FILE,
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model must be able to do. Input tokens are an estimate; a max of None means that the caller set none."""

    input_tokens: int = 0
    max_output_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    stream: bool = False
    service: ServiceTier = ServiceTier.STANDARD
    answers: int = 1  # `n`: each as long as one, and all are paid for
    estimated_tokens: int | None = None  # the input, before a correction by what the tenant's inputs really had
    size: int | None = None  # bytes of the body; None: nobody asks what the call can cost at most
    beyond: Beyond = NOTHING_BEYOND  # what it asks for beside its text; where `size` is not known what is charged alone
    thoughts: int | None = None  # tokens that the caller allows for thinking, 0: none; None: as many as the model likes

    @property
    def uncorrected_tokens(self) -> int:
        """The input as it was estimated, whatever the tenant's inputs really had."""
        return self.input_tokens if self.estimated_tokens is None else self.estimated_tokens

    def corrected(self, input_tokens: int) -> "Needs":
        """With an input of this length, beside the estimate."""
        return Needs(
            input_tokens,
            self.max_output_tokens,
            self.capabilities,
            self.stream,
            self.service,
            self.answers,
            estimated_tokens=self.input_tokens,
            size=self.size,
            beyond=self.beyond,
            thoughts=self.thoughts,
        )

    def bounded(self, size: int, asked: Mapping[str, object]) -> "Needs":
        """With what bounds the cost: so many bytes of body, and what the caller's own body asks for beside its text."""
        return replace(self, size=size, beyond=beyond(asked))

    def with_fees(self, asked: Mapping[str, object]) -> "Needs":
        """With whether the caller's own body asks for what is charged apart from tokens. Most ask for nothing of that,
        and these are the needs themselves."""
        return replace(self, beyond=_FEES) if is_charged(asked) else self


def read_needs(body: Mapping[str, object]) -> Needs:
    """The needs of a chat request."""
    parts = list(_parts(body.get("messages")))
    return Needs(
        input_tokens=_input_tokens(body, parts),
        max_output_tokens=_max_output_tokens(body),
        capabilities=frozenset((*_asked_capabilities(body), *_part_capabilities(parts))),
        stream=body.get("stream") is True,
        answers=max(_answers(body.get("n")), _answers(body.get("best_of"))),  # of these, `n` are shown
        service=service_tier(body.get("service_tier")) or ServiceTier.STANDARD,
        thoughts=_thoughts(body),
    )


def service_tier(word: object) -> ServiceTier | None:
    """The tier that a request or an answer names; None for what leaves it open ("auto") or is a provider's own word."""
    return _SERVICES.get(word) if isinstance(word, str) else None


def _messages(value: object) -> Iterator[dict[str, object]]:
    for message in value if isinstance(value, list) else ():
        if isinstance(message, dict):
            yield message


def _thoughts(body: Mapping[str, object]) -> int | None:
    """As DashScope and SiliconFlow are told; None where that may be left out on the way, or another word stands
    beside it."""
    switch, budget = body.get("enable_thinking"), body.get("thinking_budget")
    if switch is not False and budget is None:
        return None
    provider = body.get("provider")
    droppable = isinstance(provider, dict) and provider.get("require_parameters") is False
    if droppable or any(body.get(name) is not None for name in _OTHER_THOUGHTS):
        return None
    if switch is False:
        return 0
    return budget if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0 else None


def _parts(messages: object) -> Iterator[dict[str, object]]:
    """The content parts of all messages; a plain text is one part."""
    for message in _messages(messages):
        content = message.get("content")
        if isinstance(content, str):
            yield {"type": "text", "text": content}
        elif isinstance(content, list):
            yield from (part for part in content if isinstance(part, dict))


def _input_tokens(body: Mapping[str, object], parts: Sequence[Mapping[str, object]]) -> int:
    messages = list(_messages(body.get("messages")))
    size = sum([_bytes(part.get("text")) for part in parts])
    size += sum([_written(message["tool_calls"]) for message in messages if "tool_calls" in message])
    size += sum([_written(body[field]) for field in ("tools", "functions", "response_format") if field in body])
    fixed = sum([_PART_TOKENS.get(str(part.get("type")), 0) for part in parts])
    return -(-size // _BYTES_PER_TOKEN) + fixed + _TOKENS_PER_MESSAGE * len(messages)


def _bytes(text: object) -> int:
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _written(value: object) -> int:
    """About how many bytes a value has as JSON, however deep it is nested. `dict` and not `Mapping`: the values come
    from a JSON parser, and asking for the abstract type costs more than all the rest."""
    size = 0
    level: list[object] = [value]
    while level:
        deeper: list[object] = []
        for item in level:
            if isinstance(item, str):
                size += (len(item) if item.isascii() else _bytes(item)) + 2
            elif isinstance(item, dict):
                size += 2 * len(item)
                deeper += item
                deeper += item.values()
            elif isinstance(item, list):
                size += len(item)
                deeper += item
            elif item is not None:
                size += 4  # a number, true or false
        level = deeper
    return size


def _max_output_tokens(body: Mapping[str, object]) -> int | None:
    for field in ("max_completion_tokens", "max_tokens"):
        value = body.get(field)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return min(value, _MOST)
    return None


def _answers(value: object) -> int:
    return min(value, _MOST) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def _part_capabilities(parts: Sequence[Mapping[str, object]]) -> Iterator[Capability]:
    for part in parts:
        need = _PART_NEEDS.get(str(part.get("type")))
        if need:
            yield need


def _asked_capabilities(body: Mapping[str, object]) -> Iterator[Capability]:
    if body.get("tools") or body.get("functions"):
        yield Capability.TOOLS
        if body.get("parallel_tool_calls") is True:
            yield Capability.PARALLEL_TOOLS
    if body.get("tool_choice") not in (None, "auto", "none"):
        yield Capability.TOOL_CHOICE
    response_format = body.get("response_format")
    if isinstance(response_format, Mapping) and response_format.get("type") == "json_schema":
        yield Capability.JSON_SCHEMA
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        yield Capability.AUDIO_OUTPUT
    if body.get("web_search_options") is not None:
        yield Capability.WEB_SEARCH
    if body.get("reasoning_effort") not in (None, "none"):
        yield Capability.REASONING
