"""A request that names itself is asked once: in one process, in several, through failures, departures and crashes."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.asgi import Scope
from gateway.errors import ApiError, Problem
from gateway.failures import problem_of
from gateway.idempotency_key import key_of
from gateway.repeats import WRITERS, Pace, Repeats, Replay, Ticket, definite
from keystore.answer_seal import MOST_BYTES
from keystore.answers import LEASE, AnswerStore, Asked, Claim, Found
from keystore.clock import utc_now
from keystore.errors import DatabaseUnavailable, EnvelopeDamaged
from keystore.providers import Registry
from keystore.tenants import Tenant
from router.failure import Failure, FailureKind
from router.reasons import Fault
from tests.forks import Program, program
from tests.gateway.repeating import BODY, ENDPOINT, QUICK, Replica, Upstream, opened, replica_of
from tests.keystore.conftest import FakeClock, World


@pytest.fixture
async def replicas(world: World) -> AsyncIterator[list[Replica]]:
    """Two on one database."""
    made = [replica_of(await world.open()) for _ in range(2)]
    yield made
    for one in made:
        await one.close()


@pytest.fixture
async def tenant(replicas: list[Replica]) -> Tenant:
    return await replicas[0].keystore.tenants.add("acme", "free")


@pytest.fixture
def upstream() -> Upstream:
    """Answers when its gate is opened."""
    return Upstream()


def refusal(caught: "pytest.ExceptionInfo[ApiError]") -> tuple[int, str]:
    return caught.value.problem.status, caught.value.problem.code


async def refused(work: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        await work
    return refusal(caught)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def rows(world: World) -> int:
    return int((await world.sql("SELECT count(*) FROM wardgate_answers"))[0][0])


@asynccontextmanager
async def without_table(world: World) -> AsyncIterator[None]:
    await world.sql("ALTER TABLE wardgate_answers RENAME TO away")
    yield
    await world.sql("ALTER TABLE away RENAME TO wardgate_answers")


class SlowStore:
    """A database that is slow for one tenant: its claims wait for the gate."""

    def __init__(self, store: AnswerStore, slow: Tenant) -> None:
        self._store = store
        self._slow = slow
        self.gate = asyncio.Event()
        self.claiming = self.claimed = 0

    async def claim(self, asked: Asked, request_id: str, *, instead_of: str = "") -> Claim | Found:
        if asked.tenant.id == self._slow.id:
            self.claiming, self.claimed = self.claiming + 1, self.claimed + 1
            await self.gate.wait()
            self.claiming -= 1
        return await self._store.claim(asked, request_id, instead_of=instead_of)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_flood_of_keys_of_one_tenant_leaves_others_their_turn(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    keystore = replicas[0].keystore
    other, store = await keystore.tenants.add("beta", "free"), SlowStore(keystore.answers, tenant)
    repeats = Repeats(cast(AnswerStore, store), lambda _, error: None, pace=QUICK)
    replica = Replica(keystore, repeats, [])
    upstream.gate.set()
    flood = [asyncio.create_task(replica.send(tenant, upstream, f"k{n}")) for n in range(40)]
    await eventually(lambda: store.claiming == WRITERS)
    await replica.send(other, upstream, "k0")
    for gone in flood[:20]:
        gone.cancel()
    await asyncio.wait(flood[:20])
    await asyncio.sleep(0)
    assert store.claimed == WRITERS, "who left has not made room in the database"
    store.gate.set()
    await asyncio.gather(*flood[20:])
    await repeats.close()
    assert upstream.calls == 21 and store.claimed == 24


class Aside:
    """Counts those who are not in flight while they wait."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


async def test_who_queues_for_a_tenants_turn_is_not_in_flight(replicas: list[Replica], tenant: Tenant) -> None:
    store, aside = SlowStore(replicas[0].keystore.answers, tenant), Aside()
    repeats = Repeats(cast(AnswerStore, store), lambda _, error: None, pace=QUICK)

    def begin(n: int) -> "asyncio.Task[Ticket | Replay]":
        request = repeats.begin(tenant, ENDPOINT, f"k{n}", BODY, request_id=f"req_{n}", within_s=60, aside=aside)
        return asyncio.create_task(request)

    flood = [begin(n) for n in range(40)]
    await eventually(lambda: store.claiming == WRITERS and aside.count == 40 - WRITERS)
    store.gate.set()
    for ticket in await asyncio.gather(*flood):
        assert isinstance(ticket, Ticket)
        ticket.failed()
    assert aside.count == 0
    await repeats.close()


async def test_nobody_queues_for_a_database_that_is_away(replicas: list[Replica], tenant: Tenant) -> None:
    store, away = SlowStore(replicas[0].keystore.answers, tenant), False
    repeats = Repeats(cast(AnswerStore, store), lambda _, error: None, pace=QUICK, away=lambda: away)

    async def send(n: int) -> object:
        begun = await repeats.begin(tenant, ENDPOINT, f"k{n}", BODY, request_id=f"req_{n}", within_s=60)
        assert isinstance(begun, Ticket)
        begun.failed()
        return begun

    flood = [asyncio.create_task(send(n)) for n in range(20)]
    await eventually(lambda: store.claiming == WRITERS)
    away = True
    assert await refused(send(20)) == (503, "idempotency_unavailable")  # though nobody in front has come to an end
    store.gate.set()
    found = await asyncio.gather(*flood, return_exceptions=True)
    assert [type(one) for one in found] == [Ticket] * WRITERS + [ApiError] * (20 - WRITERS)
    assert store.claimed == WRITERS
    away = False
    await asyncio.gather(*(send(n) for n in range(20)))
    await repeats.close()


# --- one call, identical answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1, 3])
async def test_hundred_at_once_are_one_call_and_the_same_answer(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World, spread: int
) -> None:
    replicas.append(replica_of(await world.open()))
    sending = [asyncio.create_task(replicas[n % spread].send(tenant, upstream)) for n in range(100)]
    await eventually(lambda: upstream.running == 1)
    upstream.gate.set()
    answers = await asyncio.gather(*sending)
    assert upstream.calls == 1
    assert len({(answer.status, answer.body, answer.request_id) for answer in answers}) == 1
    again = [answer.headers for answer in answers if "x-wardgate-replayed" in answer.headers]
    assert again == [{"x-wardgate-request-id": answers[0].request_id, "x-wardgate-replayed": "true"}] * 99
    counted = sum((one.repeats.counts for one in replicas), start=replicas[0].repeats.counts.__class__())
    assert (counted["first"], counted["replayed"]) == (1, 99)


async def test_those_of_one_process_ask_the_database_no_more_than_one_does(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    database = replicas[0].keystore._database
    before = database.writes
    upstream.gate.set()
    await asyncio.gather(*(replicas[0].send(tenant, upstream) for _ in range(100)))
    assert database.writes - before == 2  # the claim and the answer


async def test_answer_is_there_after_a_restart(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    upstream.gate.set()
    first = await replicas[0].send(tenant, upstream)
    await replicas.pop(0).close()
    restarted = replica_of(await world.open())
    for one in (*replicas, restarted):
        again = await one.send(tenant, upstream)
        assert (again.status, again.body, again.request_id) == (first.status, first.body, first.request_id)
        assert again.headers == {"x-wardgate-request-id": first.request_id, "x-wardgate-replayed": "true"}
    assert upstream.calls == 1
    await restarted.close()


async def test_another_body_is_refused_while_the_first_runs_and_afterwards(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    first = asyncio.create_task(replicas[0].send(tenant, upstream))
    await eventually(lambda: upstream.running == 1)
    for _ in range(2):
        for one in replicas[:2]:
            assert await refused(one.send(tenant, upstream, body=BODY + b"\n")) == (409, "idempotency_key_reused")
        upstream.gate.set()
        await first
    assert upstream.calls == 1


async def test_same_key_of_another_tenant_is_another_key(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    other = await replicas[0].keystore.tenants.add("globex", "free")
    sending = [asyncio.create_task(replicas[n % 2].send(tenant, upstream)) for n in range(6)]
    sending += [asyncio.create_task(replicas[n % 2].send(other, upstream)) for n in range(6)]
    await eventually(lambda: upstream.running == 2)
    upstream.gate.set()
    answers = await asyncio.gather(*sending)
    assert upstream.calls == 2
    assert len({one.body for one in answers[:6]}) == len({one.body for one in answers[6:]}) == 1
    assert answers[0].body != answers[6].body
    assert await refused(replicas[0].send(other, upstream, body=b"")) == (409, "idempotency_key_reused")


async def test_key_is_free_after_a_day(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    upstream.gate.set()
    first = await replicas[0].send(tenant, upstream)
    world.clock.advance(hours=23, minutes=59)
    assert (await replicas[1].send(tenant, upstream)).body == first.body
    world.clock.advance(minutes=1)
    assert (await replicas[1].send(tenant, upstream, body=b"another")).body != first.body
    assert upstream.calls == 2


# --- what fails is tried again, one at a time ----------------------------------------------------------------------


async def test_after_a_failure_the_next_one_asks_and_never_two_at_once(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    upstream.failing = 5
    upstream.gate.set()
    sending = [replicas[n % 2].send(tenant, upstream) for n in range(30)]
    answers = await asyncio.gather(*sending, return_exceptions=True)
    assert (upstream.calls, upstream.most) == (6, 1)
    assert [type(one) for one in answers].count(ConnectionError) == 5
    assert len({one.body for one in answers if isinstance(one, Replay)}) == 1


async def test_client_that_leaves_gives_its_turn_to_another(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    first = asyncio.create_task(replicas[0].send(tenant, upstream))
    await eventually(lambda: upstream.running == 1)
    waiting = [asyncio.create_task(one.send(tenant, upstream)) for one in replicas]
    first.cancel()
    await asyncio.wait({first})
    await eventually(lambda: upstream.calls == 2 and upstream.running == 1)
    upstream.gate.set()
    assert len({answer.body for answer in await asyncio.gather(*waiting)}) == 1
    assert (upstream.calls, upstream.most, first.cancelled()) == (2, 1, True)


async def test_who_leaves_while_it_waits_takes_nothing_from_the_others(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    sending = [asyncio.create_task(replicas[0].send(tenant, upstream)) for _ in range(4)]
    await eventually(lambda: upstream.running == 1)
    sending[1].cancel()
    await asyncio.wait({sending[1]})
    upstream.gate.set()
    answers = await asyncio.gather(sending[0], *sending[2:])
    assert (len({one.body for one in answers}), upstream.calls) == (1, 1)


async def test_client_that_leaves_alone_leaves_nothing(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    first = asyncio.create_task(replicas[0].send(tenant, upstream))
    await eventually(lambda: upstream.running == 1)
    first.cancel()
    await asyncio.wait({first})
    await replicas[0].repeats.close()
    assert await rows(world) == 0


async def test_answer_is_kept_when_its_client_leaves_while_it_is_written(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    one = replicas[0]
    begun = await one.repeats.begin(tenant, ENDPOINT, "k", BODY, request_id="req_1", within_s=9)
    assert isinstance(begun, Ticket)
    begun_writing = asyncio.Event()

    async def serve() -> None:
        async with begun as ticket:
            begun_writing.set()
            await ticket.done(200, {}, b"whole")

    serving = asyncio.create_task(serve())
    await begun_writing.wait()
    serving.cancel()
    await asyncio.wait({serving})
    assert serving.cancelled()
    for replica in replicas:
        assert (await replica.send(tenant, upstream)).body == b"whole"
    assert upstream.calls == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
async def test_departure_at_any_moment_holds_nobody_up(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, steps: int
) -> None:
    upstream.gate.set()
    leaving = asyncio.create_task(replicas[0].send(tenant, upstream))
    waiting = asyncio.create_task(replicas[0].send(tenant, upstream))
    for _ in range(steps):
        await asyncio.sleep(0)
    leaving.cancel()
    elsewhere = await replicas[1].send(tenant, upstream)
    assert (await waiting).body == elsewhere.body
    assert upstream.most == 1
    await asyncio.wait({leaving})


async def test_who_waits_gives_up_at_its_own_deadline(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    first = asyncio.create_task(replicas[0].send(tenant, upstream))
    await eventually(lambda: upstream.running == 1)
    for one in replicas[:2]:
        with pytest.raises(ApiError) as caught:
            await one.send(tenant, upstream, within_s=0.05)
        assert refusal(caught) == (409, "idempotency_in_progress")
        assert caught.value.problem.response_headers() == {"x-should-retry": "true", "retry-after": "2"}
    upstream.gate.set()
    assert (await replicas[1].send(tenant, upstream)).body == (await first).body
    assert upstream.calls == 1


async def test_leader_that_leaves_while_it_waits_for_another_process_is_replaced(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    first = asyncio.create_task(replicas[0].send(tenant, upstream))
    await eventually(lambda: upstream.running == 1)
    leader, other = (asyncio.create_task(replicas[1].send(tenant, upstream)) for _ in range(2))
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait({leader})
    upstream.gate.set()
    assert (await other).body == (await first).body
    assert (leader.cancelled(), upstream.calls) == (True, 1)


# --- what is not kept ------------------------------------------------------------------------------------------------


async def test_answer_that_is_too_large_is_told_to_who_waits_and_asked_again(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    upstream.size = MOST_BYTES
    sending = [asyncio.create_task(replicas[0].send(tenant, upstream)) for _ in range(3)]
    await eventually(lambda: upstream.running == 1)
    upstream.gate.set()
    first, *others = await asyncio.gather(*sending)
    assert first.headers["x-wardgate-idempotency"] == "not-kept"
    assert {one.body for one in others} == {first.body}
    assert (await replicas[1].send(tenant, upstream)).body != first.body
    assert (upstream.calls, replicas[0].repeats.counts["not_kept"]) == (2, 1)


async def test_answer_beyond_its_tenants_room_is_told_and_asked_again(
    world: World, tenant: Tenant, upstream: Upstream
) -> None:
    replica = replica_of(await world.open(answers_kept_bytes=2_000))
    upstream.size = 1_000
    upstream.gate.set()
    sent = [await replica.send(tenant, upstream, key) for key in ("k", "k", "j", "j")]
    told = [(one.headers.get("x-wardgate-replayed"), one.headers.get("x-wardgate-idempotency")) for one in sent]
    assert told == [(None, None), ("true", None), (None, "not-kept"), (None, "not-kept")]
    assert (upstream.calls, replica.repeats.counts["not_kept"], replica.reported) == (3, 2, [])
    await replica.close()


async def test_refusal_that_is_kept_comes_back_whole_with_our_headers_alone(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream
) -> None:
    begun = await replicas[0].repeats.begin(tenant, ENDPOINT, "k", BODY, request_id="req_1", within_s=60)
    assert isinstance(begun, Ticket)
    ours = {"x-wardgate-provider": "openai", "x-should-retry": "false", "content-type": "application/json"}
    async with begun as ticket:
        assert await ticket.done(400, {**ours, "x-request-id": "1", "request-id": "2", "connection": "close"}, b"{}")
        assert not await ticket.done(200, {}, b"another")
    for one in replicas:
        again = await one.send(tenant, upstream)
        assert again == Replay("req_1", 400, {**ours, "x-wardgate-replayed": "true"}, b"{}")
    assert upstream.calls == 0


async def test_stream_is_sent_once_and_never_again(replicas: list[Replica], tenant: Tenant, upstream: Upstream) -> None:
    first = asyncio.create_task(replicas[0].send(tenant, upstream, stream=True))
    await eventually(lambda: upstream.running == 1)
    others = [asyncio.create_task(one.send(tenant, upstream, stream=True)) for one in replicas]
    upstream.gate.set()
    begun = await first
    for other in others:
        with pytest.raises(ApiError) as caught:
            await other
        assert refusal(caught) == (409, "idempotency_stream_ended")
        problem = caught.value.problem
        assert (problem.extra["request_id"], problem.caller_may_retry) == (begun.request_id, False)
    assert upstream.calls == 1


async def test_stream_that_broke_is_asked_again(replicas: list[Replica], tenant: Tenant, upstream: Upstream) -> None:
    upstream.failing = 1
    upstream.gate.set()
    with pytest.raises(ConnectionError):
        await replicas[0].send(tenant, upstream, stream=True)
    assert (await replicas[1].send(tenant, upstream, stream=True)).status == 200


async def test_answer_that_does_not_open_is_asked_again_by_one(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    upstream.gate.set()
    first = await replicas[0].send(tenant, upstream)
    await replicas[0].keystore.sealing.rotate_tenant(tenant)
    answers = await asyncio.gather(*(replicas[n % 2].send(tenant, upstream) for n in range(9)))
    assert upstream.calls == 2
    assert {one.body for one in answers} != {first.body} and len({one.body for one in answers}) == 1
    assert any(isinstance(error, EnvelopeDamaged) for one in replicas for error in one.reported)


# --- the database is away --------------------------------------------------------------------------------------------


async def test_request_that_cannot_be_protected_is_refused(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    async with without_table(world):
        found = await asyncio.gather(*(replicas[0].send(tenant, upstream) for _ in range(5)), return_exceptions=True)
        for one in found:
            assert isinstance(one, ApiError)
            assert (one.problem.status, one.problem.code) == (503, "idempotency_unavailable")
            assert one.problem.response_headers() == {"x-should-retry": "true", "retry-after": "2"}
    assert upstream.calls == 0
    upstream.gate.set()
    assert (await replicas[0].send(tenant, upstream)).status == 200


async def test_answer_that_cannot_be_written_goes_to_all_who_wait_and_is_asked_again(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    sending = [asyncio.create_task(replicas[0].send(tenant, upstream)) for _ in range(4)]
    await eventually(lambda: upstream.running == 1)
    async with without_table(world):
        upstream.gate.set()
        answers = await asyncio.gather(*sending)
    assert len({one.body for one in answers}) == upstream.calls == 1
    assert answers[0].headers["x-wardgate-idempotency"] == "not-kept"
    assert [type(error) for error in replicas[0].reported] == [DatabaseUnavailable]
    assert (await replicas[0].send(tenant, upstream)).body != answers[0].body


async def test_turn_that_cannot_be_given_back_is_taken_again_here(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, world: World
) -> None:
    upstream.failing = 1
    sending = asyncio.create_task(replicas[0].send(tenant, upstream))
    await eventually(lambda: upstream.running == 1)
    async with without_table(world):
        upstream.gate.set()
        with pytest.raises(ConnectionError):
            await sending
        await replicas[0].repeats.close()
    assert [type(error) for error in replicas[0].reported] == [DatabaseUnavailable]
    assert (await replicas[0].send(tenant, upstream)).status == 200


# --- who lives, who dies ---------------------------------------------------------------------------------------------


async def test_call_that_takes_long_stays_its_process_own(world: World, upstream: Upstream) -> None:
    slow = replica_of(await world.open(), Pace(beat_s=0.005))
    other = replica_of(await world.open())
    tenant = await slow.keystore.tenants.add("acme", "free")
    first = asyncio.create_task(slow.send(tenant, upstream))
    await eventually(lambda: upstream.running == 1)
    second = asyncio.create_task(other.send(tenant, upstream))
    until = "SELECT until FROM wardgate_answers"
    for _ in range(4):
        before = await world.sql(until)
        world.clock.advance(seconds=10)
        async with asyncio.timeout(20):
            while await world.sql(until) == before:
                await asyncio.sleep(0.002)
    upstream.gate.set()
    assert (await first).body == (await second).body
    assert upstream.calls == 1
    await slow.close()
    await other.close()


async def started(world: World, folder: Path, count: int, how: str) -> Program:
    arguments = (world.url, str(world.ring), str(folder), "acme", str(count), how)
    return await program("-m", "tests.gateway.repeating", *arguments)


def calls_in(folder: Path) -> list[str]:
    calls = folder / "calls"
    return calls.read_text().split() if calls.exists() else []


async def test_processes_ask_once_and_answer_alike(
    postgres_url: str, tmp_path: Path, clock: FakeClock, registry: Registry
) -> None:
    world = World(postgres_url, tmp_path / "sealing.keys", clock, registry)
    keystore = await world.open()
    await keystore.tenants.add("acme", "free")
    processes = [await started(world, tmp_path, count, "answers") for count in (50, 50)]
    ended = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    answers = [answer for out, _ in ended for answer in json.loads(out)]
    assert (len(answers), len(set(answers)), len(calls_in(tmp_path))) == (100, 1, 1)
    await keystore.close()


async def test_after_kill_between_call_and_answer_exactly_one_takes_over(world: World, tmp_path: Path) -> None:
    keystore = await world.open()
    tenant = await keystore.tenants.add("acme", "free")
    process = await started(world, tmp_path, 1, "never")
    async with asyncio.timeout(60):
        while not calls_in(tmp_path):
            await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    ahead, upstream = timedelta(), Upstream()
    upstream.gate.set()
    others = [await opened(world.url, world.ring, lambda: utc_now() + ahead) for _ in range(2)]
    assert await refused(others[0].send(tenant, upstream, within_s=0.2)) == (409, "idempotency_in_progress")
    assert upstream.calls == 0  # it is not known that the first is dead
    ahead = LEASE
    answers = await asyncio.gather(*(others[n % 2].send(tenant, upstream) for n in range(20)))
    assert (upstream.calls, len({one.body for one in answers})) == (1, 1)
    for one in others:
        await one.close()
    await keystore.close()


# --- any order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_no_two_ask_at_once_and_answers_never_differ(
    replicas: list[Replica], tenant: Tenant, upstream: Upstream, seed: int
) -> None:
    """Requests come, fail, leave and are answered in an order drawn by the seed."""
    draw, sending = random.Random(seed), list[asyncio.Task[Replay]]()
    for _ in range(60):
        match draw.choice(("come", "come", "come", "leave", "fail", "wait")):
            case "come":
                sending.append(asyncio.create_task(draw.choice(replicas).send(tenant, upstream)))
            case "leave" if sending:
                draw.choice(sending).cancel()
            case "fail" if upstream.running:
                upstream.failing = 1
                upstream.gate.set()
                calls = upstream.calls
                await eventually(lambda calls=calls: not upstream.failing)  # type: ignore[misc]
                upstream.gate.clear()
            case _:
                await asyncio.sleep(draw.random() * 0.01)
    sending.append(asyncio.create_task(replicas[0].send(tenant, upstream)))
    upstream.gate.set()
    found = await asyncio.gather(*sending, return_exceptions=True)
    assert upstream.most == 1
    assert len({one.body for one in found if isinstance(one, Replay)}) == 1
    odd = [one for one in found if not isinstance(one, Replay | ConnectionError | asyncio.CancelledError)]
    assert odd == []


# --- the key and what is definite ------------------------------------------------------------------------------------


def with_keys(*keys: bytes) -> Scope:
    return {"headers": [(b"content-type", b"application/json"), *((b"idempotency-key", key) for key in keys)]}


@pytest.mark.parametrize("key", [b"k", b"stainless-python-retry-1b9c", b"!~" * 127, b"x" * 255])
def test_key_is_read(key: bytes) -> None:
    assert key_of(with_keys(key)) == key.decode()
    assert key_of(with_keys()) is None


@pytest.mark.parametrize("keys", [[b""], [b"x" * 256], [b"a b"], [b"\xc3\xa9"], [b"a\x7f"], [b"a", b"a"], [b"a\tb"]])
def test_key_that_is_not_well_formed_is_refused(keys: list[bytes]) -> None:
    with pytest.raises(ApiError) as caught:
        key_of(with_keys(*keys))
    assert refusal(caught) == (400, "invalid_idempotency_key")


DEFINITE = {
    FailureKind.BAD_REQUEST,
    FailureKind.CONTEXT_LENGTH,
    FailureKind.CONTENT_FILTER,
    FailureKind.UNSUPPORTED_PARAMETER,
}


@pytest.mark.parametrize("kind", FailureKind)
def test_refusal_is_kept_when_it_is_of_the_request_itself(kind: FailureKind) -> None:
    failure, passing = Failure(kind, "openai", "gpt-5"), Failure(FailureKind.TIMEOUT, "groq", "gpt-5")
    assert definite(problem_of(failure, [failure])) is (kind in DEFINITE)
    assert not definite(problem_of(failure, [passing, failure]))


@pytest.mark.parametrize("code", ["provider_rejected_request", "insufficient_quota", "rate_limit_exceeded"])
def test_what_nobody_was_asked_for_is_not_kept(code: str) -> None:
    assert not definite(Problem(400, code, "no", Fault.CALLER))
    assert not definite(Problem(400, code, "no", Fault.CALLER, extra={"attempts": []}))


def test_pace_grows_to_its_most() -> None:
    pause, pauses = QUICK.first_s, []
    for _ in range(8):
        pauses.append(pause)
        pause = QUICK.after(pause)
    assert pauses == sorted(pauses)
    assert pauses[-1] == QUICK.most_s
