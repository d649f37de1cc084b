"""Embeddings on wires that are not OpenAI's: one row for each, from the caller's body to theirs and back.

Owns what of an embeddings request each wire carries, how it is said there, and where its answer keeps vectors and
counts. Pure. LiteLLM's own translation is not used for these: it reads some texts as images or files, and fetches the
latter; it counts tokens that the provider did not count (docs/embeddings.md). That both send the same where it does
neither is a test (tests/gateway/test_embedding_wires.py).
"""

import re
from array import array
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from sys import byteorder
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from gateway.refusals import Refused
from keystore.providers import Provider

Object = Mapping[str, object]
Json = dict[str, object]
READ_HERE: Final = frozenset({"input", "model", "models", "provider", "wardgate", "encoding_format", "stream"})
FORMATS: Final = ("float", "base64")
DROPPABLE: Final = frozenset({"user"})  # a note for the provider: the vectors are the same without it
TOKENS: Final = "as tokens is not carried over; send texts, or ask for a provider on OpenAI's wire"
LEAVE_OUT: Final = "leave it out, or ask for a provider on OpenAI's wire"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the caller's that travels: its name on the wire, its check, and what it must be in words."""

    name: str
    check: Callable[[object], bool]
    must_be: str


@dataclass(frozen=True, slots=True)
class EmbeddingWire:
    """One row. `url` is made of the row's base URL and the model; `body` of the model, the texts and the fields under
    the wire's own names; `vectors` and `tokens` read the answer, which is JSON of any shape."""

    wire: str  # for sentences
    fields: Mapping[str, Field]
    url: Callable[[str, str], str]
    body: Callable[[str, Sequence[str], Object], Json]
    vectors: Callable[[Object], object]
    tokens: Callable[[Object], object]


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_word(pattern: str) -> Callable[[object], bool]:
    word = re.compile(pattern)
    return lambda value: isinstance(value, str) and word.fullmatch(value) is not None


def _inside(document: Object, *names: str) -> object:
    """What stands at the end of a path of names, or None."""
    value: object = document
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _gemini_url(base: str, model: str) -> str:
    return f"{base.rstrip('/')}/models/{quote(model, safe='')}:batchEmbedContents"


def _gemini_body(model: str, texts: Sequence[str], fields: Object) -> Json:
    name = f"models/{model}"
    return {"requests": [{"model": name, "content": {"parts": [{"text": text}]}, **fields} for text in texts]}


def _gemini_vectors(document: Object) -> object:
    found = document.get("embeddings")
    return [_inside(one, "values") for one in found] if isinstance(found, list) else None


def _cohere_url(base: str, _: str) -> str:
    """The row's base URL is that of its chat."""
    return base.rstrip("/").removesuffix("/chat") + "/embed"


def _cohere_body(model: str, texts: Sequence[str], fields: Object) -> Json:
    return {
        "model": model,
        "texts": list(texts),
        "input_type": "search_document",
        "embedding_types": ["float"],
        **fields,
    }


WIRES: Final[Mapping[str, EmbeddingWire]] = MappingProxyType(
    {
        "gemini": EmbeddingWire(
            wire="Gemini's wire",
            fields={
                "dimensions": Field("outputDimensionality", _is_positive, "a whole number of at least 1"),
                "task_type": Field("taskType", _is_word(r"[A-Z_]{1,40}"), "one of Gemini's task types"),
            },
            url=_gemini_url,
            body=_gemini_body,
            vectors=_gemini_vectors,
            tokens=lambda document: _inside(document, "usageMetadata", "promptTokenCount"),
        ),
        "cohere_chat": EmbeddingWire(
            wire="Cohere's wire",
            fields={
                "dimensions": Field("output_dimension", _is_positive, "a whole number of at least 1"),
                "input_type": Field("input_type", _is_word(r"[a-z_]{1,40}"), "one of Cohere's input types"),
            },
            url=_cohere_url,
            body=_cohere_body,
            vectors=lambda document: _inside(document, "embeddings", "float"),
            tokens=lambda document: _inside(document, "meta", "billed_units", "input_tokens"),
        ),
    }
)


def wire_of(provider: Provider) -> EmbeddingWire | None:
    """The row by which this provider's embeddings are translated; None where it has none."""
    return WIRES.get(provider.litellm_prefix)


def embedding_refused(provider: Provider, body: Object, dropped: frozenset[str] = frozenset()) -> Refused | None:
    """What the provider's wire cannot carry of an embeddings body; null asks for nothing."""
    wire = wire_of(provider)
    if wire is None:
        return Refused("model", f"{provider.name} does not speak /embeddings itself, and nothing here translates it.")
    wrong = _wrong_input(body.get("input")) or _wrong_format(body.get("encoding_format"))
    if wrong is None:
        asked = {name: value for name, value in body.items() if name not in READ_HERE | dropped and value is not None}
        wrong = next(filter(None, (_wrong_field(wire, name, value) for name, value in asked.items())), None)
    if wrong is None:
        return None
    return Refused(wrong.param, f"{wire.wire} cannot carry this request: `{wrong.param}` {wrong.sentence}.")


def _wrong_input(asked: object) -> Refused | None:
    if isinstance(asked, str) or (isinstance(asked, list) and asked and all(isinstance(one, str) for one in asked)):
        return None
    return Refused("input", TOKENS if isinstance(asked, list) and asked else "must be a text or a list of texts")


def _wrong_format(asked: object) -> Refused | None:
    return None if asked is None or asked in FORMATS else Refused("encoding_format", "must be float or base64")


def _wrong_field(wire: EmbeddingWire, name: str, value: object) -> Refused | None:
    field = wire.fields.get(name)
    if field is None:
        return Refused(name[:64], f"is not carried over; {LEAVE_OUT}")
    return None if field.check(value) else Refused(name, f"must be {field.must_be}")


def texts_of(body: Object) -> list[str]:
    """The texts of a body that was found good."""
    asked = body["input"]
    return [asked] if isinstance(asked, str) else [one for one in asked if isinstance(one, str)]  # type: ignore[attr-defined]


def said(wire: EmbeddingWire, model: str, body: Object, dropped: frozenset[str]) -> Json:
    """The body on the wire."""
    fields = {
        field.name: body[name]
        for name, field in wire.fields.items()
        if body.get(name) is not None and name not in dropped
    }
    return wire.body(model, texts_of(body), fields)


class NotEmbeddings(ValueError):
    """The provider's answer holds no vectors, not as many as there were texts, or something that is no number."""


def answered(wire: EmbeddingWire, document: Object, model: str, body: Object) -> Json:
    """The answer in OpenAI's shape, its vectors in the format that `body` asks for; without `usage` where the provider
    counted nothing. Raises NotEmbeddings."""
    vectors, texts = wire.vectors(document), texts_of(body)
    if not isinstance(vectors, list) or len(vectors) != len(texts):
        raise NotEmbeddings("it does not hold one vector for each text")
    shown = _base64 if body.get("encoding_format") == "base64" else _numbers
    data = [{"object": "embedding", "index": at, "embedding": shown(vector)} for at, vector in enumerate(vectors)]
    answer: Json = {"object": "list", "data": data, "model": model}
    tokens = wire.tokens(document)
    if isinstance(tokens, int | float) and not isinstance(tokens, bool) and tokens >= 0:
        answer["usage"] = {"prompt_tokens": int(tokens), "total_tokens": int(tokens)}
    return answer


def _numbers(vector: object) -> list[float]:
    if not isinstance(vector, list) or not vector:
        raise NotEmbeddings("a vector is empty or none")
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in vector):
        raise NotEmbeddings("a vector holds something else than numbers")
    return vector


def _base64(vector: object) -> str:
    """As OpenAI writes it: 32-bit floats, the low byte first."""
    try:
        packed = array("f", _numbers(vector))
    except OverflowError:
        raise NotEmbeddings("a vector holds a number that 32 bits cannot") from None
    if byteorder == "big":
        packed.byteswap()
    return b64encode(packed.tobytes()).decode("ascii")
