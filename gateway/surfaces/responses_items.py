"""The output items of a Responses stream while they grow: each announced once, fed in pieces, done once.

Pure. Owns the events of one item from `response.output_item.added` to `response.output_item.done`; their numbers and
bytes are their owner's. A part of text, refusal or reasoning is open while its item is.
"""

from collections.abc import Iterator
from typing import Protocol

from gateway.surfaces import responses_answer as shapes

Json = dict[str, object]


class Item(Protocol):
    """One output item. `begin`, `finish`: its events at both ends; `whole`: as it is in the answer."""

    def begin(self) -> Iterator[Json]: ...

    def finish(self, status: str = "completed") -> Iterator[Json]: ...

    def whole(self, status: str = "completed") -> Json: ...


def _added(item: Json, index: int) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item | {"status": "in_progress"}}


def _done(item: Json, index: int) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


class Reasoning:
    """What the provider tells of its reasoning: as the text that it is, or as the summary that was asked for."""

    def __init__(self, name: str, index: int, *, summarised: bool) -> None:
        self._name, self._index, self._summarised = name, index, summarised
        self._pieces: list[str] = []
        of, place = ("reasoning_summary", "summary_index") if summarised else ("reasoning", "content_index")
        self._text_event = f"response.{of}_text"
        self._part_event = "response.reasoning_summary_part" if summarised else "response.content_part"
        self._kind = "summary_text" if summarised else "reasoning_text"
        self._at: Json = {"item_id": name, "output_index": index, place: 0}

    def begin(self) -> Iterator[Json]:
        yield _added(self.whole(), self._index)
        yield {"type": f"{self._part_event}.added", **self._at, "part": {"type": self._kind, "text": ""}}

    def grow(self, text: str) -> Iterator[Json]:
        self._pieces.append(text)
        yield {"type": f"{self._text_event}.delta", **self._at, "delta": text}

    def finish(self, status: str = "completed") -> Iterator[Json]:
        text = "".join(self._pieces)
        yield {"type": f"{self._text_event}.done", **self._at, "text": text}
        yield {"type": f"{self._part_event}.done", **self._at, "part": {"type": self._kind, "text": text}}
        yield _done(self.whole(status), self._index)

    def whole(self, status: str = "completed") -> Json:
        told = "".join(self._pieces)
        return shapes.reasoning_item(self._name, told, summarised=self._summarised, status=status)


class Message:
    """What the model says: parts of text and refusal, one of them open."""

    def __init__(self, name: str, index: int) -> None:
        self._name, self._index = name, index
        self._parts: list[Json] = []  # those that are done
        self._open = ""  # output_text or refusal, while such a part is open
        self._pieces: list[str] = []
        self._annotations: list[Json] = []
        self._logprobs: list[Json] = []

    def begin(self) -> Iterator[Json]:
        yield _added(self.whole(), self._index)

    def say(self, text: str, logprobs: list[Json]) -> Iterator[Json]:
        yield from self._turn_to("output_text")
        self._pieces.append(text)
        self._logprobs += logprobs
        yield {"type": "response.output_text.delta", **self._at(), "delta": text, "logprobs": logprobs}

    def refuse(self, text: str) -> Iterator[Json]:
        yield from self._turn_to("refusal")
        self._pieces.append(text)
        yield {"type": "response.refusal.delta", **self._at(), "delta": text}

    def cite(self, annotations: list[Json]) -> Iterator[Json]:
        yield from self._turn_to("output_text")
        for annotation in annotations:
            place = {"annotation_index": len(self._annotations), "annotation": annotation}
            self._annotations.append(annotation)
            yield {"type": "response.output_text.annotation.added", **self._at(), **place}

    def finish(self, status: str = "completed") -> Iterator[Json]:
        yield from self._close()
        yield _done(self.whole(status), self._index)

    def whole(self, status: str = "completed") -> Json:
        parts = [*self._parts, self._part()] if self._open else list(self._parts)
        return shapes.message_item(self._name, parts, status)

    def _at(self) -> Json:
        return {"item_id": self._name, "output_index": self._index, "content_index": len(self._parts)}

    def _part(self) -> Json:
        text = "".join(self._pieces)
        if self._open == "refusal":
            return shapes.refusal_part(text)
        return shapes.text_part(text, list(self._annotations), list(self._logprobs))

    def _turn_to(self, kind: str) -> Iterator[Json]:
        if self._open == kind:
            return
        yield from self._close()
        self._open = kind
        yield {"type": "response.content_part.added", **self._at(), "part": self._part()}

    def _close(self) -> Iterator[Json]:
        if not self._open:
            return
        part = self._part()
        told = {name: held for name, held in part.items() if name in ("text", "refusal", "logprobs")}
        yield {"type": f"response.{self._open}.done", **self._at(), **told}
        yield {"type": "response.content_part.done", **self._at(), "part": part}
        self._parts.append(part)
        self._open, self._pieces, self._annotations, self._logprobs = "", [], [], []


class Call:
    """A call of a function, done at the end of the stream: pieces of several calls may alternate."""

    def __init__(self, name: str, index: int, call_id: str, function: str) -> None:
        self._name, self._index, self.call_id, self._function = name, index, call_id, function
        self._pieces: list[str] = []

    def begin(self) -> Iterator[Json]:
        yield _added(self.whole(), self._index)

    def grow(self, arguments: str) -> Iterator[Json]:
        self._pieces.append(arguments)
        yield {"type": "response.function_call_arguments.delta", **self._at(), "delta": arguments}

    def finish(self, status: str = "completed") -> Iterator[Json]:
        told = {"name": self._function, "arguments": "".join(self._pieces)}
        yield {"type": "response.function_call_arguments.done", **self._at(), **told}
        yield _done(self.whole(status), self._index)

    def whole(self, status: str = "completed") -> Json:
        return shapes.call_item(self._name, self.call_id, self._function, "".join(self._pieces), status)

    def _at(self) -> Json:
        return {"item_id": self._name, "output_index": self._index}
