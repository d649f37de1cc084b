"""What no count of tokens bounds: thoughts beyond `max_tokens`, and fees beside the tokens."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from keystore.keystore import Keystore
from tests.harness import SANDBOXED, RunningGateway, sandbox_config
from tests.scenarios.cutting import KEYS, PLAIN, Case, Cutting, answer, cutting
from tests.scenarios.truth import CHAT, rows_soon, serving

QWEN = "qwen/qwen-plus"
PRICES = """
[models."qwen/qwen-plus".prices]
input = "0.40"
output = "4.00"
"""
THOUGHT = 81_920  # tokens: as long as qwen-plus thinks at most
COST = 20 * 400 + (THOUGHT + 1) * 4_000  # of such an answer, in nano-dollars
AT_MOST = (262_144 + 100 + 1) * 4_000  # what is held for what it may write


def thinks(read: int = 20, thought: int = THOUGHT) -> Case:
    """A good answer of one token."""
    details = {"completion_tokens_details": {"reasoning_tokens": thought}}
    usage = {"prompt_tokens": read, "completion_tokens": thought + 1, "total_tokens": read + thought + 1, **details}
    good: dict[str, Any] = PLAIN["openai"]  # type: ignore[assignment]
    return Case([answer(good | {"usage": usage})], raw=True)


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-5",
    "status": "completed",
    "output": [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "ok", "annotations": []}],
        },
    ],
    "usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110},
}
MESSAGE: dict[str, Any] = PLAIN["anthropic"]  # type: ignore[assignment]
SEARCHED = {"usage": {"input_tokens": 100, "output_tokens": 10, "server_tool_use": {"web_search_requests": 3}}}
CASES = {
    1: thinks(),
    2: Case([answer(RESPONSE)], raw=True),
    3: Case([answer(MESSAGE | SEARCHED)], raw=True),
    4: thinks(thought=7),
}


@asynccontextmanager
async def playing(folder: Path) -> AsyncIterator[tuple[RunningGateway, Cutting]]:
    async with cutting() as upstream:
        upstream.cases = CASES
        config = sandbox_config(upstream.url, PRICES, SANDBOXED | {"qwen": "/v1"})
        async with serving(RunningGateway(folder, config)) as gateway:
            yield gateway, upstream


def client_of(gateway: RunningGateway, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {token}"}, timeout=60)


def tenant(gateway: RunningGateway, slug: str, usd: Decimal | None = None, *, hard: bool = True) -> str:
    """A token of a new tenant whose own keys may cost so much a day."""
    token = gateway.tenant(slug, "enterprise", KEYS | {"DASHSCOPE_API_KEY": "Key.of-dashscope-0123"})
    if usd is not None:

        async def work(keystore: Keystore) -> None:
            await keystore.budgets.set(await keystore.tenants.get(slug), "day", "byok", usd, hard=hard)

        gateway.operate(work)
    return token


def ask(number: int, **more: object) -> dict[str, Any]:
    return {"model": QWEN, "max_tokens": 1, "messages": [{"role": "user", "content": f"case-{number}"}]} | more


async def test_a_hard_budget_is_not_overrun_by_thoughts_that_max_tokens_does_not_bound(tmp_path: Path) -> None:
    amount = 4 * AT_MOST  # and less than five of the answers that think so long more
    async with playing(tmp_path) as (gateway, upstream):
        token = await asyncio.to_thread(tenant, gateway, "acme", Decimal(amount).scaleb(-9))
        async with client_of(gateway, token) as client:

            async def one(number: int) -> httpx.Response:
                return await client.post(CHAT, json=ask(1), headers={"x-request-id": f"thinks-{number}"})

            answers = await asyncio.gather(*map(one, range(40)))
            codes = Counter(each.status_code for each in answers)
            assert set(codes) == {200, 429}, answers[0].text
            assert upstream.asked[1] == codes[200]
            rows = await rows_soon(gateway, "thinks", 40)
            spent = sum(row["cost_nano"] for row in rows)
            assert spent == codes[200] * COST <= amount
            assert codes[200] >= 4, "each of the first four has room"

            refused = next(each for each in answers if each.status_code == 429).json()["error"]
            assert refused["code"] == "insufficient_quota"

            quick = await client.post(CHAT, json=ask(4, thinking_budget=1_000))  # what is left is enough for these
            assert quick.status_code == 200, quick.text
            none = await client.post(CHAT, json=ask(4, enable_thinking=False))
            assert none.status_code == 200, none.text


async def test_a_budget_that_is_smaller_than_the_thoughts_asks_nobody(tmp_path: Path) -> None:
    async with playing(tmp_path) as (gateway, upstream):
        token = await asyncio.to_thread(tenant, gateway, "acme", Decimal("0.05"))
        async with client_of(gateway, token) as client:
            for more in ({}, {"enable_thinking": True}, {"stream": True}):
                refused = await client.post(CHAT, json=ask(1, **more))
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
            assert not upstream.asked[1]


ASKED: dict[int, tuple[str, dict[str, Any]]] = {
    2: ("/v1/responses", {"model": "openai/gpt-5", "input": "case-2 hi", "tools": [{"type": "web_search"}]}),
    3: (
        "/v1/messages",
        {
            "model": "anthropic/claude-haiku-4-5",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "case-3 hi"}],
            "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        },
    ),
    4: (CHAT, ask(4, enable_search=True, usage={"include": True})),
}


@pytest.mark.parametrize("budget", [None, Decimal(1)], ids=["no budget", "soft budget"])
async def test_fee_of_a_tool_that_the_provider_runs_makes_the_row_unpriced(
    tmp_path: Path, budget: Decimal | None
) -> None:
    """With the tenant's own key: nobody is refused, and nothing is told as if it were all."""
    async with playing(tmp_path) as (gateway, _):
        token = await asyncio.to_thread(tenant, gateway, "acme", budget, hard=False)
        async with client_of(gateway, token) as client:
            for number, (path, body) in ASKED.items():
                got = await client.post(path, json=body, headers={"x-request-id": f"fees-{number}"})
                assert got.status_code == 200, got.text
                assert "x-wardgate-cost-usd" not in got.headers
            assert got.json()["usage"]["cost"] is None and got.json()["usage"]["cost_details"]["lines"] == []

            rows = await rows_soon(gateway, "fees", 3)
            assert [row["cost_nano"] for row in rows] == [None] * 3
            assert all(row["input_tokens"] and row["output_tokens"] for row in rows)
            assert [json.loads(row["detail"])["lines"] for row in rows] == [[]] * 3
            receipts = [(await client.get(f"/v1/requests/{row['request_id']}")).json()["receipt"] for row in rows]
            assert [each["cost_usd"] for each in receipts] == [None] * 3
            told = (await client.get("/v1/usage")).json()["total"]
            assert (told["requests"], told["unpriced_requests"], told["cost_usd"]) == (3, 3, None)
            budgets = (await client.get("/v1/budgets")).json()["data"]
            spent = [one["spent_usd"] for one in budgets if one["spend"] == "byok"]
            assert spent == ([] if budget is None else ["0"])

            for more in ({}, {"x_unknown": True}):  # a name that means nothing hides no cost
                plain = await client.post(CHAT, json=ask(4, **more))
                assert Decimal(plain.headers["x-wardgate-cost-usd"]) > 0
