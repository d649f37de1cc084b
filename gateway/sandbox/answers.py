"""What the sandbox says: a pure function of the question and the behaviour, the same every time.

How tokens are counted, so that a test knows the truth:
- input tokens: the words (split at white space) of all texts in the messages and the system prompt, directives
  included; images, tools and schemas count nothing;
- output tokens: the pieces of the answer. A text has one piece for each word; JSON and the arguments of a tool call
  have one for each PIECE_LENGTH characters. With n choices, those of all choices.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.sandbox.behaviours import DIRECTIVE, Behaviour, Finish
from gateway.sandbox.schema import fill

PIECE_LENGTH = 8  # characters of JSON in one piece
ECHOED_WORDS = 40  # of the last user message


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller offers, with the JSON schema of its parameters."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a chat request asks for, whatever its wire."""

    wire: str
    model: str
    texts: tuple[str, ...]  # of all messages and the system prompt
    said: str  # the last user message
    stream: bool = False
    include_usage: bool = True
    choices: int = 1
    max_tokens: int | None = None
    tool: Tool | None = None  # the one to be called
    schema: Mapping[str, Any] | None = None  # of the JSON to be answered


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer in pieces; with `tool`, the pieces are that tool's arguments."""

    pieces: tuple[str, ...]
    finish: Finish
    tool: str | None = None

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    """The choices and the truth about their tokens."""

    number: int  # of the request; the wire's ids are made of it
    model: str
    created: int  # seconds
    choices: tuple[Choice, ...]
    input_tokens: int
    cached_tokens: int  # of the input tokens
    usage: bool  # whether the tokens are told

    @property
    def output_tokens(self) -> int:
        """The pieces of all choices."""
        return sum(len(choice.pieces) for choice in self.choices)


def words(texts: Iterable[str]) -> int:
    """The input tokens of these texts."""
    return sum(len(text.split()) for text in texts)


def compose(question: Question, behaviour: Behaviour, *, number: int, created: int) -> Answer:
    """The answer to the question, made as the behaviour says."""
    input_tokens = words(question.texts)
    return Answer(
        number=number,
        model=question.model,
        created=created,
        choices=tuple(_choice(question, behaviour, index) for index in range(question.choices)),
        input_tokens=input_tokens,
        cached_tokens=min(behaviour.cached, input_tokens),
        usage=not behaviour.no_usage,
    )


def called_tool(tools: Sequence[Tool], said: str, *, forced: str | None, required: bool) -> Tool | None:
    """The tool to call: the one forced by name, else the one that the message names, else the first if one must be."""
    by_name = {tool.name: tool for tool in tools}
    if forced is not None:
        return by_name.get(forced)
    named = next((tool for tool in tools if tool.name and tool.name in said), None)
    return named or (tools[0] if required and tools else None)


def _choice(question: Question, behaviour: Behaviour, index: int) -> Choice:
    pieces = _pieces(question, behaviour, index)
    finish = Finish.TOOL_CALLS if question.tool else Finish.STOP
    if question.max_tokens is not None and len(pieces) > question.max_tokens:
        pieces, finish = pieces[: question.max_tokens], Finish.LENGTH
    return Choice(pieces, behaviour.finish or finish, question.tool.name if question.tool else None)


def _pieces(question: Question, behaviour: Behaviour, index: int) -> tuple[str, ...]:
    if question.tool is not None:
        return _fragments(fill(question.tool.parameters) or {})
    if question.schema is not None:
        return _fragments(fill(question.schema))
    said = " ".join(DIRECTIVE.sub("", question.said).split()[:ECHOED_WORDS])
    text = f"This is {question.model} on the sandbox's {question.wire} wire."
    text += f" You said: {said}" if said else ""
    text += f" (choice {index})" if index else ""
    return _of_length(text.split(), behaviour)


def _of_length(spoken: list[str], behaviour: Behaviour) -> tuple[str, ...]:
    """The words as pieces, as many as are ordered: cut short, or followed by counted words."""
    length = behaviour.tokens if behaviour.tokens is not None else len(spoken)
    length = max(length, behaviour.fewest_tokens)
    more = [f"word{position}" for position in range(len(spoken) + 1, length + 1)]
    chosen = (spoken + more)[:length]
    return tuple(word if position == 0 else f" {word}" for position, word in enumerate(chosen))


def _fragments(value: object) -> tuple[str, ...]:
    text = orjson.dumps(value).decode()
    return tuple(text[start : start + PIECE_LENGTH] for start in range(0, len(text), PIECE_LENGTH))
