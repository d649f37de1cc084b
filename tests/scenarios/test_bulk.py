"""Bulk beside interactive, over HTTP: what makes a request bulk, that it yields and waits, and how each wait ends."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from gateway.bulk import AGED_S
from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from keystore.limits import Limited
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.scenarios.test_limits_held import plan
from tests.served import served

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
KEY = {"MINIMAX_API_KEY": "sk-sandbox-a"}
BULK = {"x-wardgate-priority": "bulk"}
INTERACTIVE = {"x-wardgate-priority": "interactive"}
PLACES = 2
PLANS = plan("solo", concurrency=2) + plan("team")


def limits(**values: object) -> str:
    return "[limits]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def body(order: str = "tokens=2", **more: object) -> dict[str, Any]:
    message = {"role": "user", "content": f"[sandbox: {order}] Hi"}
    return {"model": "minimax/MiniMax-M2", "messages": [message], "max_tokens": 20} | more


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer) -> Iterator[RunningGateway]:
    config = sandbox_config(running_sandbox.url, limits(bulk_places=PLACES, bulk_wait_s=30) + PLANS)
    with RunningGateway(tmp_path_factory.mktemp("patient"), config) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer) -> Iterator[RunningGateway]:
    """Bulk waits a fifth of a second, and of four requests at a time the last is left to others than bulk."""
    config = sandbox_config(running_sandbox.url, limits(bulk_places=PLACES, bulk_wait_s=0.2, max_in_flight=4) + PLANS)
    with RunningGateway(tmp_path_factory.mktemp("hasty"), config) as gateway:
        yield gateway


def posted(
    gateway: RunningGateway, token: str, headers: dict[str, str], path: str = CHAT, **more: Any
) -> httpx.Response:
    head = {"authorization": f"Bearer {token}"} | headers
    return httpx.post(gateway.url + path, json=body(**more), headers=head, timeout=60)


@asynccontextmanager
async def calling(gateway: RunningGateway, token: str) -> AsyncIterator[httpx.AsyncClient]:
    head = {"authorization": f"Bearer {token}"}
    limit = httpx.Limits(max_connections=1_000)
    async with httpx.AsyncClient(base_url=gateway.url, headers=head, timeout=60, limits=limit) as client:
        yield client


@asynccontextmanager
async def busy(
    client: httpx.AsyncClient, sandbox: SandboxServer, count: int
) -> AsyncIterator[list["asyncio.Task[httpx.Response]"]]:
    """So many requests that are not bulk run, until the block ends."""
    sandbox.clear()
    held = [asyncio.ensure_future(client.post(CHAT, json=body("silence"))) for _ in range(count)]
    try:
        await asyncio.to_thread(eventually, lambda: len(sandbox.requests()) == count)
        yield held
    finally:
        for one in held:
            one.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def waiting(gateway: RunningGateway, count: int) -> None:
    await asyncio.to_thread(eventually, lambda: gateway.metric("wardgate_bulk_waiting") == count)


async def in_flight(gateway: RunningGateway, count: int) -> None:
    await asyncio.to_thread(eventually, lambda: gateway.metric("wardgate_inflight_requests") == count)


# --- what makes a request bulk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "more", "bulk"),
    [
        (CHAT, {}, {}, False),
        (CHAT, INTERACTIVE, {}, False),
        (CHAT, BULK, {}, True),
        (CHAT, {}, {"service_tier": "flex"}, True),
        (CHAT, {}, {"service_tier": "auto"}, False),
        (CHAT, INTERACTIVE, {"service_tier": "flex"}, False),
        (MESSAGES, {}, {}, False),
        (MESSAGES, BULK, {}, True),
        (RESPONSES, {}, {"input": "Hi"}, False),
        (RESPONSES, {}, {"input": "Hi", "service_tier": "flex"}, True),
    ],
)
def test_header_or_tier_makes_a_request_bulk_and_the_answer_says_so(
    patient: RunningGateway, path: str, headers: dict[str, str], more: dict[str, str], bulk: bool
) -> None:
    sent = {"model": "minimax/MiniMax-M2"} | more if path == RESPONSES else body(**more)
    head = {"authorization": f"Bearer {marking(patient)}"} | headers
    answer = httpx.post(patient.url + path, json=sent, headers=head, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("x-wardgate-priority") == ("bulk" if bulk else None)
    assert ("x-wardgate-waited-ms" in answer.headers) is bulk


def marking(gateway: RunningGateway) -> str:
    """A token of the tenant `marks`, which is there from the first time on."""

    async def work(keystore: Keystore) -> str:
        if "marks" not in [tenant.slug for tenant in await keystore.tenants.list()]:
            tenant = await keystore.tenants.add("marks", "team")
            await keystore.credentials.set(tenant, "MINIMAX_API_KEY", KEY["MINIMAX_API_KEY"])
        return (await keystore.tokens.create(await keystore.tenants.get("marks"))).token

    return gateway.operate(work)


def bulk_token(gateway: RunningGateway, slug: str) -> str:
    async def work(keystore: Keystore) -> str:
        return (await keystore.tokens.create(await keystore.tenants.get(slug), scopes=["inference:bulk"])).token

    return gateway.operate(work)


def test_token_makes_all_its_requests_bulk_and_no_header_lifts_it(patient: RunningGateway) -> None:
    marking(patient)
    token = bulk_token(patient, "marks")
    for headers in ({}, INTERACTIVE, BULK):
        answer = posted(patient, token, headers)
        assert (answer.status_code, answer.headers["x-wardgate-priority"]) == (200, "bulk"), answer.text


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, "/v1/messages/count_tokens"])
def test_another_priority_is_refused_and_told_which_there_are(patient: RunningGateway, path: str) -> None:
    answer = posted(patient, marking(patient), {"x-wardgate-priority": "urgent"}, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", "x-wardgate-priority")
    assert "`bulk`" in error["message"] and "`interactive`" in error["message"]


def test_sdks_can_mark_bulk(patient: RunningGateway) -> None:
    token = marking(patient)
    with patient.client(token) as client:
        told = client.chat.completions.with_raw_response.create(**body(), extra_headers=BULK)
        assert told.headers["x-wardgate-priority"] == "bulk"
    with anthropic.Anthropic(base_url=patient.url, api_key=token, max_retries=0) as native:
        said = native.messages.with_raw_response.create(**body(), extra_headers=BULK)
        assert said.headers["x-wardgate-priority"] == "bulk"


# --- it waits --------------------------------------------------------------------------------------------------------


async def test_bulk_waits_for_others_and_goes_when_there_is_room(
    patient: RunningGateway, sandbox: SandboxServer
) -> None:
    """It is not asked while others have the places; that it waited stands in answer, log and decision."""
    mine, others = [await asyncio.to_thread(patient.tenant, name, "team", KEY) for name in ("waits", "busy")]
    async with calling(patient, mine) as client, calling(patient, others) as other:
        async with busy(other, sandbox, PLACES) as held:
            bulk = asyncio.ensure_future(client.post(CHAT, json=body(), headers=BULK))
            await waiting(patient, 1)
            assert (await client.post(CHAT, json=body())).status_code == 200, "what is not bulk never waits"
            assert not bulk.done() and len(sandbox.requests()) == PLACES + 1
            held[0].cancel()
            answer = await bulk
        assert answer.status_code == 200 and int(answer.headers["x-wardgate-waited-ms"]) > 0
        await waiting(patient, 0)
        request_id = answer.headers["x-wardgate-request-id"]
        eventually(lambda: bool(line_of(patient, request_id)))
        line = line_of(patient, request_id)[0]
        waited_ms = int(answer.headers["x-wardgate-waited-ms"])
        assert line["waited_s"] == pytest.approx(waited_ms / 1000, abs=0.001)
        assert float(str(line["overhead_s"])) + waited_ms / 1000 <= float(str(line["duration_s"])) + 0.001
        kept: list[httpx.Response] = []

        def told() -> bool:
            kept.append(patient.get(f"/v1/requests/{request_id}", mine))
            return kept[-1].status_code == 200

        await asyncio.to_thread(eventually, told)
        assert kept[-1].json()["waited_ms"] == waited_ms


def line_of(gateway: RunningGateway, request_id: str) -> list[dict[str, object]]:
    return [line for line in gateway.logs.records("request.completed") if line["request_id"] == request_id]


async def test_client_that_leaves_while_it_waits_leaves_the_room_and_its_name(
    patient: RunningGateway, sandbox: SandboxServer
) -> None:
    token = await asyncio.to_thread(patient.tenant, "leaves", "team", KEY)
    named = BULK | {"idempotency-key": "leaves-1"}
    before = patient.metric("wardgate_bulk_wait_seconds_count", end="gone")
    async with calling(patient, token) as client:
        async with busy(client, sandbox, PLACES):
            gone = asyncio.ensure_future(client.post(CHAT, json=body(), headers=named))
            await waiting(patient, 1)
            gone.cancel()
            await waiting(patient, 0)
            again = [asyncio.ensure_future(client.post(CHAT, json=body(), headers=named)) for _ in range(2)]
            await waiting(patient, 1)  # the second waits for the first
        answers = await asyncio.gather(*again)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted(answer.headers.get("x-wardgate-replayed", "false") for answer in answers) == ["false", "true"]
    assert len(sandbox.requests()) == PLACES + 1
    assert patient.metric("wardgate_bulk_wait_seconds_count", end="gone") == before + 1


async def answered_after(
    change: Callable[[Keystore], Awaitable[object]], patient: RunningGateway, sandbox: SandboxServer, token: str
) -> httpx.Response:
    """What a bulk request is told that waited for long after `change` was made: that nobody was asked is looked at."""
    async with calling(patient, token) as client, calling(patient, await asyncio.to_thread(marking, patient)) as other:
        async with busy(other, sandbox, PLACES):
            bulk = asyncio.ensure_future(client.post(CHAT, json=body(), headers=BULK))
            await waiting(patient, 1)
            await asyncio.to_thread(patient.operate, change)
            await asyncio.sleep(AGED_S)
            assert not bulk.done()
        answer = await bulk
    assert len(sandbox.requests()) == PLACES, "nobody was asked"
    return answer


async def test_token_that_is_revoked_while_its_request_waits_is_refused(
    patient: RunningGateway, sandbox: SandboxServer
) -> None:
    token = await asyncio.to_thread(patient.tenant, "revoked", "solo", KEY)

    async def revoke(keystore: Keystore) -> None:
        (one,) = await keystore.tokens.list(await keystore.tenants.get("revoked"))
        await keystore.tokens.revoke(one.id)

    answer = await answered_after(revoke, patient, sandbox, token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_revoked"), answer.text
    assert int(answer.headers["x-wardgate-waited-ms"]) > AGED_S * 1000


async def test_budget_that_is_set_while_its_request_waits_binds_it(
    patient: RunningGateway, sandbox: SandboxServer
) -> None:
    token = await asyncio.to_thread(patient.tenant, "bound-late", "solo", KEY)

    async def bind(keystore: Keystore) -> None:
        await keystore.budgets.set(await keystore.tenants.get("bound-late"), "day", "byok", Decimal(0), hard=True)

    answer = await answered_after(bind, patient, sandbox, token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota"), answer.text


async def test_limit_that_is_set_while_its_request_waits_binds_it(
    patient: RunningGateway, sandbox: SandboxServer
) -> None:
    token = await asyncio.to_thread(patient.tenant, "limited-late", "team", KEY)

    async def bind(keystore: Keystore) -> None:
        await keystore.limits.set(await keystore.tenants.get("limited-late"), {Limited.TOKENS.value: 1})

    answer = await answered_after(bind, patient, sandbox, token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded"), answer.text
    assert answer.headers["x-ratelimit-limit-tokens"] == "1" and answer.json()["error"]["limit"]["whose"] == "tenant"


async def test_flood_of_bulk_leaves_places_and_concurrency_to_everybody_else(
    patient: RunningGateway, sandbox: SandboxServer
) -> None:
    """The tenant that runs backfill workers: eighty requests that are never answered, of which no more are asked than
    there are places. Others, and its own that are not bulk, are answered beside them."""
    flood, calm = [await asyncio.to_thread(patient.tenant, name, "team", KEY) for name in ("flood", "calm")]
    async with calling(patient, flood) as mine, calling(patient, calm) as other:
        sandbox.clear()
        bulk = [asyncio.ensure_future(mine.post(CHAT, json=body("silence"), headers=BULK)) for _ in range(80)]
        await waiting(patient, 80 - PLACES)
        for client in (mine, other) * 3:
            answer = await client.post(CHAT, json=body())
            assert (answer.status_code, answer.headers.get("x-wardgate-waited-ms")) == (200, None)
        await asyncio.to_thread(eventually, lambda: len(sandbox.requests()) == PLACES + 6)
        assert patient.metric("wardgate_bulk_waiting") == 80 - PLACES
        for one in bulk:
            one.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)
    await waiting(patient, 0)


async def test_bulk_leaves_some_of_the_tenants_own_concurrency(hasty: RunningGateway, sandbox: SandboxServer) -> None:
    """Of two at a time bulk has one, and is told so when it waited in vain; the other is for others."""
    token = await asyncio.to_thread(hasty.tenant, "own", "solo", KEY)
    async with calling(hasty, token) as client:
        sandbox.clear()
        held = asyncio.ensure_future(client.post(CHAT, json=body("silence"), headers=BULK))
        await asyncio.to_thread(eventually, lambda: len(sandbox.requests()) == 1)
        late = await client.post(CHAT, json=body(), headers=BULK)
        error = late.json()["error"]
        assert (late.status_code, error["code"], error["limit"]["amount"]) == (429, "rate_limit_exceeded", 2)
        assert "bulk" in error["message"] and int(late.headers["x-wardgate-waited-ms"]) >= 150
        assert 0 < int(late.headers["retry-after-ms"]) <= 1_000 and late.headers["x-should-retry"] == "true"
        assert (await client.post(CHAT, json=body())).status_code == 200
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)


# --- how waits end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "server_error"), (MESSAGES, "overloaded_error")])
async def test_wait_that_is_over_is_told_on_each_wire(
    hasty: RunningGateway, sandbox: SandboxServer, path: str, kind: str
) -> None:
    token = await asyncio.to_thread(hasty.tenant, f"over-{kind.replace('_', '-')}", "team", KEY)
    async with calling(hasty, token) as client, busy(client, sandbox, PLACES):
        answer = await client.post(path, json=body(), headers=BULK)
        assert len(sandbox.requests()) == PLACES, "it was not asked"
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (503, kind, "bulk_wait_expired"), answer.text
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("5", "true")
    assert 150 <= int(answer.headers["x-wardgate-waited-ms"]) < 5_000


def test_pause_is_heard_of_within_seconds_and_ends(hasty: RunningGateway) -> None:
    token = hasty.tenant("paused", "team", KEY)

    async def pause(keystore: Keystore) -> None:
        await keystore.bulk_pauses.pause(await keystore.tenants.get("paused"))

    async def resume(keystore: Keystore) -> None:
        assert await keystore.bulk_pauses.resume(await keystore.tenants.get("paused"))

    hasty.operate(pause)
    eventually(lambda: posted(hasty, token, BULK).status_code == 503)
    answer = posted(hasty, token, BULK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "bulk_paused"), answer.text
    assert answer.headers["retry-after"] == "60" and answer.headers["x-should-retry"] == "true"
    assert posted(hasty, token, {}).status_code == 200, "what is not bulk goes on"
    hasty.operate(resume)
    eventually(lambda: posted(hasty, token, BULK).status_code == 200)


def test_those_who_wait_are_told_at_once_when_the_gateway_stops(tmp_path: Path, sandbox: SandboxServer) -> None:
    """SIGTERM: bulk that waits does not wait for the drain, and bulk that would have to wait is told as well."""
    with (
        ThreadPoolExecutor(3) as pool,
        served(tmp_path, sandbox, "drain_notice_s = 30\ndrain_s = 30\nbulk_places = 1") as gateway,
    ):
        held = pool.submit(gateway.ask, "silence")
        eventually(lambda: len(sandbox.requests()) == 1)

        def bulk() -> httpx.Response:
            head = {"authorization": f"Bearer {gateway.token}"} | BULK
            return httpx.post(gateway.url + CHAT, json=body(), headers=head, timeout=25)

        waits = pool.submit(bulk)
        eventually(lambda: gateway.metric("wardgate_bulk_waiting") == 1)
        gateway.process.send_signal(signal.SIGTERM)
        for answer in (waits.result(20), bulk()):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
            assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
        assert not held.done() and gateway.process.poll() is None, "the drain has not even begun"
        gateway.process.send_signal(signal.SIGTERM)
        held.result()
        assert gateway.process.wait(10) == 0


# --- overload --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "server_error"), (MESSAGES, "overloaded_error")])
async def test_bulk_is_shed_first_then_all_and_nobody_reads_their_bodies(
    hasty: RunningGateway, sandbox: SandboxServer, path: str, kind: str
) -> None:
    token = await asyncio.to_thread(hasty.tenant, f"shed-{kind.replace('_', '-')}", "team", KEY)
    async with calling(hasty, token) as client:
        async with busy(client, sandbox, 3):
            first = await unread(hasty, token, path, BULK)
            assert b"503" in first and b"overloaded" in first, first
            assert (await client.post(path, json=body())).status_code == 200, "what is not bulk is let in"
        await asyncio.to_thread(eventually, lambda: hasty.metric("wardgate_inflight_requests") == 0)
        async with busy(client, sandbox, 4):
            answer = await client.post(path, json=body())
            error = answer.json()["error"]
            assert (answer.status_code, error["type"], error["code"]) == (503, kind, "overloaded"), answer.text
            assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
            assert b" 503 " in await unread(hasty, token, path, {})
            many = await asyncio.gather(
                *[client.post(path, json=body(), headers=BULK if n % 2 else {}) for n in range(40)]
            )
            assert {(one.status_code, one.headers.get("retry-after")) for one in many} == {(503, "1")}, (
                "ten times as many"
            )
            assert len(sandbox.requests()) == 4
        await asyncio.to_thread(eventually, lambda: hasty.metric("wardgate_inflight_requests") == 0)
        assert (await client.post(path, json=body())).status_code == 200, "and it is over when they are"
    assert hasty.metric("wardgate_shed_requests_total", priority="bulk") > 0


async def test_many_that_repeat_one_request_shut_nobody_out(hasty: RunningGateway, sandbox: SandboxServer) -> None:
    """Four may be in flight; eight of one tenant wait for the answer to its one request, which is one of them."""
    mine, others = [await asyncio.to_thread(hasty.tenant, name, "team", KEY) for name in ("repeats", "beside")]
    named = {"idempotency-key": "one"}
    async with calling(hasty, mine) as client, calling(hasty, others) as other:
        sandbox.clear()
        sandbox.script("delay=3")
        first = asyncio.ensure_future(client.post(CHAT, json=body(), headers=named))
        await asyncio.to_thread(eventually, lambda: len(sandbox.requests()) == 1)
        again = []
        for running in range(2, 10):
            again.append(asyncio.ensure_future(client.post(CHAT, json=body(), headers=named)))
            await in_flight(hasty, running)
        beside = await other.post(CHAT, json=body())
        assert (beside.status_code, first.done()) == (200, False), beside.text
        answers = await asyncio.gather(first, *again)
    assert {answer.status_code for answer in answers} == {200} and len(sandbox.requests()) == 2


async def test_bodies_that_do_not_come_shut_nobody_out(hasty: RunningGateway) -> None:
    """Four may be in flight; one tenant begins eight requests and sends none of them to its end."""
    mine, others = [await asyncio.to_thread(hasty.tenant, name, "team", KEY) for name in ("slow", "quick")]
    host, port = hasty.url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {mine}\r\ncontent-length: 9\r\n\r\n1"
    writers = []
    for running in range(1, 9):
        writers.append((await asyncio.open_connection(host, int(port)))[1])
        writers[-1].write(head.encode())
        await in_flight(hasty, running)
    answer = await asyncio.to_thread(posted, hasty, others, {})
    assert answer.status_code == 200, answer.text
    for writer in writers:
        writer.close()
    await asyncio.to_thread(eventually, lambda: hasty.metric("wardgate_inflight_requests") == 0)


async def unread(gateway: RunningGateway, token: str, path: str, headers: dict[str, str]) -> bytes:
    """The answer to a request whose body never comes."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = {"host": f"{host}:{port}", "authorization": f"Bearer {token}", "content-length": "1000"} | headers
    writer.write(f"POST {path} HTTP/1.1\r\n".encode() + b"".join(f"{a}: {b}\r\n".encode() for a, b in lines.items()))
    writer.write(b"\r\n")
    found = await asyncio.wait_for(reader.readuntil(b'"overloaded"'), 10)
    writer.close()
    return found
