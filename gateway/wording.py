"""One error model, worded for each wire: as a body, and as the last event of a stream that breaks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.chat_reader import error_event
from gateway.errors import Problem
from gateway.surfaces.messages_problem import problem_body


@dataclass(frozen=True, slots=True)
class Wording:
    """`body` takes the problem and the request's id; `id_header` is where that wire's SDKs look for the id besides."""

    body: Callable[[Problem, str], bytes]
    event: Callable[[Problem], bytes]
    id_header: str | None = None


def _openai_body(problem: Problem, _: str) -> bytes:
    return problem.body()


def _named_event(problem: Problem) -> bytes:
    return b"event: error\n" + error_event(problem)


def _anthropic_event(problem: Problem) -> bytes:
    return b"event: error\ndata: " + problem_body(problem) + b"\n\n"


OPENAI: Final = Wording(_openai_body, error_event)
RESPONSES: Final = Wording(_openai_body, _named_event)
ANTHROPIC: Final = Wording(problem_body, _anthropic_event, "request-id")
