"""What a provider really sent: its ends, usage and errors, read from the raw answer whatever a library makes of it.

One small reader for each wire, chosen by the words that its events hold. Pure.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import orjson

from gateway.output_text import text_size
from gateway.sse import Event

DONE: Final = b"[DONE]"
FREELY: Final = 256 * 1024  # bytes that are parsed whatever they hold: some 0.05 s at worst
MOST_INNER: Final = 500_000  # objects and lists of a larger document: they take the loop's time, and 64 bytes each
MOST_VALUES: Final = 5_000_000
WORD: Final = 16  # characters that one token may have
_CHARACTERS: Final = 4  # of English text to a token
_ABSENT: Final = msgspec.Raw(b"")


@dataclass(slots=True)
class Seen:
    """The facts so far. `finish` holds each choice's reason in the provider's own word."""

    finish: dict[int, str] = field(default_factory=dict)
    choices: set[int] = field(default_factory=set)
    usage: Mapping[str, object] | None = None
    ended: bool = False  # [DONE], message_stop
    error: Mapping[str, object] | None = None  # an error object inside a successful answer
    blocked: str | None = None  # Gemini: why the prompt itself was refused
    malformed: bool = False
    service_tier: str | None = None  # that the provider says it answered on
    pieces: int = 0  # of output: one in each event, or one of each choice in it
    text: int = 0  # bytes of what they say
    around: int = 0  # bytes of the shortest event that are not its text; 0: of none yet
    reasoned: bool = False  # a piece of it was reasoning

    def note_output(self, document: Mapping[str, object]) -> None:
        """One more event held output."""
        self.pieces += 1
        self.text += text_size(document)

    def note_chunk(self, size: int, pieces: int) -> None:
        """As `note_output`, of an event of so many bytes that nobody parsed: what is not around its text is text."""
        self.pieces += pieces
        if size > self.around:
            self.text += size - self.around
        else:
            self.around = size

    def look(self, data: bytes, pieces: int) -> None:
        """As `note_chunk`, of an event that may hold anything; of one that ends all its choices, `pieces` is 0. What is
        longer than any text is taken for a sound or a picture."""
        text = text_size(parse(data)) if len(data) <= FREELY else 0
        around = len(data) - text
        self.around = min(self.around, around) if self.around else around
        self.text += text
        self.pieces += pieces or text > 0

    @property
    def produced(self) -> int:
        """About how many tokens were put out, for a stream that nobody counted to its end: one for each piece, as most
        providers send them, or one for four characters where pieces hold more than a word."""
        return self.pieces if self.text <= WORD * self.pieces else max(self.pieces, self.text // _CHARACTERS)

    def note_event(self, event: Event) -> None:
        """Learn from one event of a stream."""
        if event.data.strip() == DONE:
            self.ended = True
            return
        document = parse(event.data)
        if isinstance(document, dict):
            self.note(document)
            if _puts_out(document):
                self.note_output(document)
                self.reasoned = self.reasoned or is_reasoning(document)
            if event.name == "error" and self.error is None:
                self.error = document
        else:
            self.malformed = True

    def note(self, document: Mapping[str, object]) -> None:
        """Learn from one JSON object: a chunk, an event, or a whole answer, on any wire."""
        error = document.get("error")
        if error:
            self.error = error if isinstance(error, dict) else {"message": str(error)}
        elif document.get("object") == "error":
            self.error = document
        self._openai(document)
        self._anthropic(document)
        self._gemini(document)

    def complete(self, choices: int) -> bool:
        """Whether the answer was brought to its end: an end mark, or a reason for each of `choices` choices."""
        return self.ended or len(self.finish) >= max(choices, len(self.choices), 1)

    def _openai(self, document: Mapping[str, object]) -> None:
        for choice in _objects(document.get("choices")):
            index = choice.get("index", 0)
            if not isinstance(index, int):
                continue
            self.choices.add(index)
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                self.finish[index] = reason
                if len(self.choices) == 1:  # Moonshot has it here (pi issue 2017); of several, each has its own
                    self._use(choice.get("usage"))
        self._serve(document.get("service_tier"))
        self._use(document.get("usage"))

    def _anthropic(self, document: Mapping[str, object]) -> None:
        kind = document.get("type")
        self.ended = self.ended or kind == "message_stop"
        for source in (document, document.get("delta"), document.get("message")):
            if not isinstance(source, dict):
                continue
            reason = source.get("stop_reason")
            if isinstance(reason, str) and reason:
                self.finish[0] = reason
            if source is not document:
                self._use(source.get("usage"))

    def _gemini(self, document: Mapping[str, object]) -> None:
        for place, candidate in enumerate(_objects(document.get("candidates"))):
            index = candidate.get("index", place)
            if not isinstance(index, int):
                continue
            self.choices.add(index)
            reason = candidate.get("finishReason")
            if isinstance(reason, str) and reason:
                self.finish[index] = reason
        feedback = document.get("promptFeedback")
        if isinstance(feedback, dict) and isinstance(feedback.get("blockReason"), str):
            self.blocked = feedback["blockReason"]
        self._use(document.get("usageMetadata"))

    def _serve(self, tier: object) -> None:
        if isinstance(tier, str) and tier:
            self.service_tier = tier

    def _use(self, usage: object) -> None:
        if isinstance(usage, dict) and usage:
            self._serve(usage.get("service_tier"))  # Anthropic's place for it
            self.usage = {**(self.usage or {}), **usage}


def _puts_out(document: Mapping[str, object]) -> bool:
    """Whether an event of any wire holds a piece of the answer."""
    if choices := _objects(document.get("choices")):
        return not any(choice.get("finish_reason") for choice in choices) or text_size(document) > 0
    return bool(document.get("candidates")) or is_output(document.get("type"))


def is_output(kind: object) -> bool:
    """Whether events of this type hold a piece of the answer: Anthropic's, Cohere's, and those of Responses."""
    return isinstance(kind, str) and kind.endswith("delta") and kind != "message_delta"


def is_reasoning(document: Mapping[str, object]) -> bool:
    """Whether an event that holds output holds reasoning. A summary of it, as Responses has, is none; Gemini counts its
    thoughts in every event."""
    delta = document.get("delta")
    if isinstance(delta, dict):
        return delta.get("type") == "thinking_delta"
    if document.get("type") == "response.reasoning_text.delta":
        return True
    deltas = [choice.get("delta") for choice in _objects(document.get("choices"))]
    return any(each.get("reasoning_content") or each.get("reasoning") for each in deltas if isinstance(each, dict))


class _Top(msgspec.Struct, gc=False):
    """What is read of a plain answer on a wire that is passed through."""

    error: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT
    type: msgspec.Raw = _ABSENT
    choices: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    service_tier: msgspec.Raw = _ABSENT
    input_tokens: msgspec.Raw = _ABSENT


_TOP: Final = msgspec.json.Decoder(_Top)


def skim(raw: bytes) -> object | None:
    """As `parse`, of a large answer that nobody translates only the fields that are read here, and of a long one only
    that it is there: it may hold anything, and the loop waits for whoever makes objects of it."""
    if len(raw) <= FREELY:
        return parse(raw)
    try:
        top = _TOP.decode(raw)
    except (ValueError, RecursionError):
        return parse(raw)
    held = {name: bytes(getattr(top, name)) for name in _Top.__struct_fields__}
    return {name: _short(value) for name, value in held.items() if value}


def _short(value: bytes) -> object:
    if len(value) <= FREELY:
        return parse(value)
    return [{}] if value.startswith(b"[") else {"": ""} if value.startswith(b"{") else ""


def parse(raw: bytes) -> object | None:
    """The JSON value in `raw`, leniently: what SDKs read (half emojis, Infinity) is no reason to break off. None when
    it is not JSON at all, or holds more than anybody meant to say."""
    document: object
    if len(raw) > FREELY and (raw.count(b"{") + raw.count(b"[") > MOST_INNER or raw.count(b",") > MOST_VALUES):
        return None
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        document = _parse_leniently(raw)
    return document


def _parse_leniently(raw: bytes) -> object | None:
    document: object
    try:
        document = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return document


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
