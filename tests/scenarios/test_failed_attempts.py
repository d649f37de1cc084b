"""RELIABILITY T28: what an attempt costs that gave no answer is taken, told and booked; what was refused is free."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from keystore.keystore import Keystore
from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.asks import CHAT, OTHER, PRICED, cost_nano
from tests.scenarios.cutting import KEYS, MODELS, PLAIN, Case, answer, caller, cutting, keep_well, openai_stream
from tests.scenarios.truth import attempts_charged, rows_soon, select, served_tokens, serving

MODEL = MODELS["openai"]
SILENT = Case([b"", b"x"], pause_s=30, raw=True)
NOT_DONE = [  # each is refused before any work
    answer({"error": {"message": "busy"}}, "500 Internal Server Error"),
    answer({"error": {"message": "slow down"}}, "429 Too Many Requests"),
]
TOO_SMALL = answer({"choices": "none", "text": "word " * 100})
FILTERED = {"message": "no", "code": "content_filter", "type": "content_filter"}
CUT = answer(PLAIN["openai"])[:-20]  # of a plain answer, before its end


def told(read: int, wrote: int, *, stream: bool = False) -> Case:
    """A good answer that counts so much."""
    usage = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
    if stream:
        return Case(openai_stream(["good"], usage))
    good: dict[str, Any] = PLAIN["openai"]  # type: ignore[assignment]
    return Case([answer(good | {"usage": usage})], raw=True)


def first(case: Case, then: Case) -> Case:
    return Case(case.pieces, case.end, case.pause_s, case.raw, then)


def body(number: int, **more: object) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"case-{number} " + "word " * 12}]
    return {"model": MODEL, "models": [MODEL, OTHER], "max_tokens": 50, "messages": messages} | more


CASES = {
    1: first(SILENT, told(10, 20)),
    2: first(SILENT, told(10, 20, stream=True)),
    3: first(Case([TOO_SMALL], raw=True), told(11, 21)),
    4: first(Case([CUT], "hang up", raw=True), told(12, 22)),
    5: Case([TOO_SMALL], raw=True),
    **{10 + n: first(Case([each], raw=True), told(13, 23)) for n, each in enumerate(NOT_DONE)},
}
STREAMS = {2}


def bound(gateway: RunningGateway) -> str:
    """A token of a tenant whose own keys may cost a dollar a day."""
    token = gateway.tenant("acme", "enterprise", KEYS)

    async def work(keystore: Keystore) -> None:
        await keystore.budgets.set(await keystore.tenants.get("acme"), "day", "byok", Decimal(1), hard=True)

    gateway.operate(work)
    return token


async def test_failed_attempts_are_in_the_row_the_answer_the_receipt_and_the_budget(tmp_path: Path) -> None:
    limits = "[limits]\nfirst_event_timeout_s = 0.4\nattempt_timeout_s = 0.4\n"
    async with cutting() as upstream:
        upstream.cases = CASES
        async with serving(RunningGateway(tmp_path, sandbox_config(upstream.url, limits + PRICED))) as gateway:
            token = await asyncio.to_thread(bound, gateway)
            head = {"authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=head, timeout=60) as client:

                async def ask(number: int) -> httpx.Response:
                    await keep_well(client, "openai", 8)
                    asked = body(number, stream=number in STREAMS, usage={"include": True})
                    asked |= {"models": [MODEL]} if number == 5 else {}
                    return await client.post(CHAT, json=asked, headers={"x-request-id": f"failed-{number}"})

                answers = {number: await ask(number) for number in CASES}
                rows = {row["client_request_id"]: row for row in await rows_soon(gateway, "failed", len(CASES))}
                for number, got in answers.items():
                    row = rows[f"failed-{number}"]
                    record = await client.get(f"/v1/requests/{row['request_id']}")
                    holds_true(number, got, row, record.json()["receipt"])
            (spent,) = await select(gateway, "SELECT spent_nano, held_nano FROM wardgate_budget_use")
            (every,) = await select(gateway, "SELECT sum(cost_nano) AS nano FROM wardgate_ledger")
            (held,) = await select(gateway, "SELECT sum(amount_nano) AS nano FROM wardgate_budget_holds")
    assert spent["spent_nano"] == every["nano"] > sum(row["cost_nano"] for row in rows.values())
    assert held["nano"] == spent["held_nano"]


async def test_refusal_that_cost_something_costs_the_same_when_it_is_told_again(tmp_path: Path) -> None:
    async with cutting() as upstream:
        upstream.cases = {1: Case([answer({"error": FILTERED})], raw=True)}
        async with serving(RunningGateway(tmp_path, sandbox_config(upstream.url, PRICED))) as gateway:
            token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
            async with caller(gateway.url, token) as client:
                named = {"idempotency-key": "refused-1"}
                answers = [await client.post(CHAT, json=body(1), headers=named) for _ in range(2)]
    assert [each.status_code for each in answers] == [400, 400] and upstream.asked[1] == 1
    assert answers[1].headers["x-wardgate-replayed"] == "true"
    costs = [each.headers["x-wardgate-cost-usd"] for each in answers]
    assert costs[0] == costs[1] and Decimal(costs[0]) > 0


def holds_true(number: int, got: httpx.Response, row: Any, receipt: Any) -> None:
    """The row's total is the sum of what was told to be used and what failed, and everybody is told the same."""
    charged, served = attempts_charged(row), number != 5
    assert got.status_code == (200 if served else 502), got.text
    assert len(charged) == (number < 10), (number, row)
    assert row["state"] == ("estimated" if charged else "settled")
    read, cached, wrote = served_tokens(row)
    answered = cost_nano(f"{row['provider']}/{row['model']}", read, cached, wrote)
    assert row["cost_nano"] == answered + sum(one.cost_nano for one in charged)
    for one in charged:
        assert one.model == MODEL and one.units.read >= 12 and one.cost_nano > 0
        assert one.cost_nano == cost_nano(MODEL, one.units.read, one.units.cached, one.units.wrote)
        wrote = one.units.wrote  # of a plain answer, whoever is silent: as much as the answers before it had
        assert wrote == 0 if number in STREAMS else 0 < wrote <= 50
    lines = [*receipt["lines"], *(line for one in receipt["attempts"] for line in one["lines"])]
    assert sum(line["cost_nano"] for line in lines) == receipt["cost_nano"] == row["cost_nano"]
    assert sum(one["cost_nano"] for one in receipt["attempts"]) == row["cost_nano"]
    if number not in STREAMS:
        assert Decimal(got.headers["x-wardgate-cost-usd"]) * 10**9 == row["cost_nano"]
    if served:
        usage = last_usage(got) if number in STREAMS else got.json()["usage"]
        assert Decimal(str(usage["cost"])) * 10**9 == row["cost_nano"]
        assert len(usage["cost_details"].get("failed_attempts", [])) == len(charged)


def last_usage(got: httpx.Response) -> Any:
    return next(one["usage"] for one in events(got) if one.get("usage"))


def events(got: httpx.Response) -> list[Any]:
    datas = [line.removeprefix("data: ") for line in got.text.splitlines() if line.startswith("data: {")]
    return [json.loads(data) for data in datas]
