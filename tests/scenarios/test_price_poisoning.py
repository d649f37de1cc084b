"""RELIABILITY T30: no name with an effect on money changes what the call that sends it costs, nor what the next hundred
of another tenant cost."""

import asyncio
from pathlib import Path
from typing import Any

from tests.scenarios.cutting import KEYS, MODELS, PLAIN, Case, answer, caller
from tests.scenarios.truth import CHAT, Used, cost_nano, priced, rows_soon

USED = Used(1234, 200, 567)
COST = cost_nano(MODELS["openai"], USED.read, USED.cached, USED.wrote)
POISON: dict[str, Any] = {
    "input_cost_per_token": 0,
    "output_cost_per_token": 0,
    "input_cost_per_second": 0,
    "cache_read_input_token_cost": 0,
    "mock_response": "free",
    "mock_tool_calls": [],
    "model_info": {"input_cost_per_token": 0, "output_cost_per_token": 0},
    "litellm_params": {"input_cost_per_token": 0},
    "custom_cost_per_token": {"input_cost_per_token": 0, "output_cost_per_token": 0},
    "base_model": "gpt-4o-mini",
    "custom_llm_provider": "ollama",
    "metadata": {"model_info": {"input_cost_per_token": "0"}, "spend": "0"},
    "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "response_cost": 0,
    "cost": 0,
    "timeout": 0.0001,
    "no-log": True,
    "caching": True,
    "user": "somebody-else",
    "num_retries": 9,
    "fallbacks": ["ollama/free"],
}


def told() -> Case:
    good: dict[str, Any] = PLAIN["openai"]  # type: ignore[assignment]
    return Case([answer(good | {"usage": USED.on("openai")})], raw=True)


async def test_no_name_makes_a_call_cheaper_nor_the_next_hundred_of_others(tmp_path: Path) -> None:
    async with priced(tmp_path) as (gateway, upstream):
        bad, good = [await asyncio.to_thread(gateway.tenant, name, "enterprise", KEYS) for name in ("bad", "good")]
        upstream.cases[1] = told()
        body = {"model": MODELS["openai"], "messages": [{"role": "user", "content": "case-1"}]}
        answered = 0
        async with caller(gateway.url, bad) as poisoning, caller(gateway.url, good) as others:
            for name, value in POISON.items():
                for sent in (body | {name: value}, body | {"extra_body": {name: value}}):
                    reply = await poisoning.post(CHAT, json=sent, headers={"x-request-id": f"bad-{name}"})
                    answered += reply.status_code == 200
                    assert reply.status_code in (200, 400), reply.text
            heads = [{"x-request-id": f"good-{number}"} for number in range(100)]
            replies = await asyncio.gather(*[others.post(CHAT, json=body, headers=head) for head in heads])
        rows = await rows_soon(gateway, "good", 100)
        theirs = await rows_soon(gateway, "bad", 2 * len(POISON))
    assert {each.status_code for each in replies} == {200} and len(rows) == 100
    assert {row["cost_nano"] for row in rows} == {COST}
    assert len(theirs) == 2 * len(POISON) and answered == upstream.asked[1] - 100
    assert sorted({row["cost_nano"] for row in theirs}) in ([COST], [0, COST])
    assert sum(row["cost_nano"] == COST for row in theirs) == answered, "what was asked costs what it costs"
