"""What a provider on Anthropic's wire really sent: usage, end, error, and whether its answer has begun.

Pure. Reads native answers and events alone; what it does not know it passes over (Anthropic adds event types).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Object = Mapping[str, object]
# The events with which an answer has really begun: before them another provider may still be asked.
CONTENT: Final = frozenset(
    {"content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"}
)


@dataclass(slots=True)
class MessagesReader:
    """The facts so far. `usage` is merged: totals in `message_delta` replace those of `message_start`."""

    usage: Object | None = None
    ended: bool = False  # message_stop, or a whole answer
    error: Object | None = None  # {"type", "message"}
    started: bool = False
    service_tier: str | None = None
    stop_reason: str | None = None

    def note(self, name: str, document: Object) -> None:
        """Learn from one event: its name and its data."""
        kind = document.get("type")
        kind = kind if isinstance(kind, str) else name
        if name == "error" or kind == "error":
            self._fail(document)
            return
        self.started = self.started or kind in CONTENT
        self.ended = self.ended or kind == "message_stop"
        message, delta = document.get("message"), document.get("delta")
        if kind == "message_start" and isinstance(message, dict):
            self._learn(message, message.get("usage"))
        elif kind == "message_delta":
            self._learn(delta if isinstance(delta, dict) else {}, document.get("usage"))

    def note_answer(self, document: Object) -> None:
        """Learn from a plain answer, or from the error in its place."""
        if document.get("type") == "error" or document.get("error"):
            self._fail(document)
            return
        self.started = self.ended = document.get("type") == "message"
        self._learn(document, document.get("usage"))

    def _fail(self, document: Object) -> None:
        error = document.get("error")
        self.error = error if isinstance(error, dict) else document

    def _learn(self, source: Object, usage: object) -> None:
        reason = source.get("stop_reason")
        if isinstance(reason, str):
            self.stop_reason = reason
        if not isinstance(usage, dict):
            return
        self.usage = {**(self.usage or {}), **{name: value for name, value in usage.items() if value is not None}}
        tier = usage.get("service_tier")
        if isinstance(tier, str):
            self.service_tier = tier
