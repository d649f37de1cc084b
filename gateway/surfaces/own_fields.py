"""What a caller calls the field that chat completions know under another name: errors name the caller's own.

Pure. Owns the table of names by surface. Must not know what the fields mean.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from gateway.errors import ApiError
from gateway.events import Endpoint
from gateway.refusals import Refused

Object = Mapping[str, object]
Names = Mapping[str, tuple[str, ...]]
_LIMIT: Final = dict.fromkeys(("max_tokens", "max_completion_tokens"), ("max_output_tokens",))
_ANTHROPICS: Final[Names] = MappingProxyType(
    {
        "max_completion_tokens": ("max_tokens",),
        "reasoning_effort": ("output_config.effort", "thinking"),
        "response_format": ("output_config.format", "output_format"),
        "stop": ("stop_sequences",),
        "user": ("metadata.user_id",),
    }
)
# Chat's name of a field -> the caller's; of several the one that the body has.
NAMES: Final[Mapping[Endpoint, Names]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: {
            "max_tokens": ("max_completion_tokens",),
            "max_completion_tokens": ("max_tokens",),
            "messages": ("input",),
            "tools": ("functions",),
        },
        Endpoint.COMPLETIONS: {"messages": ("prompt",)},
        Endpoint.EMBEDDINGS: {"messages": ("input",)},
        Endpoint.RESPONSES: {
            **_LIMIT,
            "logprobs": ("include", "top_logprobs"),
            "messages": ("input", "instructions"),
            "reasoning_effort": ("reasoning.effort",),
            "response_format": ("text.format",),
            "verbosity": ("text.verbosity",),
        },
        Endpoint.MESSAGES: _ANTHROPICS,
        Endpoint.COUNT_TOKENS: _ANTHROPICS,
    }
)


def own_name(param: str, endpoint: Endpoint, asked: Object) -> str:
    """The caller's name for chat's `param`; `param` itself where the body has a field of that name, or none."""
    root = _root(param)
    if root in asked:
        return param
    names = NAMES.get(endpoint, {}).get(root, ())
    return next((name for name in names if _root(name) in asked), param)


def own_refusal(refused: Refused, endpoint: Endpoint, asked: Object) -> Refused:
    """A refusal of the chat that was made of a body on another surface, in the caller's words: places inside of fields
    are not theirs."""
    name = own_name(_root(refused.param), endpoint, asked)
    return Refused(name, _renamed(refused.sentence, refused.param, name))


def own_error(error: ApiError, endpoint: Endpoint, asked: Object) -> ApiError:
    """The error with the caller's name for the field that it names."""
    problem = error.problem
    name = None if problem.param is None else own_name(problem.param, endpoint, asked)
    if problem.param is None or name == problem.param:
        return error
    return ApiError(replace(problem, param=name, message=_renamed(problem.message, problem.param, str(name))))


def _root(param: str) -> str:
    return re.split(r"[.\[]", param, maxsplit=1)[0]


def _renamed(sentence: str, old: str, new: str) -> str:
    return sentence.replace(f"`{old}`", f"`{new}`")
