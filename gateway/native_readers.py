"""Read along native streams of the Responses and the Messages API: every event goes out as it came. Pure."""

from collections.abc import Mapping
from typing import Final, Protocol

import orjson

from gateway.errors import Problem
from gateway.seen import Seen, is_output, is_reasoning, parse
from gateway.stream_reader import StreamReader
from gateway.surfaces.messages_reader import MessagesReader
from gateway.surfaces.responses_reader import ResponsesReader
from gateway.wording import ANTHROPIC

_MOST: Final = 2**53


class _Facts(Protocol):
    usage: Mapping[str, object] | None
    error: Mapping[str, object] | None
    ended: bool
    started: bool
    service_tier: str | None

    def note(self, name: str, document: Mapping[str, object]) -> None: ...


class _NativeReader(StreamReader):
    """`facts` learns what its wire's events mean."""

    __slots__ = ("_facts",)

    def __init__(self, seen: Seen, facts: _Facts) -> None:
        super().__init__(seen)
        self._facts = facts

    def learn(self, data: bytes, name: str) -> bool:
        document = parse(data)
        if not isinstance(document, dict):
            self.seen.malformed = True
            return False
        facts, seen, kind = self._facts, self.seen, document.get("type")
        facts.note(name or (kind if isinstance(kind, str) else ""), document)
        seen.usage, seen.service_tier, seen.ended = facts.usage, facts.service_tier, facts.ended
        if not (self.started and facts.ended):  # the provider's own last event tells a failure after the first output
            seen.error = facts.error
        self.started = facts.started
        if seen.error is None:
            self.goes(document)
        if is_output(kind):
            seen.note_output(document)
            seen.reasoned = seen.reasoned or is_reasoning(document)
        return True

    def goes(self, document: Mapping[str, object]) -> None:
        """This event goes out."""


class MessagesStreamReader(_NativeReader):
    """Anthropic's wire."""

    __slots__ = ()

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen, MessagesReader())

    def broke(self, problem: Problem) -> bytes:
        return ANTHROPIC.event(problem)


class ResponsesStreamReader(_NativeReader):
    """OpenAI's Responses API. A response that failed is told by its own event, and not once more."""

    __slots__ = ("_next",)

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen, ResponsesReader())
        self._next = 0

    def goes(self, document: Mapping[str, object]) -> None:
        number = document.get("sequence_number")
        self._next = number + 1 if isinstance(number, int) and 0 <= number < _MOST else self._next + 1

    def broke(self, problem: Problem) -> bytes:
        told = problem.error_object()
        event = {
            "type": "error",
            "code": told["code"],
            "message": told["message"],
            "param": told["param"],
            "sequence_number": self._next,
            "error": told,
        }
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"
