"""The body of a chat completion: read once, checked against a table, never changed.

To a provider on OpenAI's wire every field travels as it was written. Into LiteLLM only what is listed in PARAMETERS
does, so that no field of a caller can name a key, a base URL, a header, a price or a callback; what is not listed is
refused by name there instead of being dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import orjson

from gateway.errors import bad_request
from gateway.fields import Fields, read_fields
from gateway.json_body import SHOWN_LENGTH, kind_of, parse_object, shown_name
from gateway.openai_shape import encode
from gateway.parameters import JUDGED, NOT_FOR_PROVIDERS, NOT_YET, PARAMETERS, READ_HERE
from gateway.refusals import Refused
from gateway.surface import CHAT, Surface

Headers = Sequence[tuple[bytes, bytes]]

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MODEL_LENGTH = 256
MAX_NAME_LENGTH = 256  # of a field
MAX_MODELS = 20
MAX_MESSAGES = 10_000
ON_LOOP_BYTES = 32 * 1024  # a larger body is read in a thread, so that nobody else waits for it


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked chat completion request. `parameters` are the caller's own values; null ones are left out."""

    model: str
    messages: list[dict[str, object]]
    parameters: Mapping[str, object]
    stream: bool
    include_usage: bool  # the caller asked for the usage chunk
    body: Mapping[str, object]  # as it came, for reading what the request needs and prefers
    models: tuple[str, ...] = ()  # to be tried after `model`
    surface: Surface = CHAT
    raw: bytes | None = field(default=None, repr=False)  # as it came on its surface; None: it is said as `body`
    unknown: Mapping[str, object] = field(default_factory=dict)  # fields that only a provider of this surface may know
    asked: Mapping[str, object] = field(default_factory=dict)  # the caller's own body, where it is not `body`
    lacking: tuple[Refused, ...] = ()  # what of it `body` does not carry
    dropped: frozenset[str] = frozenset()  # parameters that are left out
    headers: Headers = ()  # of the caller's, that travel natively
    query: bytes = b""  # likewise
    tells_cost: bool = False  # the caller wants the cost in `usage`

    @property
    def fields(self) -> Fields:
        """The body's top-level fields, each as it was written."""
        return read_fields(orjson.dumps(self.body) if self.raw is None else self.raw)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(encode(self.asked or self.body)) if self.raw is None else len(self.raw)

    def as_chat(self) -> "ChatRequest":
        """What is sent to a provider that does not speak the surface: a chat completion."""
        return self if self.surface is CHAT else replace(self, surface=CHAT, raw=None, headers=(), query=b"")


def read_chat_request(raw: bytes) -> ChatRequest:
    """Parse and check a body; raises ApiError 400 that names the field and says what it must be."""
    return checked(parse_object(raw), raw)


def checked(body: Mapping[str, object], raw: bytes | None) -> ChatRequest:
    """The request of a chat completions body that was parsed from `raw`; raises as `read_chat_request`."""
    parameters = {name: _checked(name, value) for name, value in body.items() if _travels(name, value)}
    unknown = {name: value for name, value in body.items() if name not in PARAMETERS and name not in READ_HERE}
    if "max_tokens" in parameters and "max_completion_tokens" in parameters:  # a row may rename one into the other
        message = "`max_tokens` and `max_completion_tokens` set the same limit; send one of them."
        raise bad_request(message, param="max_completion_tokens")
    stream, tells_cost = flag(body, "stream"), _tells_cost(body.get("usage"))
    first, *others = model_names(body)
    return ChatRequest(
        model=first,
        models=tuple(others),
        messages=_messages(body),
        parameters=parameters,
        stream=stream,
        include_usage=_include_usage(body.get("stream_options"), stream) or (tells_cost and stream),
        body=body,
        raw=raw,
        unknown=unknown,
        tells_cost=tells_cost,
    )


def _tells_cost(wish: object) -> bool:
    """Whether the answer's `usage` is to say what it cost: OpenRouter's `usage: {"include": true}`."""
    if wish is None:
        return False
    if not isinstance(wish, dict) or not isinstance(wish.get("include", False), bool) or set(wish) - {"include"}:
        raise bad_request('`usage` must be {"include": true}, or false.', param="usage")
    return wish.get("include") is True


def _include_usage(options: object, stream: bool) -> bool:
    """Whether the caller asked for the usage chunk. The other options are for a provider on OpenAI's wire."""
    if options is None:
        return False
    if not isinstance(options, dict):
        raise bad_request("`stream_options` must be an object.", param="stream_options")
    if not stream:
        raise bad_request("`stream_options` is only allowed when `stream` is true.", param="stream_options")
    for name in ("include_usage", "include_obfuscation"):
        value = options.get(name)
        if value is not None and not isinstance(value, bool):
            where = f"stream_options.{name}"
            raise bad_request(f"`{where}` must be true or false, not {kind_of(value)}.", param=where)
    return bool(options.get("include_usage"))


def _travels(name: str, value: object) -> bool:
    if name in NOT_YET:
        text = f"`{name}` has no effect here yet: {NOT_YET[name]}."
        raise bad_request(text, param=name, code="unsupported_parameter")
    if name not in PARAMETERS:
        check_name(name)
    return name in PARAMETERS and value is not None


def check_name(name: str) -> None:
    """Raise ApiError 400 for a field that no provider should be sent, on any surface: what a library would take as a
    key, a host or a callback, and another spelling of a field that is read here, since there are readers of JSON that
    know no capitals (Go's, .NET's): the provider would do what nobody judged."""
    shown = shown_name(name)
    if len(name) > MAX_NAME_LENGTH or NOT_FOR_PROVIDERS.fullmatch(name):
        text = f"`{shown}` is for a library or a gateway, not for a provider, and has no effect here; remove it."
        raise bad_request(text, param=shown, code="unsupported_parameter")
    folded = name.casefold()
    if folded != name and (folded in JUDGED or folded in PARAMETERS):
        raise bad_request(f"`{shown}` is written `{folded}`.", param=shown, code="unsupported_parameter")


def near_parameter(name: str) -> str:
    """A question with the known parameter that is nearest to `name`, or nothing."""
    near = get_close_matches(name[:SHOWN_LENGTH], PARAMETERS, n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


def _checked(name: str, value: object) -> object:
    parameter = PARAMETERS[name]
    if not parameter.check(value):
        raise bad_request(f"`{name}` must be {parameter.must_be}, not {_told(value)}.", param=name)
    return value


def flag(body: Mapping[str, object], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_request(f"`{name}` must be true or false, not {kind_of(value)}.", param=name)
    return bool(value)


def model_names(body: Mapping[str, object]) -> list[str]:
    """`model`, then `models`; each is there at most once."""
    model, models = body.get("model"), body.get("models")
    if models is not None and not isinstance(models, list):
        raise bad_request(f"`models` must be a list of strings, not {kind_of(models)}.", param="models")
    if models is not None and not 1 <= len(models) <= MAX_MODELS:
        raise bad_request(f"`models` must name 1 to {MAX_MODELS} models; leave it out to name none.", param="models")
    if model is None and not models:
        raise bad_request("`model` is missing: name a model, a family, `auto` or `default`.", param="model")
    named = [] if model is None else [_model_name(model, "model")]
    return list(dict.fromkeys(named + [_model_name(each, f"models[{at}]") for at, each in enumerate(models or ())]))


def _model_name(model: object, where: str) -> str:
    if not isinstance(model, str):
        raise bad_request(f"`{where}` must be a string, not {kind_of(model)}.", param=where)
    if not model.strip() or len(model) > MAX_MODEL_LENGTH:
        raise bad_request(f"`{where}` must be 1 to {MAX_MODEL_LENGTH} characters long.", param=where)
    return model.strip()


def _messages(body: Mapping[str, object]) -> list[dict[str, object]]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise bad_request(f"`messages` must be a list of messages, not {kind_of(messages)}.", param="messages")
    if not messages:
        raise bad_request("`messages` is empty; send at least one message.", param="messages")
    if len(messages) > MAX_MESSAGES:
        message = f"`messages` has {len(messages)} messages; this gateway takes at most {MAX_MESSAGES}."
        raise bad_request(message, param="messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    return messages


def _check_message(message: object, where: str) -> None:
    if not isinstance(message, dict):
        raise bad_request(f"`{where}` must be an object, not {kind_of(message)}.", param=where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise bad_request(f"`{where}.role` must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in content):
            raise bad_request(f"`{where}.content` must hold objects with a `type`.", param=f"{where}.content")
    elif content is not None and not isinstance(content, str):
        raise bad_request(f"`{where}.content` must be a string, a list of parts or null.", param=f"{where}.content")
    elif content is None and role != "assistant" and not (role == "function" and "content" in message):
        raise bad_request(f"`{where}.content` is missing.", param=f"{where}.content")


def _told(value: object) -> str:
    """A small number as it is, anything else by its kind."""
    return (
        str(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
        else kind_of(value)
    )
