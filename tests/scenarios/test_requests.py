"""`GET /v1/requests/{id}`: the decision that was made, from any replica, for its tenant and the operator alone."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.sandbox.server import SandboxServer
from keystore.engine import parse_url
from keystore.keystore import Keystore
from tests import services
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.served import served

QUESTION = "Tell me the secret recipe of CANARY-PROMPT."
ASK: dict[str, Any] = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": QUESTION}]}
KEYS = {"MINIMAX_2_7_API_KEY": "sk-sandbox-minimax", "OPENAI_API_KEY": "sk-sandbox-openai"}
CHAT = "/v1/chat/completions"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def running(request: pytest.FixtureRequest, tmp_path: Path, sandbox: SandboxServer) -> Iterator[RunningGateway]:
    """A gateway on each database."""
    with ExitStack() as stack:
        url = ""
        if request.param == "postgres":
            url = stack.enter_context(services.database(request.getfixturevalue("pg_dsn")))
        yield stack.enter_context(RunningGateway(tmp_path, sandbox_config(sandbox.url), url))


def id_of(answer: httpx.Response) -> str:
    return answer.headers["x-wardgate-request-id"]


def kept(gateway: RunningGateway, token: str, request_id: str, path: str = "/v1/requests/") -> dict[str, Any]:
    """The record, as soon as it is there with its receipt."""
    eventually(lambda: gateway.get(path + request_id, token).json().get("receipt") is not None)
    found: dict[str, Any] = gateway.get(path + request_id, token).json()
    return found


def test_request_for_more_answers_than_there_are_numbers_is_kept(running: RunningGateway) -> None:
    token = running.tenant("acme", "team", KEYS)
    answer = running.post(CHAT, token, ASK | {"n": 2**63 - 1, "max_tokens": 2**63 - 1})
    assert answer.status_code == 429, answer.text
    eventually(lambda: running.get("/v1/requests/" + id_of(answer), token).status_code == 200)
    assert not running.logs.records("request.failed")


def admin(gateway: RunningGateway) -> str:
    async def work(keystore: Keystore) -> str:
        return (await keystore.tokens.create(None, kind="admin")).token

    return gateway.operate(work)


def test_decision_that_was_made_is_told_to_its_tenant_and_the_operator_alone(
    running: RunningGateway,
) -> None:
    token, other = running.tenant("acme", keys=KEYS), running.tenant("beta", keys=KEYS)
    answer = running.post(CHAT, token, ASK | {"model": "auto"})
    assert answer.status_code == 200
    record = kept(running, token, id_of(answer))
    assert (record["tenant"], record["outcome"], record["status"]) == ("acme", "ok", 200)
    assert record["served"]["provider"] == answer.headers["x-wardgate-provider"]
    assert record["served"]["model"] == answer.headers["x-wardgate-model"]
    assert record["served"]["key"] == answer.headers["x-wardgate-key"]
    assert record["served"]["cost_usd"] == answer.headers["x-wardgate-cost-usd"]
    assert record["served"]["catalogue"] == answer.headers["x-wardgate-catalogue"]
    assert [one["outcome"] for one in record["attempts"]] == ["ok"]
    decision = record["decision"]
    assert decision["ranked"][0]["provider"] == record["served"]["provider"]
    shown = len(decision["ranked"]) + len(decision["rejected"])
    assert shown + sum(decision["cut"].values()) == decision["considered"] > 500
    for path in ("/requests/", "/v1/requests/"):
        assert running.get(path + id_of(answer) + "/", token).json() == record
    for asked in (running.get(f"/v1/requests/{id_of(answer)}", other), running.get(f"/v1/requests/{'x' * 300}", token)):
        error = asked.json()["error"]
        assert (asked.status_code, error["code"], error["fault"]) == (404, "request_unknown", "caller")
        assert "kept for 24 hours" in error["message"] and "acme" not in error["message"]
    operator = admin(running)
    assert running.get(f"/admin/requests/{id_of(answer)}", operator).json() == json.loads(
        json.dumps(record).replace("+00:00", "Z")
    )
    assert running.get(f"/admin/requests/{'req_' + '0' * 32}", operator).json()["error"]["code"] == "request_unknown"
    assert running.get(f"/admin/requests/{id_of(answer)}", token).status_code == 403
    assert running.get(f"/v1/requests/{id_of(answer)}", operator).status_code == 403
    assert running.get(f"/v1/requests/{id_of(answer)}").status_code == 401


def test_failover_stream_and_refusal_are_told(running: RunningGateway, sandbox: SandboxServer) -> None:
    token = running.tenant("acme", keys=KEYS)
    refused = running.post(CHAT, token, ASK | {"model": "groq/openai/gpt-oss-120b"})
    record = kept(running, token, id_of(refused))
    assert (record["outcome"], record["status"], record["code"]) == ("refused", 403, refused.json()["error"]["code"])
    assert record["attempts"] == [] and record["served"]["provider"] is None
    assert "GROQ_API_KEY" in record["decision"]["nearest_miss"] and "GROQ_API_KEY" in record["decision"]["fix"]
    streamed = running.post(CHAT, token, ASK | {"stream": True})
    record = kept(running, token, id_of(streamed))
    assert (record["stream"], record["outcome"], record["served"]["key"]) == (True, "ok", "byok:former")
    assert record["served"]["cost_usd"] is not None  # which no header of a stream can say
    sandbox.script("status=429", repeat=True)
    failed = running.post(CHAT, token, ASK | {"model": "openai/gpt-4o"})
    record = kept(running, token, id_of(failed))
    assert failed.status_code == 429 and record["outcome"] == "failed"
    assert {one["outcome"] for one in record["attempts"]} == {"rate_limited"}
    malformed = running.post(CHAT, token, {"model": 7})
    assert running.get(f"/v1/requests/{id_of(malformed)}", token).status_code == 404


def test_receipt_has_a_line_for_each_class_and_every_attempt(running: RunningGateway, sandbox: SandboxServer) -> None:
    token, other = running.tenant("acme", keys=KEYS), running.tenant("beta", keys=KEYS)
    answers = [running.post(CHAT, token, ASK) for _ in range(3)]
    sandbox.script("status=429", match={"key": "sk-sandbox-openai"}, repeat=True)
    answers.append(running.post(CHAT, token, ASK | {"model": "openai/gpt-4o", "models": ["minimax/MiniMax-M2"]}))
    records = [kept(running, token, id_of(answer)) for answer in answers]
    for answer, record in zip(answers, records, strict=True):
        receipt = record["receipt"]
        assert (receipt["request_id"], receipt["state"]) == (id_of(answer), "settled")
        assert receipt["cost_usd"] == answer.headers["x-wardgate-cost-usd"]
        assert sum(line["cost_nano"] for line in receipt["lines"]) == receipt["cost_nano"] > 0
        assert {"input", "output"} <= {line["class"] for line in receipt["lines"]}
        named = [(one["provider"], one["model"], one["outcome"], one["status"]) for one in receipt["attempts"]]
        assert named == [(o["provider"], o["model"], o["outcome"], o["status"]) for o in record["attempts"]]
        assert (receipt["key_source"], receipt["setting_key"]) == ("byok", "MINIMAX_2_7_API_KEY")
        assert running.get(f"/v1/requests/{id_of(answer)}", other).status_code == 404
    assert [one["status"] for one in records[-1]["receipt"]["attempts"]] == [429, 200]
    used = running.get("/v1/usage", token).json()["total"]["cost_usd"]
    assert Decimal(used).scaleb(9) == sum(record["receipt"]["cost_nano"] for record in records)
    assert running.cli("ledger", "check").returncode == 0
    alter(running, "DELETE FROM wardgate_ledger")
    record = running.get(f"/v1/requests/{id_of(answers[0])}", token).json()
    assert record == records[0] | {"receipt": None}
    assert running.cli("ledger", "check").returncode == 3


def test_record_holds_no_prompt_and_no_key(running: RunningGateway) -> None:
    token = running.tenant("acme", keys=KEYS)
    body = ASK | {"user": "CANARY-USER", "metadata": {"CANARY": "META"}, "stop": ["CANARY-STOP"]}
    ids = [id_of(running.post(CHAT, token, body | change)) for change in ({}, {"model": "sk-proj-" + 30 * "x"})]
    told = json.dumps([kept(running, token, each) for each in ids])
    assert "CANARY" not in told and "sk-sandbox" not in told and "sk-proj" not in told and token[-20:] not in told


def test_explain_prints_what_was_decided(gateway: RunningGateway) -> None:
    token = gateway.tenant("acme", keys=KEYS)
    gateway.tenant("beta")
    request_id = id_of(gateway.post(CHAT, token, ASK))
    record = kept(gateway, token, request_id)
    told = gateway.cli("explain", "--request", request_id)
    assert told.returncode == 0, told.stderr
    for words in (
        f"Request {request_id} of acme came ",
        "It ended ok with status 200.",
        "Asked last: minimax/MiniMax-M2 with the key byok:former, for ",
        "1. minimax/MiniMax-M2 for about ",
        "stored as MINIMAX_2_7_API_KEY",
    ):
        assert words in told.stdout, told.stdout
    assert json.loads(gateway.cli("explain", "--request", request_id, "--tenant", "acme", "--json").stdout) == record
    assert record["receipt"]["cost_usd"] == record["served"]["cost_usd"]
    refused = gateway.cli("explain", "--request", request_id, "--tenant", "beta")
    assert (refused.returncode, "kept for 24 hours" in refused.stderr) == (1, True)
    assert gateway.cli("explain", "--request", request_id, "--model", "auto").returncode == 2


def test_stream_that_its_client_left_is_told_as_left(running: RunningGateway, sandbox: SandboxServer) -> None:
    token = running.tenant("acme", keys=KEYS)
    sandbox.script("tokens=200; gap=0.05", repeat=True)
    headers = {"authorization": f"Bearer {token}"}
    with httpx.stream("POST", running.url + CHAT, json=ASK | {"stream": True}, headers=headers) as answer:
        next(answer.iter_bytes())
        request_id = id_of(answer)
    record = kept(running, token, request_id)
    assert (record["outcome"], record["fault"]) == ("client_left", "caller")
    assert len(record["attempts"]) == 1


def test_killed_process_loses_its_last_moment_alone(tmp_path: Path, sandbox: SandboxServer) -> None:
    with served(tmp_path, sandbox, "drain_s = 1") as one:
        first = id_of(one.ask("tokens=1"))
        told = {"authorization": f"Bearer {one.token}"}
        eventually(lambda: httpx.get(f"{one.url}/v1/requests/{first}", headers=told).status_code == 200)
        last = id_of(one.ask("tokens=1"))
        one.process.kill()
        one.process.wait()
        token = one.token
    with RunningGateway(tmp_path, (tmp_path / "wardgate.toml").read_text()) as again:
        assert again.get(f"/v1/requests/{first}", token).json()["id"] == first
        assert again.get(f"/v1/requests/{last}", token).status_code in (200, 404)
        after = id_of(again.post(CHAT, token, ASK))
        assert kept(again, token, after)["id"] == after


def test_nothing_is_kept_where_that_is_configured(tmp_path: Path, sandbox: SandboxServer) -> None:
    config = sandbox_config(sandbox.url, "[limits]\ndecisions_kept_h = 0\n")
    with RunningGateway(tmp_path, config) as gateway:
        token = gateway.tenant("acme", keys=KEYS)
        other = gateway.tenant("beta", keys=KEYS)
        answer = gateway.post(CHAT, token, ASK | {"model": "auto"})
        record = kept(gateway, token, id_of(answer))
        assert record["decision"] is None and record["receipt"]["cost_usd"] == answer.headers["x-wardgate-cost-usd"]
        assert (record["tenant"], record["served"]["key"]) == ("acme", answer.headers["x-wardgate-key"])
        assert [(one["outcome"], one["status"]) for one in record["attempts"]] == [("ok", 200)]
        assert gateway.get(f"/admin/requests/{id_of(answer)}", admin(gateway)).json()["receipt"] == json.loads(
            json.dumps(record["receipt"]).replace("+00:00", "Z")
        )
        missing = "req_" + "0" * 32
        told = [gateway.get(f"/v1/requests/{each}", other) for each in (id_of(answer), missing)]
        assert {one.status_code for one in told} == {404} and "keeps no decisions" in told[0].json()["error"]["message"]
        assert told[0].content.replace(id_of(told[0]).encode(), b"") == told[1].content.replace(
            id_of(told[1]).encode(), b""
        )  # T16: another tenant's is as one that never was


@pytest.mark.services
def test_any_replica_answers_within_a_second_also_for_one_that_stopped(
    tmp_path: Path, sandbox: SandboxServer, fresh_database: str
) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    first, second = (RunningGateway(each, sandbox_config(sandbox.url), fresh_database) for each in folders)
    with ExitStack() as stack:
        stack.enter_context(first)
        shutil.copy(folders[0] / "sealing-keys", folders[1] / "sealing-keys")
        stack.enter_context(second)
        token = first.tenant("acme", keys=KEYS)
        ids = [id_of(first.post(CHAT, token, ASK)) for _ in range(20)]
        eventually(lambda: all(second.get(f"/v1/requests/{each}", token).status_code == 200 for each in ids), 1.5)
        last = id_of(first.post(CHAT, token, ASK))
        first.__exit__(None, None, None)  # at once: what has ended is written before it stops
        assert second.get(f"/v1/requests/{last}", token).json()["status"] == 200
        stack.pop_all()
        second.__exit__(None, None, None)


def test_database_that_is_away_is_said_and_costs_no_request(running: RunningGateway) -> None:
    """While the table is gone requests are served; what ended then is there when it is back."""
    token = running.tenant("acme", keys=KEYS)
    before = id_of(running.post(CHAT, token, ASK))
    kept(running, token, before)

    alter(running, "ALTER TABLE wardgate_decisions RENAME TO away")
    answers = [running.post(CHAT, token, ASK) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    unavailable = running.get(f"/v1/requests/{before}", token)
    assert (unavailable.status_code, unavailable.json()["error"]["code"]) == (503, "keystore_unavailable")
    alter(running, "ALTER TABLE away RENAME TO wardgate_decisions")
    assert {kept(running, token, id_of(answer))["outcome"] for answer in answers} == {"ok"}
    assert running.metric("wardgate_decisions_dropped_total") == 0


def alter(running: RunningGateway, statement: str) -> None:
    """Run a statement past the keystore."""

    async def run() -> None:
        engine = create_async_engine(parse_url(running.database_url))
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(run())
