"""A text completion said as a chat completion, for providers that only chat; and the answer said back.

Pure. Owns which fields of a completions request chat carries, and the shape of `text_completion`. Source: OpenAI's API
document (CreateCompletionRequest), November 2026; docs/completions.md is the same for readers. What a chat answer holds
beside its text (reasoning) has no place in a text completion.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from gateway import openai_shape
from gateway.chat_reader import error_event
from gateway.errors import Problem
from gateway.parameters import PARAMETERS
from gateway.surfaces.responses_lacking import Lacking
from gateway.surfaces.translation import Translation

Object = Mapping[str, object]
NATIVE: Final = "ask for a provider that speaks completions"
# Of one name and meaning in both APIs.
SAME: Final = (
    "frequency_penalty",
    "logit_bias",
    "max_tokens",
    "min_p",
    "n",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "service_tier",
    "stop",
    "temperature",
    "top_k",
    "top_p",
    "user",
)
READ_APART: Final = frozenset({"prompt", "stream", "stream_options", "model", "models", "provider", "wardgate"})
# Values that ask for what holds anyway; any other is lacking.
HOLDS: Final[Mapping[str, tuple[Sequence[object], str]]] = {
    "best_of": ((1,), "asks for answers that are made and thrown away, which chat completions do not do"),
    "echo": ((False,), "asks for the prompt before the answer, which chat completions do not tell"),
    "logprobs": ((), "asks for probabilities in a shape that chat completions do not have"),
    "suffix": (("",), "asks for text that fits between two others, and chat completions have no such place"),
}
DONE: Final = b"data: [DONE]\n\n"


def to_chat(body: Object) -> Translation:
    """One user message that holds the prompt, and what chat completions cannot carry. Nothing is raised: what is wrong
    in type is lacking, since a provider that speaks completions is to judge it itself."""
    lacking = Lacking(NATIVE)
    chat: dict[str, object] = {"messages": [{"role": "user", "content": _prompt(body.get("prompt"), lacking)}]}
    for name, value in body.items():
        if value is None or name in READ_APART:
            continue
        if name in SAME:
            if PARAMETERS[name].check(value):
                chat[name] = value
            else:
                lacking.add(name, f"must be {PARAMETERS[name].must_be}", "mend it")
        elif name not in HOLDS:
            lacking.add(name[:64], "is not known to chat completions")
        elif not any(value == held and isinstance(value, bool) == isinstance(held, bool) for held in HOLDS[name][0]):
            lacking.add(name, HOLDS[name][1])
    _note_options(body.get("stream_options"), lacking)
    return Translation(chat, lacking.found())


def _note_options(options: object, lacking: Lacking) -> None:
    """Of a stream's options chat translates one."""
    if options is not None and not isinstance(options, Mapping):
        lacking.add("stream_options", "must be an object", "mend it")
    for name, value in options.items() if isinstance(options, Mapping) else ():
        if name != "include_usage" and value:
            lacking.add(f"stream_options.{name[:64]}", "is not carried over")


def _prompt(prompt: object, lacking: Lacking) -> str:
    one = prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    if isinstance(one, str) and one:
        return one
    lacking.add("prompt", "is not one text, and a chat completion answers one", "send one text")
    return ""


def answer(completion: Object, body: Object, *, answer_id: str, created: int) -> Object:
    """A chat completion as a text completion."""
    told = {"id": answer_id, "object": "text_completion", "created": created, "model": completion.get("model")}
    choices = [_choice(choice, "message") for choice in _objects(completion.get("choices"))]
    usage = completion.get("usage")
    return {**told, "choices": choices, **({"usage": usage} if isinstance(usage, Mapping) else {})}


class Events:
    """A stream of chat chunks as chunks of a text completion. `usage` stands as null in all but the last where the
    caller asked for it, as OpenAI has it."""

    def __init__(self, body: Object, *, answer_id: str, created: int, model: str) -> None:
        options = body.get("stream_options")
        self._wants = isinstance(options, Mapping) and options.get("include_usage") is True
        self._head = {"id": answer_id, "object": "text_completion", "created": created, "model": model}

    def chunk(self, chunk: Object) -> bytes:
        choices = [_choice(one, "delta") for one in _objects(chunk.get("choices")) if _says(one)]
        usage = {"usage": None} if self._wants else {}
        return _event({**self._head, "choices": choices, **usage}) if choices else b""

    def end(self, usage: Object | None) -> bytes:
        last = _event({**self._head, "choices": [], "usage": usage}) if self._wants and usage is not None else b""
        return last + DONE

    def broke(self, problem: Problem) -> bytes:
        return error_event(problem)


def _choice(choice: Object, inner: str) -> Object:
    held = choice.get(inner)
    text = held.get("content") if isinstance(held, Mapping) else None
    return {
        "text": text if isinstance(text, str) else "",
        "index": choice.get("index", 0),
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }


def _says(choice: Object) -> bool:
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, Mapping) else None
    return bool(text) or choice.get("finish_reason") is not None


def _event(document: Object) -> bytes:
    return b"data: " + openai_shape.encode(document) + b"\n\n"


def _objects(value: object) -> list[Object]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
