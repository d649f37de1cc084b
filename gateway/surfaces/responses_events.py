"""The typed events of a Responses stream, made of the chunks of a chat completion.

Pure. Owns the order of events and their numbers; what an item tells of itself is its own (responses_items). An item is
open until another kind begins, calls until the end. Nothing is made up: a stream that breaks gets no done and no
`response.completed`.

A break is told twice, because clients read different things. The event `error` holds the fields that OpenAI documents
(code, message, param) and the nested object that OpenAI really sends (openai-dotnet issue 881), on which openai-python
and openai-node raise and which the AI SDK requires. `response.failed` follows, with what was said until then, for those
that read terminal events alone, as Codex does.
"""

from collections.abc import Iterable, Iterator, Mapping

from gateway.errors import Problem
from gateway.openai_shape import encode
from gateway.surfaces import responses_answer as shapes
from gateway.surfaces.responses_items import Call, Item, Message, Reasoning

Object = Mapping[str, object]
Json = dict[str, object]


class Events:
    """One stream: `chunk` each chat.completion.chunk, then `end` or `broke`. Each gives whole events as bytes."""

    def __init__(self, body: Object, *, answer_id: str, created: int, model: str) -> None:
        self._response = shapes.response(body, answer_id=answer_id, created=created, model=model)
        self._names = shapes.Names(answer_id)
        self._summarised = shapes.wants_summary(body)
        self._sequence = 0
        self._items: list[Item] = []
        self._open: Reasoning | Message | None = None
        self._calls: dict[int, Call] = {}  # by chat's index
        self._nameless: dict[int, tuple[str, str]] = {}  # id and arguments of calls whose name is still to come
        self._reason: object = None

    def chunk(self, chunk: Object) -> bytes:
        """The events for one chunk; a chunk without a choice has none but the first two of the stream."""
        if isinstance(chunk.get("service_tier"), str):
            self._response["service_tier"] = chunk["service_tier"]
        choice = next(iter(shapes.objects(chunk.get("choices"))), {})
        self._reason = choice.get("finish_reason") or self._reason
        return self._written([*self._beginning(), *self._said(choice)])

    def end(self, usage: Object | None) -> bytes:
        """The events that end a whole stream; `usage` in chat's shape."""
        beginning, closing = list(self._beginning()), list(self._closing())
        made = self._response | shapes.ending(self._reason, [item.whole() for item in self._items])
        made["usage"] = shapes.usage_object(usage) if usage is not None else None
        return self._written([*beginning, *closing, {"type": f"response.{made['status']}", "response": made}])

    def broke(self, problem: Problem) -> bytes:
        """The events that tell a break."""
        error: Json = {"type": "error", "code": problem.code, "message": problem.message, "param": problem.param}
        error["error"] = problem.error_object()
        # OpenAI's words for why a response failed
        code = "rate_limit_exceeded" if problem.status == 429 else "server_error"
        output = [item.whole("incomplete" if self._is_open(item) else "completed") for item in self._items]
        why: Json = {"code": code, "message": problem.message}
        failed = self._response | {"status": "failed", "error": why, "output": output}
        return self._written([error, {"type": "response.failed", "response": failed}])

    def _written(self, events: Iterable[Json]) -> bytes:
        written = bytearray()
        for event in events:
            kind = str(event["type"])
            numbered = {"type": kind, "sequence_number": self._sequence} | event
            written += b"event: " + kind.encode() + b"\ndata: " + encode(numbered) + b"\n\n"
            self._sequence += 1
        return bytes(written)

    def _beginning(self) -> Iterator[Json]:
        if self._sequence == 0:
            yield {"type": "response.created", "response": self._response}
            yield {"type": "response.in_progress", "response": self._response}

    def _said(self, choice: Object) -> Iterator[Json]:
        held = choice.get("delta")
        delta = held if isinstance(held, Mapping) else {}
        if told := shapes.reasoning_of(delta):
            yield from self._reasoned(told)
        text, refusal = shapes.text_of(delta), shapes.text_of(delta, "refusal")
        annotations = shapes.annotations_of(delta)
        if text or refusal or annotations:
            yield from self._spoken(text, refusal, annotations, shapes.logprobs_of(choice))
        for call in shapes.objects(delta.get("tool_calls")):
            yield from self._called(call)

    def _reasoned(self, told: str) -> Iterator[Json]:
        if not isinstance(self._open, Reasoning):
            yield from self._close()
            index = len(self._items)
            self._open = Reasoning(self._names.item("rs", index), index, summarised=self._summarised)
            yield from self._begun(self._open)
        yield from self._open.grow(told)

    def _spoken(self, text: str, refusal: str, annotations: list[Json], logprobs: list[Json]) -> Iterator[Json]:
        if not isinstance(self._open, Message):
            yield from self._close()
            index = len(self._items)
            self._open = Message(self._names.item("msg", index), index)
            yield from self._begun(self._open)
        if text:
            yield from self._open.say(text, logprobs)
        if annotations:
            yield from self._open.cite(annotations)
        if refusal:
            yield from self._open.refuse(refusal)

    def _called(self, delta: Object) -> Iterator[Json]:
        """One piece of a call. Another id and name under the same index are another call: some providers number all of
        theirs 0."""
        at, held = delta.get("index"), delta.get("function")
        key = at if isinstance(at, int) else 0
        function = held if isinstance(held, Mapping) else {}
        call_id, name = shapes.text_of(delta, "id"), shapes.text_of(function, "name")
        call = self._calls.get(key)
        if call is not None and name and call_id not in ("", call.call_id):
            call = None
        before_id, arguments = self._nameless.pop(key, ("", ""))
        arguments += shapes.text_of(function, "arguments")
        if call is None and not name:
            self._nameless[key] = (call_id or before_id, arguments)
            return
        if call is None:
            call = self._calls[key] = self._new_call(call_id or before_id, name)
            yield from self._close()
            yield from self._begun(call)
        if arguments:
            yield from call.grow(arguments)

    def _new_call(self, call_id: str, name: str) -> Call:
        index = len(self._items)
        return Call(self._names.item("fc", index), index, call_id or self._names.item("call", index), name)

    def _begun(self, item: Item) -> Iterator[Json]:
        self._items.append(item)
        yield from item.begin()

    def _close(self) -> Iterator[Json]:
        item, self._open = self._open, None
        if item is not None:
            yield from item.finish()

    def _closing(self) -> Iterator[Json]:
        """The last item of an answer that is not whole is not whole either."""
        for call_id, arguments in self._nameless.values():
            call = self._new_call(call_id, "")
            yield from self._close()
            yield from self._begun(call)
            if arguments:
                yield from call.grow(arguments)
        cut = None if self._reason in shapes.WHOLE or not self._items else self._items[-1]
        for item in self._items:
            if self._is_open(item):
                yield from item.finish("incomplete" if item is cut else "completed")

    def _is_open(self, item: Item) -> bool:
        return item is self._open or isinstance(item, Call)
