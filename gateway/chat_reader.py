"""Reads along a stream of chat completion chunks, or of text completion ones.

Each event is parsed once, into the fields that count. The usage chunk that the gateway asked for and the caller did not
is left out. Pure.
"""

from typing import Final

import msgspec

from gateway.errors import Problem
from gateway.seen import DONE, WORD, Seen, parse
from gateway.sse import Event
from gateway.stream_reader import StreamReader

_NULL: Final = b"null"
_ABSENT: Final = msgspec.Raw(_NULL)
_NOTHING: Final = (_NULL, b'""')


class _Delta(msgspec.Struct, gc=False):
    reasoning_content: msgspec.Raw = _ABSENT
    reasoning: msgspec.Raw = _ABSENT

    @property
    def reasons(self) -> bool:
        return _says(self.reasoning_content) or _says(self.reasoning)


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None
    delta: _Delta | None = None
    usage: msgspec.Raw = _ABSENT


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]
    object: str = ""
    error: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    service_tier: str | None = None


class _Said(msgspec.Struct, gc=False):
    """Of the delta of a long event."""

    content: msgspec.Raw = _ABSENT
    reasoning_content: msgspec.Raw = _ABSENT
    reasoning: msgspec.Raw = _ABSENT

    @property
    def size(self) -> int:
        """Bytes of what is said and thought, as it is written in JSON."""
        return len(bytes(self.content)) + max(len(bytes(self.reasoning_content)), len(bytes(self.reasoning)))


class _SaidChoice(msgspec.Struct, gc=False):
    delta: _Said | None = None


class _SaidChunk(msgspec.Struct, gc=False):
    choices: list[_SaidChoice]


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_SAID: Final = msgspec.json.Decoder(_SaidChunk)


def _says(value: msgspec.Raw) -> bool:
    """Whether there is a value that says something. What is not there is told apart without a look at it: this is asked
    of every token."""
    return value is not _ABSENT and bytes(value) not in _NOTHING


def error_event(problem: Problem) -> bytes:
    """How a stream of chunks tells that it broke: both OpenAI SDKs raise on it. No end mark follows."""
    return b"data: " + problem.body() + b"\n\n"


class ChatReader(StreamReader):
    """With `keep_usage`, the usage chunk goes out."""

    __slots__ = ("_keep_usage",)

    def __init__(self, seen: Seen, *, keep_usage: bool) -> None:
        super().__init__(seen)
        self._keep_usage = keep_usage

    def broke(self, problem: Problem) -> bytes:
        return error_event(problem)

    def learn(self, data: bytes, name: str) -> bool:
        try:
            chunk = _CHUNK.decode(data)
        except (ValueError, RecursionError):  # not a chunk: the end mark, an error, or something odd
            return self._odd(data, name) and (self._keep_usage or not _only_counts(data))
        counted = chunk.usage is not _ABSENT and bytes(chunk.usage) != _NULL
        failed = chunk.error is not _ABSENT and bytes(chunk.error) != _NULL
        if counted or failed or name == "error" or chunk.object == "error":
            return self._odd(data, name) and (self._keep_usage or bool(chunk.choices) or not counted)
        self.started = True
        seen, pieces = self.seen, 0
        for choice in chunk.choices:
            seen.choices.add(choice.index)
            if choice.finish_reason:
                seen.finish[choice.index] = choice.finish_reason
                if choice.usage is not _ABSENT:  # not where OpenAI has it
                    return self._odd(data, name)
            else:
                pieces += 1
                if not seen.reasoned and choice.delta is not None:
                    seen.reasoned = choice.delta.reasons
        if len(data) - seen.around <= WORD:
            seen.note_chunk(len(data), pieces)
        elif chunk.choices:
            self._long(data, pieces)
        if chunk.service_tier:
            seen.service_tier = chunk.service_tier
        return True

    def _long(self, data: bytes, pieces: int) -> None:
        """Most events hold a word and little else. One that is longer is looked into where that is not all text: it may
        hold log probabilities, a sound, a call."""
        try:
            said = sum([choice.delta.size for choice in _SAID.decode(data).choices if choice.delta is not None])
        except RecursionError:  # so deep that only skipping it went well
            said = 0
        if len(data) - self.seen.around - said > WORD or not pieces or rb"\u" in data:
            self.seen.look(data, pieces)
        else:
            self.seen.note_chunk(len(data), pieces)

    def _odd(self, data: bytes, name: str) -> bool:
        if data.strip() == DONE:
            self.seen.ended = True
            return True
        self.started = True
        self.seen.note_event(Event(name, data))
        return True


def _only_counts(data: bytes) -> bool:
    """Whether an odd chunk is the usage chunk."""
    document = parse(data)
    return isinstance(document, dict) and document.get("usage") is not None and not document.get("choices")
