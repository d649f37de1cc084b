"""`usage: {"include": true}`: an answer tells what it cost, to the nano-dollar that the ledger has."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.cost_telling import told
from gateway.sandbox.server import SandboxServer
from gateway.tally import Tally
from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.asks import CHAT
from tests.scenarios.cutting import KEYS, PLAIN, Case, answer, asking, caller, cutting, openai_stream
from tests.scenarios.truth import serving

ASK: Any = {"usage": {"include": True}}
HELLO: Any = [{"role": "user", "content": "Hello there"}]
MODELS = {
    "OPENAI_API_KEY": "openai/gpt-4o-mini",
    "ANTHROPIC_API_KEY": "anthropic/claude-haiku-4-5",
    "GEMINI_API_KEY": "gemini/gemini-2.5-flash",
}


@pytest.fixture
def client(gateway: RunningGateway) -> openai.OpenAI:
    keys = {name: f"sk-sandbox-{name.lower()}-123456" for name in MODELS}
    return openai.OpenAI(
        base_url=gateway.url + "/v1", api_key=gateway.tenant("acme", "enterprise", keys), max_retries=0
    )


@pytest.mark.parametrize("model", MODELS.values())
def test_plain_answer_tells_its_cost(client: openai.OpenAI, model: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, extra_body=ASK)
    usage: Any = raw.parse().usage
    cost = raw.headers["x-wardgate-cost-usd"]
    assert f'"cost":{cost},' in raw.text  # a number, to the last digit
    assert usage.is_byok is True and usage.cost_details["price_release"] == raw.headers["x-wardgate-catalogue"]
    lines = usage.cost_details["lines"]
    assert {line["class"] for line in lines} == {"input", "output"}
    assert sum(Decimal(str(line["cost"])) for line in lines) == Decimal(cost) > 0
    assert all(Decimal(line["units"]) * Decimal(str(line["price"])) == Decimal(str(line["cost"])) for line in lines)


@pytest.mark.parametrize("model", MODELS.values())
def test_stream_tells_its_cost_in_the_usage_chunk(client: openai.OpenAI, model: str) -> None:
    plain: Any = client.chat.completions.create(model=model, messages=HELLO, extra_body=ASK).usage
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True, extra_body=ASK))
    counted: list[Any] = [chunk.usage for chunk in chunks if chunk.usage]
    assert [usage.cost for usage in counted] == [plain.cost] and counted[0].cost_details == plain.cost_details
    assert all(chunk.choices for chunk in chunks if not chunk.usage)


async def test_estimate_is_told_as_the_header_has_it_and_an_end_without_its_empty_line_is_not_lost(
    tmp_path: Path,
) -> None:
    good: Any = PLAIN["openai"]
    uncounted = {name: value for name, value in good.items() if name != "usage"}
    *pieces, usage, _ = openai_stream(["good"])
    async with cutting() as upstream, serving(RunningGateway(tmp_path, sandbox_config(upstream.url))) as gateway:
        upstream.cases = {1: Case([answer(uncounted)], raw=True), 2: Case([*pieces, usage.rstrip(b"\n")])}
        token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
        async with caller(gateway.url, token) as client:
            plain = await client.post(CHAT, json=asking("openai", 1) | ASK)
            stream = await client.post(CHAT, json=asking("openai", 2, stream=True) | ASK)
    told = plain.json()["usage"]
    assert plain.headers["x-wardgate-estimated"] == "usage" and told["cost_details"]["lines"]
    assert Decimal(str(told["cost"])) == Decimal(plain.headers["x-wardgate-cost-usd"]) > 0
    assert '"cost":' in stream.text, stream.text


def test_nobody_else_is_told(client: openai.OpenAI, gateway: RunningGateway, sandbox: SandboxServer) -> None:
    model = "openai/gpt-4o-mini"
    wishes: list[Any] = [{}, {"usage": {"include": False}}, {"usage": {}}]
    for extra in wishes:
        answer: Any = client.chat.completions.create(model=model, messages=HELLO, extra_body=extra)
        assert not hasattr(answer.usage, "cost")
    client.chat.completions.create(model=model, messages=HELLO, extra_body=ASK)
    arrived = sandbox.app.journal.requests()
    assert len(arrived) == 4 and all(b'"usage"' not in one.raw for one in arrived)


@pytest.mark.parametrize("wish", [True, {"include": "yes"}, {"included": True}, []])
def test_what_it_cannot_be_is_said(client: openai.OpenAI, wish: object) -> None:
    with pytest.raises(openai.BadRequestError, match="include") as refused:
        client.chat.completions.create(model="openai/gpt-4o-mini", messages=HELLO, extra_body={"usage": wish})
    assert refused.value.param == "usage"


def test_cost_that_nobody_knows_is_null() -> None:
    tally = Tally("req_1", "POST", 0.0, catalogue="c1", key_source="byok")
    answer = json.loads(told(b'{"id":"a","usage":{"prompt_tokens":1}}', None, tally))
    details = {"price_release": "c1", "lines": []}
    assert answer["usage"] == {"prompt_tokens": 1, "cost": None, "is_byok": True, "cost_details": details}
