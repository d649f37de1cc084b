"""Input items become chat messages: what one turn of the model said and called is one assistant message.

Pure. Owns the order of messages and which item becomes which. Readable reasoning travels as `reasoning_content`, the
name under which chat providers tell it; as in the Responses API (reasoning.context), that of earlier turns is left out
unless `all_turns` is asked for. `id` and `status` of an item name it at its provider and are without effect here.
"""

from collections.abc import Callable, Mapping

from gateway.surfaces.responses_lacking import Lacking, Object, list_of, malformed, object_of, text_of
from gateway.surfaces.responses_parts import content

ROLES = ("system", "developer", "user", "assistant")
Message = dict[str, object]

_STATE = "send the item itself and `store: false`"
_ITEM = frozenset({"type", "id", "status"})


class Conversation:
    """Messages in the making. `take` each item, then `messages`."""

    def __init__(self, lacking: Lacking, *, all_turns: bool, for_chat: bool = False) -> None:
        self._lacking = lacking
        self._all_turns = all_turns
        self._for_chat = for_chat
        self._messages: list[Message] = []
        self._turn: Message | None = None  # the assistant message that what comes next may still belong to
        self._places: dict[int, str] = {}  # of a message that began with reasoning, by its position
        self._readers: Mapping[str, Callable[[Object, str], None]] = {
            "message": self._message,
            "function_call": self._function_call,
            "function_call_output": self._output,
            "reasoning": self._reasoning,
            "item_reference": self._reference,
            **({"custom_tool_call": self._custom_call, "custom_tool_call_output": self._output} if for_chat else {}),
        }

    def instruct(self, text: str) -> None:
        """The request's `instructions`, before anything else."""
        self._messages.append({"role": "system", "content": text})

    def take(self, item: object, where: str) -> None:
        """Add one input item; a chat message where the body is of mixed shape."""
        held = object_of(item, where)
        kind = held.get("type")
        if kind is None:
            kind = "message" if "role" in held else "item_reference"
        if self._for_chat and self._is_chat_message(held):
            self._append(dict(held))
            return
        reader = self._readers.get(text_of(kind, f"{where}.type"))
        if reader is None:
            self._lacking.add(f"{where}.type", f"is {str(kind)[:64]}, an item that chat completions do not know")
            return
        reader(held, where)

    def messages(self) -> list[Message]:
        """All messages, with the reasoning that is still of use."""
        last_user = max((at for at, held in enumerate(self._messages) if held["role"] == "user"), default=-1)
        kept: list[Message] = []
        for at, message in enumerate(self._messages):
            if at < last_user and not self._all_turns and message["role"] == "assistant":
                message.pop("reasoning_content", None)
            if message["role"] == "assistant" and message.get("content") is None and "tool_calls" not in message:
                if "reasoning_content" in message:
                    self._lacking.add(self._places[at], "is reasoning without a message or a call after it")
                continue
            kept.append(message)
        return kept

    @staticmethod
    def _is_chat_message(held: Object) -> bool:
        role = held.get("role")
        return role in ("tool", "function") or (role == "assistant" and "tool_calls" in held)

    def _append(self, message: Message) -> None:
        self._messages.append(message)
        self._turn = None

    def _open(self) -> Message:
        if self._turn is None:
            self._turn = {"role": "assistant", "content": None}
            self._messages.append(self._turn)
        return self._turn

    def _message(self, item: Object, where: str) -> None:
        role = item.get("role")
        if role not in ROLES:
            raise malformed(f"{where}.role", f"one of {', '.join(ROLES)}")
        self._lacking.add_unknown(item, _ITEM | {"role", "content"}, f"{where}.")
        said = content(item.get("content"), str(role), f"{where}.content", self._lacking)
        if role != "assistant":
            self._append({"role": role, "content": said})
            return
        if self._turn is not None and self._turn["content"] is not None and "tool_calls" not in self._turn:
            self._turn = None
        turn = self._open()
        turn["content"] = said if turn["content"] is None else _parts(turn["content"]) + _parts(said)

    def _function_call(self, item: Object, where: str) -> None:
        self._check_call(item, where, {"arguments"})
        arguments = text_of(item.get("arguments"), f"{where}.arguments")
        self._call(item, where, "function", {"arguments": arguments})

    def _custom_call(self, item: Object, where: str) -> None:
        self._check_call(item, where, {"input"})
        self._call(item, where, "custom", {"input": text_of(item.get("input"), f"{where}.input")})

    def _check_call(self, item: Object, where: str, names: set[str]) -> None:
        self._lacking.add_unknown(item, _ITEM | names | {"call_id", "name", "caller"}, f"{where}.")
        self._check_caller(item, where)

    def _call(self, item: Object, where: str, kind: str, inner: Message) -> None:
        named = {"name": text_of(item.get("name"), f"{where}.name")} | inner
        call = {"id": text_of(item.get("call_id"), f"{where}.call_id"), "type": kind, kind: named}
        turn = self._open()
        before = turn.get("tool_calls")
        turn["tool_calls"] = [*before, call] if isinstance(before, list) else [call]

    def _output(self, item: Object, where: str) -> None:
        """`name` repeats that of the call, which chat finds by the id: without effect."""
        self._lacking.add_unknown(item, _ITEM | {"call_id", "output", "caller", "name"}, f"{where}.")
        self._check_caller(item, where)
        call = text_of(item.get("call_id"), f"{where}.call_id")
        said = content(item.get("output"), "tool", f"{where}.output", self._lacking)
        self._append({"role": "tool", "tool_call_id": call, "content": said})

    def _check_caller(self, item: Object, where: str) -> None:
        if item.get("caller") not in (None, {"type": "direct"}):
            self._lacking.add(f"{where}.caller", "says that a program called the tool, which chat does not know")

    def _reasoning(self, item: Object, where: str) -> None:
        known = _ITEM | {"summary", "content", "encrypted_content"}
        self._lacking.add_unknown(item, known, f"{where}.")
        if item.get("encrypted_content"):
            self._lacking.add(f"{where}.encrypted_content", "can be read only by the provider that wrote it")
            return
        told = _told(item.get("content"), f"{where}.content") or _told(item.get("summary"), f"{where}.summary")
        if not told:
            if item.get("id") is not None:
                self._lacking.add(f"{where}.id", "names reasoning that a provider has stored", _STATE)
            return
        if self._turn is not None and self._turn["content"] is not None and "tool_calls" not in self._turn:
            self._turn = None
        turn = self._open()
        self._places.setdefault(len(self._messages) - 1, where)
        before = turn.get("reasoning_content")
        turn["reasoning_content"] = told if before is None else f"{before}\n\n{told}"

    def _reference(self, item: Object, where: str) -> None:
        text_of(item.get("id"), f"{where}.id")
        self._lacking.add(where, "refers to an item that a provider has stored", _STATE)


def _parts(said: object) -> list[object]:
    """What was said as a list of parts."""
    return said if isinstance(said, list) else [{"type": "text", "text": said}]


def _told(parts: object, where: str) -> str:
    if parts is None:
        return ""
    texts = (object_of(part, f"{where}[{index}]").get("text") for index, part in enumerate(list_of(parts, where)))
    return "\n\n".join(text_of(text, f"{where}.text") for text in texts)
