"""Reads along a native answer of the Responses API: its usage, how it ended, and whether it began.

Pure. Changes nothing: what it reads goes out as it came. Source: OpenAI's API document (ResponseStreamEvent). The error
event is documented flat and sent nested (openai-dotnet issue 881); both are understood.
"""

from collections.abc import Mapping

BEFORE_OUTPUT = frozenset({"response.created", "response.in_progress", "response.queued"})
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
ENDED = ("completed", "incomplete", "failed", "cancelled")


class ResponsesReader:
    """What was seen so far. `error`: the first error object; `ended`: a terminal event was there, of any kind;
    `started`: output was there, so that no other provider may answer instead."""

    def __init__(self) -> None:
        self.usage: Mapping[str, object] | None = None
        self.error: Mapping[str, object] | None = None
        self.ended = False
        self.started = False
        self.service_tier: str | None = None

    def note(self, name: str, document: Mapping[str, object]) -> None:
        """One event of a stream: its name (what `event:` says, or else `type`) and the object in its data."""
        if name == "error":
            nested = document.get("error")
            self._note_error(nested if isinstance(nested, Mapping) else document)
            return
        if name not in BEFORE_OUTPUT and name != "response.failed":
            self.started = True
        held = document.get("response")
        if isinstance(held, Mapping):
            self._note_response(held)
        self.ended = self.ended or name in ENDS

    def note_answer(self, document: Mapping[str, object]) -> None:
        """A plain answer."""
        self._note_response(document)
        self.ended = document.get("status") in ENDED
        self.started = document.get("status") != "failed"

    def _note_response(self, held: Mapping[str, object]) -> None:
        usage, tier = held.get("usage"), held.get("service_tier")
        self.usage = usage if isinstance(usage, Mapping) else self.usage
        self.service_tier = tier if isinstance(tier, str) else self.service_tier
        self._note_error(held.get("error"))

    def _note_error(self, error: object) -> None:
        if isinstance(error, Mapping) and self.error is None:
            self.error = error
