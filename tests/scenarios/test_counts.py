"""What a provider counts oddly, or not at all, is charged as the provider charges it, and never beyond the limit."""

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import SANDBOXED, RunningGateway, sandbox_config
from tests.scenarios.cutting import PLAIN, Case, answer, cutting, openai_chunk
from tests.scenarios.truth import rows_soon, serving

CHAT = "/v1/chat/completions"
OPEN, GROK, KIMI, SEEK = "minimax/MiniMax-M2", "xai/grok-4.3", "moonshot/kimi-k2.6", "deepseek/deepseek-v3.2"
PRICES = {
    OPEN: {"input": "1", "output": "10"},
    GROK: {"input": "1.25", "output": "2.50", "cached_input": "0.20"},
    KIMI: {"input": "0.95", "output": "4.00", "cached_input": "0.16"},
    SEEK: {"input": "0.28", "output": "0.42", "cached_input": "0.028"},
}
KEYS = {f"{name}_API_KEY": f"Key.of-{name}-0123" for name in ("MINIMAX", "XAI", "MOONSHOT", "DEEPSEEK")}
LIMIT = 60
OTHERS = {"xai": "/v1", "moonshot": "/v1"}  # providers that a sandbox config does not have by itself


def plain(usage: Mapping[str, object] | None, content: str = "ok", **more: object) -> Case:
    good: dict[str, Any] = PLAIN["openai"]  # type: ignore[assignment]
    message = {"role": "assistant", "content": content}
    document = good | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"} | more]}
    del document["usage"]
    return Case([answer(document if usage is None else document | {"usage": usage})], raw=True)


def stream(*datas: str) -> Case:
    return Case([b"data: " + data.encode() + b"\n\n" for data in datas])


def likely(word: str) -> dict[str, object]:
    """Of one token, beside the twenty that it might have been."""
    one = {"token": word, "logprob": -0.123456789, "bytes": list(word.encode())}
    return {"content": [one | {"top_logprobs": [one | {"token": f"{word}{n}"} for n in range(20)]}]}


def with_logprobs(word: str) -> str:
    choice = {"index": 0, "delta": {"content": word}, "logprobs": likely(word), "finish_reason": None}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})


XAI = {
    "prompt_tokens": 10120,
    "completion_tokens": 1499,
    "total_tokens": 14428,
    "prompt_tokens_details": {"cached_tokens": 128},
    "completion_tokens_details": {"reasoning_tokens": 2809},
}
MOONSHOT = {"prompt_tokens": 29567, "completion_tokens": 10, "total_tokens": 29577, "cached_tokens": 29440}
DEEPSEEK = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_cache_hit_tokens": 80,
    "prompt_cache_miss_tokens": 20,
}
SETTLED = {  # a name, who answers, what, and what the provider charges, in USD
    "reasoning beside the completion": (GROK, plain(XAI), "0.0232856"),
    "cached input beside the details": (KIMI, plain(MOONSHOT), "0.00487105"),
    "cached input as hits": (SEEK, plain(DEEPSEEK), "0.00002884"),
    "nothing written": (OPEN, plain({"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}, ""), "0.000003"),
}
IN_CHOICE = openai_chunk(reason="stop").replace('"stop"', '"stop", "usage": ' + json.dumps(MOONSHOT))
SETTLED["cached input in the last choice"] = (KIMI, stream(openai_chunk("ok"), IN_CHOICE, "[DONE]"), "0.00487105")
WORDS = "hello " * 20
ESTIMATED = {  # a name, what is answered, tokens that it is taken to have
    "no output counted": (plain({"prompt_tokens": 9, "total_tokens": 209}, WORDS), 30),
    "output counted in halves": (plain({"prompt_tokens": 9, "completion_tokens": 1.5}, WORDS), 30),
    "no input counted": (plain({"completion_tokens": 3}, WORDS), 30),
    "nothing counted": (plain(None, WORDS, logprobs=likely("hello")), 30),
    "nothing counted of a long one": (plain(None, WORDS * 50), LIMIT),
    "log probabilities": (stream(*map(with_logprobs, ["one", " two", " three"]), "[DONE]"), 3),
    "all in one piece": (stream(openai_chunk(WORDS, "stop"), "[DONE]"), 30),
    "more than was asked for": (stream(*[openai_chunk(WORDS)] * 3, openai_chunk(reason="stop"), "[DONE]"), LIMIT),
}


@pytest.mark.timeout(120)
async def test_every_count_is_charged_as_its_provider_charges_it(tmp_path: Path) -> None:
    asked = dict(enumerate([*SETTLED, *ESTIMATED], 1))
    async with cutting() as upstream:
        upstream.cases = {n: SETTLED[name][1] if name in SETTLED else ESTIMATED[name][0] for n, name in asked.items()}
        config = sandbox_config(upstream.url, priced(), dict(SANDBOXED) | OTHERS)
        async with serving(RunningGateway(tmp_path, config)) as gateway:
            token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
            head = {"authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=head, timeout=60) as client:
                for number, name in asked.items():
                    case = upstream.cases[number]
                    model, limit = (SETTLED[name][0], 5000) if name in SETTLED else (OPEN, LIMIT)
                    messages = [{"role": "user", "content": f"case-{number}"}]
                    body = {"model": model, "messages": messages, "max_tokens": limit, "stream": not case.raw}
                    got = await client.post(CHAT, json=body, headers={"x-request-id": f"counts-{number}"})
                    assert got.status_code == 200, (name, got.text)
            rows = {row["client_request_id"]: row for row in await rows_soon(gateway, "counts", len(asked))}
    found = {name: rows[f"counts-{number}"] for number, name in asked.items()}
    nano = {name: int(Decimal(usd) * 10**9) for name, (_, _, usd) in SETTLED.items()}
    assert {name: (row["state"], row["cost_nano"]) for name, row in found.items() if name in SETTLED} == {
        name: ("settled", cost) for name, cost in nano.items()
    }
    assert {name: (row["state"], row["output_tokens"]) for name, row in found.items() if name in ESTIMATED} == {
        name: ("estimated", tokens) for name, (_, tokens) in ESTIMATED.items()
    }


def priced() -> str:
    """The prices above. None of these reasons out of sight."""
    shown = "capabilities = { reasoning = false }\n"
    tables = (
        f'[models."{model}"]\n{shown}[models."{model}".prices]\n'
        + "".join(f'{n} = "{usd}"\n' for n, usd in each.items())
        for model, each in PRICES.items()
    )
    return "\n" + "".join(tables)


@pytest.mark.timeout(60)
async def test_who_leaves_pays_for_words_and_not_for_what_stands_beside_them(tmp_path: Path) -> None:
    words = [" word"] * 40
    async with cutting() as upstream:
        upstream.cases[1] = stream(openai_chunk(""), *map(with_logprobs, words), "[DONE]")
        upstream.paced[1] = asyncio.Semaphore(21)
        async with serving(RunningGateway(tmp_path, sandbox_config(upstream.url, priced()))) as gateway:
            token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
            head = {"authorization": f"Bearer {token}", "x-request-id": "left-1"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=head, timeout=60) as client:
                messages = [{"role": "user", "content": "case-1"}]
                body = {"model": OPEN, "messages": messages, "stream": True, "max_tokens": LIMIT}
                body |= {"logprobs": True, "top_logprobs": 20}
                async with client.stream("POST", CHAT, json=body) as reply:
                    got = 0
                    async for line in reply.aiter_lines():
                        got += line.startswith("data: ")
                        if got == 21:
                            break
            (row,) = await rows_soon(gateway, "left", 1)
    assert (row["state"], row["outcome"], row["output_tokens"]) == ("estimated", "client_left", 21)
