"""Chat completion chunks as the events of a Messages stream, from `message_start` to `message_stop`.

Pure. Anthropic writes one content block after the other: `_Block` holds one, `Events` writes the first that is not yet
finished, and keeps what belongs to later ones. A block of text or thoughts is finished when another begins, a tool call
when its arguments are a whole JSON object; so pieces of several calls may come mixed, and none is lost or reordered.

Chat tells usage last: `message_start` holds zeros, the counts are in `message_delta`, whose totals the SDKs take.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import ApiError, Problem
from gateway.openai_shape import encode
from gateway.surfaces.messages_answer import (
    Kind,
    arguments_of,
    block_of,
    ending,
    message_head,
    name_of,
    objects,
    pieces,
    read_arguments,
    tool_block,
    usage_object,
)
from gateway.surfaces.messages_problem import problem_object
from router.reasons import Fault

Object = Mapping[str, object]
KEEP_ALIVE: Final = b'event: ping\ndata: {"type": "ping"}\n\n'  # on this surface alone
# SDKs pass over what stands behind a whole object, so a call would be made with less than the model said.
MIXED_UP: Final = Problem(
    502,
    "provider_malformed_answer",
    "The provider went on with the arguments of a tool call that were complete.",
    Fault.PROVIDER,
)
# Arguments that are read so often without being whole wait for the end of the stream: time stays in proportion.
MOST_TRIES: Final = 100


@dataclass(slots=True, eq=False)
class _Block:
    """A content block: how it starts, its pieces that were not yet written, and of a call all arguments so far."""

    index: int
    start: Object
    delta: str  # the type of its deltas
    name: str  # the delta's field
    waiting: list[str] = field(default_factory=list)
    arguments: list[str] | None = None  # None: no tool call
    identity: str = ""  # of a tool call: as chat says it
    read: int = 0  # so many pieces of arguments were looked at
    tries: int = 0
    whole: bool = False  # and are an object

    def add(self, piece: str) -> None:
        self.waiting.append(piece)
        if self.arguments is not None:
            self.arguments.append(piece)

    def finished(self) -> bool:
        """Whether nothing more can come, now that another block has begun; of arguments, whether they are an object.
        They are read only when there are more of them, which may be the end; without any, they may still come."""
        if self.arguments is None:
            return True
        if self.read < len(self.arguments):
            self.read = len(self.arguments)
            last = next((piece for piece in reversed(self.arguments) if not piece.isspace()), "")
            ends = last.rstrip().endswith("}") and self.tries < MOST_TRIES
            self.tries += ends
            self.whole = ends and read_arguments("".join(self.arguments)) is not None
        return self.whole


def _event(kind: str, **fields: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **fields}) + b"\n\n"


class Events:
    """One stream. Feed it each chunk, then say how it went: `end` or `broke`."""

    def __init__(self, body: Object, *, answer_id: str, created: int, model: str) -> None:
        self._body = body
        self._id = answer_id
        self._model = model
        self._started = False
        self._blocks: list[_Block] = []
        self._calls: dict[int, _Block] = {}  # the last call of each of chat's indices
        self._called = 0
        self._at = 0  # the block that is being written
        self._opened = False  # its start was written
        self._choice: Object = {}  # the last that told why the answer ended
        self._refused = False
        self._tier: object = None

    def chunk(self, chunk: Object) -> bytes:
        """Zero or more whole events for one chat.completion.chunk; ApiError 502 for one that contradicts what was told:
        say so with `broke`."""
        self._tier = chunk.get("service_tier") or self._tier
        choice = next((each for each in objects(chunk.get("choices")) if each.get("index", 0) == 0), None)
        if choice is None:
            return b""
        begun = self._begin()
        if choice.get("finish_reason") is not None:
            self._choice = choice
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._take(delta)
        return begun + self._write(last=False)

    def end(self, usage: Mapping[str, object] | None) -> bytes:
        """The terminal events; the usage is chat's, None when the provider counted none."""
        told = ending(self._choice, self._body, has_calls=self._called > 0, refused=self._refused)
        counts = usage_object(usage, self._tier)
        written = self._begin() + self._write(last=True)
        return written + _event("message_delta", delta=told, usage=counts) + _event("message_stop")

    def broke(self, problem: Problem) -> bytes:
        """The error inside the stream, and nothing after it: an open block stays open."""
        return _event("error", error=problem_object(problem)["error"])

    def _begin(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        head = message_head(self._id, self._model)
        return _event(
            "message_start", message={**head, "stop_reason": None, "stop_sequence": None, "usage": usage_object(None)}
        )

    def _take(self, delta: Object) -> None:
        """Put each piece into its block."""
        for kind, text in pieces(delta, self._body):
            self._refused = self._refused or kind is Kind.REFUSAL
            self._plain(kind).add(text)
        for call in objects(delta.get("tool_calls")):
            piece = arguments_of(call)
            block = self._call(call, piece)
            if block.index < self._at:
                if piece.strip():
                    raise ApiError(MIXED_UP)
            elif piece:
                block.add(piece)

    def _plain(self, kind: Kind) -> _Block:
        """The block of text or thoughts that goes on, or a new one."""
        name = "thinking" if kind is Kind.THINKING else "text"
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.name != name:
            last = _Block(len(self._blocks), block_of(kind, ""), f"{name}_delta", name)
            self._blocks.append(last)
        return last

    def _call(self, call: Object, piece: str) -> _Block:
        """The block of a call: the one with its index, unless it has another id, or none, a name, and arguments beside
        those of a whole call; some providers number all their calls 0, or not at all."""
        number, identity = call.get("index"), str(call.get("id") or "")
        number = number if isinstance(number, int) else 0
        same = self._calls.get(number)
        if same is not None and identity in ("", same.identity):
            is_other = not identity and name_of(call) and piece.strip() and same.finished()
            if not is_other:
                return same
        start = tool_block(call, self._id, self._called)
        block = _Block(len(self._blocks), start, "input_json_delta", "partial_json", arguments=[], identity=identity)
        self._blocks.append(block)
        self._calls[number] = block
        self._called += 1
        return block

    def _write(self, *, last: bool) -> bytes:
        """Everything whose turn it is; with `last` everything, closed."""
        written = b""
        while self._at < len(self._blocks):
            block = self._blocks[self._at]
            if not self._opened:
                self._opened = True
                written += _event("content_block_start", index=self._at, content_block=block.start)
            written += b"".join(_delta(block, piece) for piece in block.waiting)
            block.waiting.clear()
            follows = self._at + 1 < len(self._blocks)
            if not last and not (follows and block.finished()):
                return written
            written += _event("content_block_stop", index=self._at)
            self._at, self._opened = self._at + 1, False
        return written


def _delta(block: _Block, piece: str) -> bytes:
    return _event("content_block_delta", index=block.index, delta={"type": block.delta, block.name: piece})
