"""RELIABILITY G5 (S1, S2, S8): a stream that dies is never hidden, whatever kills it and wherever."""

import asyncio
import json
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.cutting import (
    KEYS,
    MODELS,
    Case,
    Cutting,
    anthropic_stream,
    asking,
    caller,
    cutting,
    gemini_stream,
    keep_well,
    openai_stream,
)

CUTS = int(os.environ.get("WARDGATE_CUTS", "300"))
BATCH = 20  # cuts at a time
TURNS = ("openai", "anthropic", "openai", "gemini", "openai")
WAYS = ("reset", "hang up", "bad chunk", "limit", "whole")  # "whole": a clean end without the end mark
WORDS = ["Hello", " w\u00f6rld", " \U0001f600", " data: [DONE]", " and so on"]
# For each wire its events, and which of them (from the end) says that the answer is finished.
WIRES = {
    "openai": (openai_stream(WORDS), -3),
    "anthropic": (anthropic_stream(WORDS), -2),
    "gemini": (gemini_stream(WORDS), -1),
}
OTHERS = {
    "openai": "deepseek/deepseek-v3.2",
    "anthropic": "anthropic/claude-sonnet-4-5",
    "gemini": "google/gemini-2.5-pro",
}


def cut(wire: str, way: str, random_: random.Random) -> Case:
    """The stream, broken off at a random byte before its finish is whole, in random pieces."""
    events, finish = WIRES[wire]
    whole = b"".join(events)
    most = len(b"".join(events[:finish])) + len(events[finish]) - 4
    raw = whole[: random_.randint(1, most)]
    places = sorted({0, len(raw), *(random_.randint(0, len(raw)) for _ in range(random_.randint(0, 3)))})
    pieces = [raw[a:b] for a, b in pairwise(places)]
    return Case(pieces, way)


def check(wire: str, case: Case, answer: httpx.Response, asked: int) -> bool:
    """Whether the answer had begun; fails where anything is hidden or invented."""
    assert "[DONE]" not in [line.removeprefix("data: ") for line in answer.text.splitlines()]
    if answer.status_code != 200:
        assert answer.status_code == 502 and answer.json()["error"]["fault"] == "provider", answer.text
        return False
    assert asked == 1, "nobody else may speak after the first byte"
    events = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part and not part.startswith(":")]
    error = json.loads(events[-1])["error"]
    assert error["code"] in ("provider_stream_truncated", "provider_malformed_answer"), error
    told = [json.loads(event) for event in events[:-1]]
    assert told and not any(choice["finish_reason"] for chunk in told for choice in chunk["choices"])
    text = "".join(choice["delta"].get("content") or "" for chunk in told for choice in chunk["choices"])
    assert "".join(WORDS).startswith(text)
    if wire == "openai":
        before = answer.content[: answer.content.rindex(b'data: {"error"')]
        assert b"".join(case.pieces).startswith(before) and before.endswith(b"\n\n")
    return True


async def run_batch(upstream: Cutting, client: httpx.AsyncClient, wire: str, first: int, cases: list[Case]) -> int:
    numbers = range(first, first + len(cases))
    upstream.cases |= dict(zip(numbers, cases, strict=True))
    await keep_well(client, wire, len(cases) + 5)
    both = [MODELS[wire], OTHERS[wire]]
    bodies = [asking(wire, number, stream=True, models=both) for number in numbers]
    answers = await asyncio.gather(*[client.post("/v1/chat/completions", json=body) for body in bodies])
    return sum(
        check(wire, case, answer, upstream.asked[number])
        for number, case, answer in zip(numbers, cases, answers, strict=True)
    )


@pytest.mark.timeout(max(120, CUTS // 5))
async def test_stream_that_dies_is_never_hidden(tmp_path: Path) -> None:
    random_, begun, number = random.Random(CUTS), dict.fromkeys(WIRES, 0), 1
    async with cutting() as upstream:
        gateway = RunningGateway(tmp_path, sandbox_config(upstream.url))
        await asyncio.to_thread(gateway.__enter__)
        try:
            token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
            async with caller(gateway.url, token) as client:
                while number <= CUTS:
                    for wire in TURNS:
                        cases = [cut(wire, WAYS[n % len(WAYS)], random_) for n in range(BATCH)]
                        begun[wire] += await run_batch(upstream, client, wire, number, cases)
                        number += BATCH
            for wire in WIRES:
                await asyncio.to_thread(sdk_raises, gateway, token, upstream, wire, number)
        finally:
            await asyncio.to_thread(gateway.__exit__, None, None, None)
    assert min(begun.values()) > CUTS / 15, "most cuts are behind the first byte"


def sdk_raises(gateway: RunningGateway, token: str, upstream: Cutting, wire: str, number: int) -> None:
    """The raw SDK of callers does not take it for a whole answer."""
    for way in WAYS:
        upstream.cases[number] = Case([b"".join(WIRES[wire][0][:4])], way)
        asked: dict[str, Any] = asking(wire, number, stream=True)
        pieces = []
        with pytest.raises(openai.APIError):
            pieces.extend(gateway.client(token).chat.completions.create(**asked))
