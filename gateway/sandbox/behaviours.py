"""How the sandbox may misbehave: one record, one parser, and the places where an order may stand.

An order is options separated by semicolons (`status=429; retry-after=2`). It may stand in the header `x-sandbox`, in
the last user message (`[sandbox: status=500]`), in the model's name (`sandbox-status-429`), or in a script
(gateway.sandbox.script). Pure: what an option does to an answer is the business of the other modules.

| option | the answer |
|---|---|
| `status=429` | the wire's real error body for this status (300 to 599) |
| `code=…`, `message=…` | another word or sentence in that error body |
| `retry-after=2`, `retry-after-ms=50` | the header, as written |
| `echo-key` | the error's message repeats the key that was given, as some providers do |
| `html` | a proxy's page instead of JSON; status 502 unless told otherwise |
| `redirect=URL` | 307 (or `status`) to the URL |
| `set-cookie` | a cookie that names the key's owner |
| `delay=0.3` | comes that many seconds later |
| `silence` | never comes: the connection stays open until the client leaves, or for the sandbox's limit |
| `reset` | never comes: TCP reset as soon as the request was read |
| `huge`, `huge=1000` | is that many bytes of white space longer (64 MiB) |
| `gap=0.05` | is streamed with that many seconds between tokens |
| `tokens=100` | has that many tokens (words) |
| `cached=5` | says that many of its input tokens came from a cache |
| `finish=length` | ends for this reason: stop, length or content_filter |
| `no-usage` | counts no tokens |
| `no-done` | is a stream that ends cleanly after its tokens, with neither finish reason, usage nor end mark |
| `cut-after=3`, `cut=fin` | breaks off after so many tokens: `cut=rst` (a TCP reset, the default) or `cut=fin` |
| `malformed-after=2`, `malformed=chunk` | has a broken event after so many tokens: `malformed=json` (the default; the stream then goes on) or `malformed=chunk` (HTTP's chunked framing breaks, then silence) |
| `silent-after=1` | falls silent after so many tokens |
| `error-in-stream-after=2` | is a stream that ends with the wire's error event after so many tokens |

`…-after=N` makes the answer longer than N tokens. A plain answer has no tokens to count: it is cut, broken or left
hanging in its middle; `error-in-stream-after` and `no-done` do nothing to it.
"""  # noqa: E501 - a table row is a line

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

HEADER = "x-sandbox"
HUGE_BYTES = 64 * 1024 * 1024
MAX_SECONDS = 3600
DIRECTIVE = re.compile(r"\[sandbox:\s*([^\]]*)\]")
MODEL_PREFIX = "sandbox-"


class BehaviourError(ValueError):
    """The order to the sandbox cannot be read."""


class Cut(StrEnum):
    """How a connection ends before its answer does."""

    RST = "rst"
    FIN = "fin"


class Malformed(StrEnum):
    """What is broken: the JSON of one event, or the framing of the HTTP body."""

    JSON = "json"
    CHUNK = "chunk"


class Finish(StrEnum):
    """Why an answer ended, in OpenAI's words; the other wires translate."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What is to happen to one answer; the default is a good answer at once. The module's table says what each does."""

    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after: str | None = None
    retry_after_ms: str | None = None
    echo_key: bool = False
    html: bool = False
    redirect: str | None = None
    set_cookie: bool = False
    delay: float = 0.0
    silence: bool = False
    reset: bool = False
    huge: int = 0
    gap: float | None = None
    tokens: int | None = None
    cached: int = 0
    finish: Finish | None = None
    no_usage: bool = False
    no_done: bool = False
    cut_after: int | None = None
    cut: Cut = Cut.RST
    malformed_after: int | None = None
    malformed: Malformed = Malformed.JSON
    silent_after: int | None = None
    error_in_stream_after: int | None = None

    @property
    def fewest_tokens(self) -> int:
        """So many tokens an answer needs for the order to take place."""
        marks = (self.cut_after, self.malformed_after, self.silent_after, self.error_in_stream_after)
        return max((mark + 1 for mark in marks if mark is not None), default=0)

    def to_text(self) -> str:
        """The order that gives this behaviour; empty for the default."""
        options = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                name = field.name.replace("_", "-")
                options.append(name if value is True else f"{name}={value}")
        return "; ".join(options)


NORMAL = Behaviour()


def _flag(text: str) -> bool:
    if text in {"", "true", "1"}:
        return True
    if text in {"false", "0"}:
        return False
    raise ValueError("takes no value")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 <= value <= MAX_SECONDS:
            return value
    raise ValueError(f"takes seconds, 0 to {MAX_SECONDS}")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("takes a whole number, 0 or more")
    return int(text)


def _status(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 300 <= int(text) <= 599):
        raise ValueError("takes an HTTP status, 300 to 599")
    return int(text)


def _text(text: str) -> str:
    if not text:
        raise ValueError("needs a value")
    return text


def _huge(text: str) -> int:
    return HUGE_BYTES if text in {"", "true"} else _count(text)


def _one_of(closed_set: type[StrEnum]) -> Callable[[str], StrEnum]:
    def convert(text: str) -> StrEnum:
        if text not in set(closed_set):
            raise ValueError(f"takes one of {', '.join(closed_set)}")
        return closed_set(text)

    return convert


OPTIONS: Mapping[str, Callable[[str], object]] = {
    "status": _status,
    "code": _text,
    "message": _text,
    "retry-after": _text,
    "retry-after-ms": _text,
    "echo-key": _flag,
    "html": _flag,
    "redirect": _text,
    "set-cookie": _flag,
    "delay": _seconds,
    "silence": _flag,
    "reset": _flag,
    "huge": _huge,
    "gap": _seconds,
    "tokens": _count,
    "cached": _count,
    "finish": _one_of(Finish),
    "no-usage": _flag,
    "no-done": _flag,
    "cut-after": _count,
    "cut": _one_of(Cut),
    "malformed-after": _count,
    "malformed": _one_of(Malformed),
    "silent-after": _count,
    "error-in-stream-after": _count,
}

OPTION_IN_MODEL = re.compile(rf"-({'|'.join(sorted(OPTIONS, key=len, reverse=True))})(?=-|$)")


def parse(text: str) -> Behaviour:
    """The behaviour that an order names; BehaviourError says which option cannot be read and what it takes."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return _build((name.strip().lower(), value.strip()) for name, _, value in pairs)


def from_json(order: object) -> Behaviour:
    """The behaviour of one entry of a script: an order as text, or an object of the same options."""
    if isinstance(order, str):
        return parse(order)
    if not isinstance(order, dict):
        raise BehaviourError(f"a behaviour is a text such as 'status=429' or an object, not {order!r}")
    values = (
        (str(name), str(value).lower() if isinstance(value, bool) else str(value)) for name, value in order.items()
    )
    return _build((name.replace("_", "-"), value) for name, value in values)


def in_message(text: str) -> Behaviour | None:
    """The behaviour ordered by `[sandbox: …]` in a message; None when there is none."""
    found = DIRECTIVE.search(text)
    return parse(found.group(1)) if found else None


def in_model(model: str) -> Behaviour | None:
    """The behaviour ordered by a model's name: `sandbox-status-429`, `openai/sandbox-cut-after-3-cut-fin`."""
    name = model.rpartition("/")[2]
    if not name.startswith(MODEL_PREFIX):
        return None
    parts = OPTION_IN_MODEL.split(f"-{name.removeprefix(MODEL_PREFIX)}")
    if parts[0]:  # begins with a word that is no option: an ordinary model of the sandbox
        return None
    return _build((option, value.removeprefix("-")) for option, value in zip(parts[1::2], parts[2::2], strict=True))


def _build(options: Iterable[tuple[str, str]]) -> Behaviour:
    values: dict[str, Any] = {}
    for name, text in options:
        values[name.replace("-", "_")] = _convert(name, text)
    return Behaviour(**values)


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _convert(name: str, text: str) -> object:
    convert = OPTIONS.get(name)
    if convert is None:
        near = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(OPTIONS)}"
        raise BehaviourError(f"the sandbox has no option '{name}': {hint}")
    try:
        return convert(text)
    except ValueError as error:
        raise BehaviourError(f"the sandbox's option '{name}' {error}, not '{text}'") from error
