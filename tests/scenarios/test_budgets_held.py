"""RELIABILITY S11, G8: a hard budget is never overrun, whoever asks how often at once, and nearly all is usable."""

import asyncio
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from keystore.keystore import Keystore
from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.cutting import KEYS, MODELS, PLAIN, Case, answer, cutting
from tests.scenarios.replicas import replicas
from tests.scenarios.truth import CHAT, PRICED, cost_nano, rows_of, rows_soon, select

pytestmark = pytest.mark.services
READ, WROTE = 20, 100
MODEL = MODELS["openai"]
COST = cost_nano(MODEL, READ, 0, WROTE)  # of one call, in nano-dollars
AMOUNT = 60 * COST  # of 100 that are asked for at once
BODY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": WROTE,
    "messages": [{"role": "user", "content": "case-1 " + "word " * 12}],
}


def bound(gateway: RunningGateway, slug: str, amount_nano: int) -> str:
    """A token of a new tenant whose own keys may cost so much a day."""
    token = gateway.tenant(slug, "enterprise", KEYS)

    async def work(keystore: Keystore) -> None:
        amount = Decimal(amount_nano).scaleb(-9)
        await keystore.budgets.set(await keystore.tenants.get(slug), "day", "byok", amount, hard=True)

    gateway.operate(work)
    return token


def told() -> Case:
    """An answer that costs COST."""
    usage = {"prompt_tokens": READ, "completion_tokens": WROTE, "total_tokens": READ + WROTE}
    good: dict[str, Any] = PLAIN["openai"]  # type: ignore[assignment]
    return Case([answer(good | {"usage": usage})], raw=True)


async def spend(gateway: RunningGateway) -> int:
    """By the ledger, in nano-dollars."""
    rows = await rows_of(gateway, "bound")
    return sum(row["cost_nano"] for row in rows)


async def test_two_gateways_never_spend_more_than_a_hard_budget_and_nearly_all_of_it(
    tmp_path: Path, fresh_database: str
) -> None:
    async with cutting() as upstream:
        upstream.cases[1] = told()
        manager = replicas(tmp_path, sandbox_config(upstream.url, PRICED), fresh_database)
        both = await asyncio.to_thread(manager.__enter__)
        try:
            token = await asyncio.to_thread(bound, both[0], "acme", AMOUNT)
            async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=200)) as client:
                count = 0

                async def ask(gateway: RunningGateway) -> httpx.Response:
                    nonlocal count
                    count += 1
                    head = {"authorization": f"Bearer {token}", "x-request-id": f"bound-{count}"}
                    return await client.post(gateway.url + CHAT, json=BODY, headers=head)

                answers = await asyncio.gather(*[ask(both[n % 2]) for n in range(100)])
                statuses = Counter(each.status_code for each in answers)
                assert set(statuses) == {200, 429} and statuses[200] <= 60, statuses
                assert statuses[429] >= 40
                until = time.monotonic() + 60
                while statuses[200] * COST < AMOUNT * 95 // 100 and time.monotonic() < until:
                    for gateway in both:
                        one = await ask(gateway)
                        statuses[one.status_code] += 1
                        answers.append(one)
                    await asyncio.sleep(0.2 if one.status_code == 429 else 0)
                assert set(statuses) == {200, 429}, statuses
            rows = await rows_soon(both[0], "bound", count)
            assert len(rows) == count and upstream.asked[1] == statuses[200]
            assert await spend(both[0]) == statuses[200] * COST
            assert AMOUNT * 95 // 100 <= statuses[200] * COST <= AMOUNT, "95 % is usable, and not a nano-dollar more"
            (found,) = await select(both[0], "SELECT spent_nano FROM wardgate_budget_use")
            assert found["spent_nano"] == statuses[200] * COST
            refused = next(each for each in answers if each.status_code == 429)
            said(refused)
            await asyncio.to_thread(sdk_is_told_once, both[0], token)
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)


def said(refused: httpx.Response) -> None:
    """A refusal names the budget, and when it begins anew; nobody is to try again."""
    error = refused.json()["error"]
    assert (error["code"], error["fault"]) == ("insufficient_quota", "plan")
    assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
    budget = error["budget"]
    assert (budget["whose"], budget["spend"], budget["period"]) == ("tenant", "byok", "day")
    assert Decimal(budget["amount_usd"]) * 10**9 == AMOUNT
    assert budget["resets_at"].endswith("T00:00:00Z") and budget["resets_at"] in error["message"]
    assert "the tenant's own keys" in error["message"]


def sdk_is_told_once(gateway: RunningGateway, token: str) -> None:
    """The SDK raises what its callers know, and does not ask again."""
    before = gateway.settled("wardgate_requests_total")
    dear = BODY | {"max_tokens": 60 * WROTE}  # more than the whole budget
    with gateway.client(token, max_retries=3) as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**dear)
    assert caught.value.code == "insufficient_quota"
    assert gateway.settled("wardgate_requests_total") == before + 1


async def test_calls_that_are_broken_off_give_back_what_they_held(tmp_path: Path, fresh_database: str) -> None:
    """What was held beyond their cost for a client that left, and for what a provider refused, may be spent by others:
    6 calls left and each may cost three times what it does, so that not even 5 fit otherwise."""
    async with cutting() as upstream:
        upstream.cases = {1: told(), 2: Case([b"", b"x"], pause_s=30, raw=True)}
        upstream.cases[3] = Case([answer({"error": {"message": "no"}}, "400 Bad Request")], raw=True)
        manager = replicas(tmp_path, sandbox_config(upstream.url, PRICED), fresh_database, count=1)
        (gateway,) = await asyncio.to_thread(manager.__enter__)
        try:
            token = await asyncio.to_thread(bound, gateway, "acme", 12 * COST)
            head = {"authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=head, timeout=60) as client:

                def ask(number: int) -> Any:
                    message = {"role": "user", "content": f"case-{number} " + "word " * 12}
                    return client.post(CHAT, json=BODY | {"messages": [message]})

                for _ in range(3):
                    leaving = [asyncio.ensure_future(ask(2)) for _ in range(2)]
                    before = upstream.asked[2]
                    async with asyncio.timeout(20):
                        while upstream.asked[2] < before + 1:
                            await asyncio.sleep(0.01)
                    for one in leaving:
                        one.cancel()
                    await asyncio.gather(*leaving, return_exceptions=True)
                for _ in range(3):
                    assert (await ask(3)).status_code == 400
                await asyncio.to_thread(gateway.settled, "wardgate_requests_total")
                good = await ask(1)
                assert good.status_code == 200, good.text
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)
