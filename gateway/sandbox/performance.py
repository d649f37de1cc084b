"""Carries out a behaviour: sends a reply or a stream over an exchange, and misbehaves at the ordered place.

Knows neither routes nor questions. Whatever it sends, it first notes, so that the journal is never behind the client.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.sandbox.behaviours import Behaviour, Cut, Malformed
from gateway.sandbox.exchange import Exchange
from gateway.sandbox.wire import Event, Part

FILLER = b" " * 65536
BROKEN_JSON = b'data: {"id": "broken", "choices": [{"delta": {"content": "bro\n\n'
BROKEN_CHUNK = b"this is not the length of a chunk\r\n"
JSON_TYPE = ("content-type", "application/json")
STREAM_HEADERS = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]


@dataclass(frozen=True, slots=True)
class Reply:
    """A plain answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    tokens: int = 0  # output tokens in the body


def json_reply(status: int, body: object, headers: Iterable[tuple[str, str]] = (), *, tokens: int = 0) -> Reply:
    """A reply with a JSON body."""
    return Reply(status, (JSON_TYPE, *headers), orjson.dumps(body), tokens)


@dataclass(frozen=True, slots=True)
class Performance:
    """One behaviour on one exchange. `note` tells the journal; `hold_s` bounds every silence."""

    exchange: Exchange
    behaviour: Behaviour
    note: Callable[..., None]
    gap_s: float
    hold_s: float

    async def begin(self) -> None:
        """What happens before any answer: the delay, the silence, the reset."""
        if self.behaviour.delay:
            await self.exchange.pause(self.behaviour.delay)
        if self.behaviour.silence:
            await self._fall_silent()
        if self.behaviour.reset:
            await self.exchange.sever(Cut.RST)

    async def reply(self, reply: Reply) -> None:
        """Send a plain answer."""
        behaviour, body = self.behaviour, reply.body
        half = body[: len(body) // 2]
        if behaviour.malformed_after is not None and behaviour.malformed is Malformed.JSON:
            body = half
        headers = reply.headers if self._is_chunked() else (*reply.headers, ("content-length", str(len(body))))
        self.note(status=reply.status)
        await self.exchange.start(reply.status, headers)
        if behaviour.cut_after is not None:
            await self.exchange.write(half)
            await self.exchange.sever(behaviour.cut)
        if behaviour.silent_after is not None:
            await self.exchange.write(half)
            await self._fall_silent()
        if self._breaks_framing():
            await self.exchange.write(half)
            await self._break_framing()
        if behaviour.huge:
            await self.exchange.write(body)
            await self._write_filler()
            body = b""
        self.note(tokens_sent=reply.tokens)
        await self.exchange.end(body)

    async def stream(self, events: Iterable[Event], headers: Iterable[tuple[str, str]], error: bytes) -> None:
        """Send a stream; `error` is the event that an ordered error inside it sends."""
        sent = 0
        self.note(status=200)
        await self.exchange.start(200, [*STREAM_HEADERS, *headers])
        marks = Marks(self.behaviour)
        for event in events:
            if event.part is not Part.HEAD and await self._at_mark(marks, sent, event, error):
                break
            if event.part is Part.TOKEN:
                await self.exchange.pause(self.gap_s if sent else 0)
            sent += event.tokens
            self.note(tokens_sent=sent)
            await self.exchange.write(event.data)
        await self.exchange.end()

    async def _at_mark(self, marks: "Marks", sent: int, event: Event, error: bytes) -> bool:
        """Do what is ordered for this place, between `sent` tokens and this event; true when the stream ends here."""
        last = event.part is Part.END
        if marks.huge_is_due():
            await self.exchange.write(b": ")
            await self._write_filler()
            await self.exchange.write(b"\n\n")
        if marks.is_due("cut_after", sent, last=last):
            await self.exchange.sever(self.behaviour.cut)
        if marks.is_due("silent_after", sent, last=last):
            await self._fall_silent()
        if marks.is_due("malformed_after", sent, last=last):
            if self._breaks_framing():
                await self._break_framing()
            await self.exchange.write(BROKEN_JSON)
        if marks.is_due("error_in_stream_after", sent, last=last):
            await self.exchange.write(error)
            return True
        return last and self.behaviour.no_done

    async def _fall_silent(self) -> None:
        await self.exchange.pause(self.hold_s)
        await self.exchange.sever(Cut.FIN)

    async def _break_framing(self) -> None:
        self.exchange.write_unframed(BROKEN_CHUNK)
        await self._fall_silent()

    async def _write_filler(self) -> None:
        left = self.behaviour.huge
        while left > 0:
            await self.exchange.write(FILLER[:left])
            await self.exchange.pause(0)
            left -= len(FILLER)

    def _breaks_framing(self) -> bool:
        return self.behaviour.malformed_after is not None and self.behaviour.malformed is Malformed.CHUNK

    def _is_chunked(self) -> bool:
        return bool(self.behaviour.huge) or self._breaks_framing()


class Marks:
    """Which orders of a stream are still to be carried out: each once, at its place or, at the latest, at the end."""

    def __init__(self, behaviour: Behaviour) -> None:
        names = ("cut_after", "silent_after", "malformed_after", "error_in_stream_after")
        self._places: dict[str, Any] = {name: getattr(behaviour, name) for name in names}
        self._huge = bool(behaviour.huge)

    def is_due(self, name: str, sent: int, *, last: bool) -> bool:
        """Whether the order takes place now; it does not ask to be told twice."""
        place = self._places[name]
        due = place is not None and (last or sent >= place)
        if due:
            self._places[name] = None
        return due

    def huge_is_due(self) -> bool:
        """Whether the filler takes place now."""
        due, self._huge = self._huge, False
        return due
