"""Reads along a stream of chat completion chunks, or of text completion ones.

Each event is parsed once, into the fields that count. The usage chunk that the gateway asked for and the caller did not
is left out. Pure.
"""

from typing import Final

import msgspec

from gateway.errors import Problem
from gateway.seen import DONE, Seen, parse
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


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]
    object: str = ""
    error: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    service_tier: str | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


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
        seen = self.seen
        for choice in chunk.choices:
            seen.choices.add(choice.index)
            if choice.finish_reason:
                seen.finish[choice.index] = choice.finish_reason
            else:
                seen.note_output(len(data))
                if not seen.reasoned and choice.delta is not None:
                    seen.reasoned = choice.delta.reasons
        if chunk.service_tier:
            seen.service_tier = chunk.service_tier
        return True

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
