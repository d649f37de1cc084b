"""What the ledger is tried with: requests of every kind, their answers, and what each may cost.

Prices stand here as they are given to the gateway, and costs are reckoned from them again, in fractions.
"""

import random
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from tests.scenarios.cutting import (
    MODELS,
    PLAIN,
    Case,
    answer,
    anthropic_stream,
    gemini_stream,
    openai_stream,
)

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
OTHER = "deepseek/deepseek-v3.2"  # on the same wire as MODELS["openai"]
# USD per million tokens, odd on purpose: every line has a fraction of a nano-dollar to round.
PRICES = {
    MODELS["openai"]: {"input": "0.370005", "output": "1.130003", "cached_input": "0.041007"},
    MODELS["anthropic"]: {"input": "1.010001", "output": "5.070009", "cached_input": "0.130005"},
    MODELS["gemini"]: {"input": "0.310003", "output": "2.510001", "cached_input": "0.070007"},
    OTHER: {"input": "0.290005", "output": "0.430009", "cached_input": "0.030001"},
}
PRICED = "\n" + "\n".join(
    f'[models."{model}".prices]\n' + "\n".join(f'{name} = "{usd}"' for name, usd in prices.items())
    for model, prices in PRICES.items()
)
OPEN = MODELS["openai"]  # what it and OTHER write they show; the rest may reason out of sight
# OTHER too: it is asked first, and its stream is the one that breaks, when a run has had OPEN held for ill.
PRICED += "".join(f'\n[models."{model}"]\ncapabilities = {{ reasoning = false }}\n' for model in (OPEN, OTHER))
LIMIT = 50  # tokens of an answer that may not be seen whole, whose usual length is more: so it is taken to be so long


@dataclass(frozen=True)
class Used:
    """Tokens as the upstream tells them; cached ones are inside `read`."""

    read: int
    cached: int
    wrote: int

    def on(self, wire: str) -> dict[str, Any]:
        """In the words of a wire."""
        read, cached, wrote = self.read, self.cached, self.wrote
        if wire == "openai":
            details = {"prompt_tokens_details": {"cached_tokens": cached}}
            return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote, **details}
        if wire == "anthropic":
            return {"input_tokens": read - cached, "cache_read_input_tokens": cached, "output_tokens": wrote}
        told = {"promptTokenCount": read, "candidatesTokenCount": wrote, "totalTokenCount": read + wrote}
        return {**told, "cachedContentTokenCount": cached}


def cost_nano(model: str, read: int, cached: int, wrote: int) -> int:
    """What so much costs, each line in whole nano-dollars, half of one upwards."""
    units = {"input": read - cached, "cached_input": cached, "output": wrote}
    exact = (Fraction(PRICES[model][name]) * 1000 * count for name, count in units.items())
    return sum(int(one + Fraction(1, 2)) for one in exact)


@dataclass(frozen=True)
class Ask:
    """One request, and what it gets: `words` pieces of output behind `head` others, `used` told at its end. The client
    leaves after `leaves` pieces of an answer, or of a plain one before it. A `paced` one is written piece by piece,
    each when the client has read the one before: whoever leaves has missed one piece at most. `limit` is
    `max_tokens`."""

    kind: str
    wire: str
    path: str = CHAT
    stream: bool = False
    used: Used | None = None
    words: int = 0
    head: int = 0
    leaves: int | None = None
    paced: bool = False
    models: tuple[str, ...] = ()
    limit: int | None = None
    case: Case = field(default_factory=lambda: Case([]))
    unusable: Case | None = None  # an answer that began with a success's status, and that nobody can use
    unusable_told: Used | None = None  # the count in it

    def body(self, number: int) -> dict[str, object]:
        message = {"role": "user", "content": f"case-{number}"}
        named: dict[str, object] = {"model": self.models[0]} | ({"models": self.models} if self.models[1:] else {})
        most = 4000 if self.path == MESSAGES else self.limit
        limit = {} if most is None else {"max_tokens": most}
        return named | limit | {"messages": [message], "stream": self.stream}


_COMMENT = [b": one moment\n\n"]
FAILED = answer({"error": {"message": "overloaded"}}, "500 Internal Server Error")
NOT_GOOD = answer({"error": {"message": "no", "type": "invalid_request_error"}}, "400 Bad Request")
# How often each kind comes.
KINDS = {
    "plain": 26,
    "stream": 26,
    "cut": 8,
    "leaves a stream": 8,
    "leaves a plain one": 5,
    "fails over": 8,
    "refused above": 4,
    "refused here": 3,
    "plain, nothing told": 4,
    "stream, nothing told": 4,
    "native": 8,
    "charged and failed over": 8,
    "charged and failed over to a stream": 6,
    "charged for nothing": 5,
}
_NATIVE = {"openai": (CHAT, 0), "anthropic": (MESSAGES, 2), "gemini": (CHAT, 0)}
_STREAMS = {"openai": openai_stream, "anthropic": anthropic_stream, "gemini": gemini_stream}


def asks(count: int, seed: int) -> list[Ask]:
    """So many, mixed; every kind is there from a few dozen on."""
    random_ = random.Random(seed)
    kinds = [kind for kind, share in KINDS.items() for _ in range(max(1, share * count // sum(KINDS.values())))]
    kinds += random_.choices(list(KINDS), list(KINDS.values()), k=max(0, count - len(kinds)))
    random_.shuffle(kinds)
    return [an_ask(kind, random_) for kind in kinds[:count]]


def an_ask(kind: str, random_: random.Random) -> Ask:
    wire = random_.choice(["openai", "openai", "anthropic", "gemini"])
    read = random_.randint(1, 9000)
    used = Used(read, random_.choice([0, random_.randint(0, read)]), random_.randint(LIMIT + 10, 3000))
    if kind.startswith("charged"):
        return _charged_ask(kind, used, random_)
    match kind:
        case "plain":
            return _plain(kind, wire, used)
        case "stream":
            return _stream(kind, wire, used, random_.randint(1, 12))
        case "native":
            if random_.random() < 0.5:
                return _plain(kind, "anthropic", used, MESSAGES)
            return _stream(kind, "anthropic", used, random_.randint(1, 12), path=MESSAGES)
        case "cut":
            return _cut(kind, wire, used, random_)
        case "leaves a stream":
            return replace(_stream(kind, wire, used, 60, leaves=random_.randint(1, 5)), limit=LIMIT)
        case "leaves a plain one":
            silent = Case([b"", b"x"], pause_s=30, raw=True)
            return Ask(kind, wire, leaves=0, models=(MODELS[wire],), limit=LIMIT, case=silent)
        case "fails over":
            good = _plain(kind, "openai", used)
            case_ = Case([FAILED], raw=True, then=good.case)
            return Ask(kind, "openai", used=used, models=(MODELS["openai"], OTHER), case=case_)
        case "refused above":
            return Ask(kind, wire, models=(MODELS[wire],), case=Case([NOT_GOOD], raw=True))
        case "refused here":
            return Ask(kind, wire, models=("openai/no-such-model",))
        case _:
            plain = kind == "plain, nothing told"
            return _plain(kind, "openai", None) if plain else _stream(kind, "openai", None, random_.randint(2, 12))


def a_few(random_: random.Random) -> Used:
    read = random_.randint(1, 900)
    return Used(read, random_.randint(0, read), random_.randint(1, 300))


def _charged_ask(kind: str, used: Used, random_: random.Random) -> Ask:
    told = a_few(random_)
    if kind == "charged and failed over":
        return _charged_first(_plain(kind, "openai", used), _unusable(told), told)
    if kind == "charged and failed over to a stream":
        good = _stream(kind, "openai", used, random_.randint(1, 12))
        return _charged_first(good, Case(_COMMENT, "hang up"), None)
    known = random_.choice([told, None])
    case_ = _unusable(known)
    return Ask(kind, "openai", models=(MODELS["openai"],), case=case_, unusable=case_, unusable_told=known)


def _unusable(told: Used | None) -> Case:
    """A plain answer without any choice."""
    document: dict[str, object] = {"id": "c", "object": "chat.completion", "choices": []}
    return Case([answer(document if told is None else document | {"usage": told.on("openai")})], raw=True)


def _charged_first(good: Ask, unusable: Case, told: Used | None) -> Ask:
    """It is answered by the second who is asked."""
    case_ = replace(unusable, then=good.case)
    return replace(good, models=(MODELS["openai"], OTHER), case=case_, unusable=case_, unusable_told=told)


def _plain(kind: str, wire: str, used: Used | None, path: str = CHAT) -> Ask:
    name = "usageMetadata" if wire == "gemini" else "usage"
    good: dict[str, Any] = PLAIN[wire]  # type: ignore[assignment]
    document = {key: value for key, value in good.items() if key != name}
    whole = document if used is None else document | {name: used.on(wire)}
    return Ask(kind, wire, path, used=used, models=(MODELS[wire],), case=Case([answer(whole)], raw=True))


def _stream(
    kind: str,
    wire: str,
    used: Used | None,
    words: int,
    *,
    path: str = CHAT,
    leaves: int | None = None,
) -> Ask:
    said = [f"word {n:02} " for n in range(words)]
    pieces = openai_stream(said, None) if used is None else _STREAMS[wire](said, used.on(wire))
    head = 2 if wire == "anthropic" else 0
    paced = leaves is not None
    return Ask(kind, wire, path, True, used, words, head, leaves, paced, (MODELS[wire],), None, Case(pieces))


def _cut(kind: str, wire: str, used: Used, random_: random.Random) -> Ask:
    whole = _stream(kind, wire, used, 12)
    pieces = whole.case.pieces[: whole.head + random_.randint(1, 10)]
    end = random_.choice(["reset", "hang up", "bad chunk", "limit", "whole"])
    return Ask(kind, wire, CHAT, True, None, 12, whole.head, None, True, whole.models, LIMIT, Case(pieces, end))
