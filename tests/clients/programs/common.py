"""What the programs share: where the gateway is, the cases that every client has, and how facts are told.

A program runs in its client's own environment, so this module knows the standard library alone. Each case is one line
of JSON on standard output: its name and what was seen, or what it raised. Judging that is the test's business.
"""

import asyncio
import inspect
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

URL = os.environ["CLIENT_URL"]  # of the gateway, without /v1
TOKEN = os.environ["CLIENT_TOKEN"]
SANDBOX = os.environ["CLIENT_SANDBOX"]
MODEL = "minimax/MiniMax-M2"  # OpenAI's wire
ANTHROPIC_MODEL = "anthropic/claude-haiku-4-5"  # Anthropic's wire
EMBEDDING_MODEL = "openai/text-embedding-3-small"
SAID = "Say hello."
CALL = "Please use lookup for me."  # the sandbox calls a tool that the message names
TOOL_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
LEFT_TIMEOUT_S = 5.0

Facts = dict[str, Any]
Case = Callable[[], Facts]
CASES: dict[str, Case] = {}
LATER: dict[str, Case] = {}  # run only when they are named, because they take long


def case(work: Case) -> Case:
    """A case of this name."""
    CASES[work.__name__] = work
    return work


def marker() -> str:
    """A word by which the sandbox's journal knows a request."""
    return f"mark{uuid4().hex}"


def ordered(order: str, mark: str = "") -> str:
    """A message that orders a misbehaviour from the sandbox."""
    return f"[sandbox: {order}] Say hello. {mark}".rstrip()


def arrived(mark: str) -> list[Facts]:
    """The requests at the provider that hold this mark."""
    with urllib.request.urlopen(f"{SANDBOX}/_sandbox/requests") as answer:
        seen = json.load(answer)
    return [one for one in seen if mark in one["raw"]]


def raised(error: BaseException) -> Facts:
    """What a caller can learn of an error: its class, and status, code and request id wherever it has them."""
    facts: Facts = {"error": type(error).__name__, "says": str(error)[:300]}
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    for one in chain:
        body = getattr(one, "body", None)
        inner = body.get("error", body) if isinstance(body, dict) else {}
        found = {
            "status": getattr(one, "status_code", None),
            "code": inner.get("code") if isinstance(inner, dict) else None,
            "request_id": getattr(one, "request_id", None),
        }
        for name, value in found.items():
            if value is not None:
                facts.setdefault(name, value)
        response = getattr(one, "response", None)
        if response is not None and hasattr(response, "headers"):
            facts.setdefault("retry_after", response.headers.get("retry-after"))
    return facts


# --- plain answers ---------------------------------------------------------------------------------------------------

ERRORS = {  # case -> what the order, token or model is
    "error_401": {"token": "wg_live_not_a_token"},
    "error_403": {"model": "google/gemini-2.5-flash"},  # the tenant has no key of this provider
    "error_404": {"model": "minimax/NoSuchModel"},
    "error_400": {"message": ordered("status=400")},
    "error_429": {"message": ordered("status=429; retry-after=7")},
    "error_500": {"message": ordered("status=500")},
    "error_503": {"message": ordered("status=503")},
}


def add_errors(ask: Callable[..., object], prefix: str = "", **more: str) -> None:
    """The error cases for `ask(message, model=, token=)`, which makes one request without retries of its own."""
    for name, given in ERRORS.items():
        CASES[prefix + name] = failing(ask, **{"message": SAID, **more, **given})


def failing(ask: Callable[..., object], message: str, **given: str) -> Case:
    """A case that must fail: what was raised, and how often the provider was asked."""

    def work() -> Facts:
        mark = marker()
        try:
            answer = _done(ask(f"{message} {mark}", **given))
        except Exception as error:  # noqa: BLE001 - judged by the test
            return {**raised(error), "asked": len(arrived(mark))}
        return {"error": None, "answer": str(answer)[:300]}

    return work


def add_retries(ask: Callable[..., object], prefix: str = "", **more: str) -> None:
    """How often the provider is asked by a client that may try twice again: once where the gateway says that more is in
    vain, though its status is one that clients try again by themselves."""
    CASES[prefix + "retries_in_vain"] = failing(ask, ordered("status=429; retry-after=90"), **more)
    CASES[prefix + "retries_of_use"] = failing(ask, ordered("status=500"), **more)


def _done(answer: object) -> object:
    async def wait() -> object:
        return await answer  # type: ignore[misc]

    return asyncio.run(wait()) if inspect.isawaitable(answer) else answer


# --- streams ---------------------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What a client said of a stream, piece by piece, and how it ended."""

    pieces: list[str] = field(default_factory=list)
    first_s: float | None = None
    error: Facts = field(default_factory=dict)
    closed: float = 0.0


Pieces = Iterator[str] | AsyncIterator[str]


def hear(pieces: Pieces, most: int | None = None) -> Heard:
    """Listen to the end, or leave after so many pieces."""
    heard, started = Heard(), time.monotonic()

    def enough(piece: str) -> bool:
        heard.first_s = heard.first_s or time.monotonic() - started
        heard.pieces += [piece] if piece else []
        return most is not None and len(heard.pieces) >= most

    async def hear_async(some: Any) -> None:
        async with aclosing(some):
            async for piece in some:
                if enough(piece):
                    break
        await asyncio.sleep(0.1)  # for the loop to close what was left

    try:
        if hasattr(pieces, "__anext__"):
            asyncio.run(hear_async(pieces))
        else:
            with closing(pieces) as some:  # type: ignore[type-var]
                for piece in some:  # type: ignore[union-attr]
                    if enough(piece):
                        break
    except Exception as error:  # noqa: BLE001 - judged by the test
        heard.error = raised(error)
    heard.closed = time.monotonic()
    return heard


def told(heard: Heard) -> Facts:
    text = "".join(heard.pieces)
    return {"text": text, "pieces": len(heard.pieces), "first_s": heard.first_s, "error": None, **heard.error}


def add_streams(stream: Callable[..., Pieces], prefix: str = "", **more: str) -> None:
    """The stream cases for `stream(message)`, a generator of text pieces; closing it must leave the gateway."""

    def hearing(message: str) -> Case:
        return lambda: told(hear(stream(message, **more)))

    def cancel() -> Facts:
        mark = marker()
        heard = hear(stream(ordered("gap=0.1; tokens=300", mark), **more), most=2)
        return {"pieces": len(heard.pieces), "left_s": _left_s(mark, heard.closed), "error": None, **heard.error}

    LATER[prefix + "silence"] = hearing(ordered("gap=16.5; tokens=2"))
    orders = {"slow": "delay=1.5", "cut": "cut-after=3; cut=rst", "cut_fin": "cut-after=3; cut=fin"}
    CASES[prefix + "stream"] = hearing(SAID)
    CASES[prefix + "cancel"] = cancel
    for name, order in {**orders, "broken_event": "malformed-after=3"}.items():
        CASES[prefix + name] = hearing(ordered(order))


def _left_s(mark: str, since: float) -> float | None:
    """How long after `since` the provider saw the request being left; None when it never was."""
    while time.monotonic() - since < LEFT_TIMEOUT_S:
        if any(one["client_left"] for one in arrived(mark)):
            return round(time.monotonic() - since, 2)
        time.sleep(0.02)
    return None


# --- the program -----------------------------------------------------------------------------------------------------


def run() -> None:
    """Run every case, or those that are named on the command line."""
    for name in sys.argv[1:] or CASES:
        started = time.monotonic()
        try:
            line: Facts = {"case": name, "facts": (CASES | LATER)[name]()}
        except Exception as error:  # noqa: BLE001 - judged by the test
            line = {"case": name, "raised": f"{type(error).__name__}: {error}"[:500]}
        line["took_s"] = round(time.monotonic() - started, 2)
        print(json.dumps(line, default=str), flush=True)
