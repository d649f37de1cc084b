"""One suite for the pure view, the keeper of a process, and two processes over a real Valkey: the same stories."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, Protocol

import pytest
import redis
from redis.exceptions import RedisError

from router.failure import Failure, FailureKind
from router.health import ALL_WELL, HealthView, Ill
from router.health_keeper import HealthChange, HealthKeeper
from router.health_sharing import REPLICAS, STREAM, HealthSharing, OptionError, check_url
from router.health_steps import Attempt, advanced, begun, ended
from router.reasons import Denial
from tests.router.test_health import START, attempt, end, holding, offer
from tests.router.vectors import Row, rows

SKEW = 86_400.0  # seconds by which the second process's clock is wrong


class FakeClock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def keeper(clock: Callable[[], float]) -> HealthKeeper:
    return HealthKeeper(clock, lambda: 1.0)


def shifted(made: Attempt, by: float) -> Attempt:
    return Attempt(made.provider_id, made.model, made.tenant_id, made.key_id, made.began + by, made.own_endpoint)


class World(Protocol):
    """Something that hears steps of a story and is asked."""

    async def tell(self, step: Row) -> None: ...
    async def denials(self, step: Row) -> list[Denial | None]: ...


class Pure:
    """The view and its steps alone."""

    def __init__(self) -> None:
        self.view = ALL_WELL

    async def tell(self, step: Row) -> None:
        at = float(step["at"])
        if "begins" in step:
            self.view = begun(self.view, attempt(step, at))
        else:
            self.view = ended(self.view, end(step, at))

    async def denials(self, step: Row) -> list[Denial | None]:
        self.view = advanced(self.view, START + float(step["at"]))
        return [asked(self.view, step)]


class InProcess:
    """A keeper, whose clock the story sets."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.keeper = keeper(self.clock)

    async def tell(self, step: Row) -> None:
        at = float(step["at"])
        self.clock.now = START + at
        made, done = attempt(step, at), end(step, at)
        if "begins" in step:
            self.keeper.begin(made)
        else:
            self.keeper.end(made, answered=done.answered, failure=done.failure)

    async def denials(self, step: Row) -> list[Denial | None]:
        self.clock.now = START + float(step["at"])
        return [asked(self.keeper.view(), step)]


class Shared(InProcess):
    """Two keepers over one Valkey: one hears the story, both are asked. Their clocks are a day apart."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.other = keeper(lambda: self.clock.now + SKEW)
        self.sharings = [sharing(self.keeper, url), sharing(self.other, url)]

    async def step(self) -> None:
        for each in self.sharings:
            await each.keep_step()

    async def tell(self, step: Row) -> None:
        await super().tell(step)
        await self.step()

    async def denials(self, step: Row) -> list[Denial | None]:
        (here,) = await super().denials(step)
        await self.step()
        if here is not None and "trying it now" in here.detail:
            return [here]  # each process makes its own probe
        return [here, asked(self.other.view(), step)]


def sharing(of: HealthKeeper, url: str, **options: Any) -> HealthSharing:
    """Patient, unless a test is about patience: the machine of the tests is slow at times."""
    quiet: dict[str, Any] = {"tell": lambda shared, why: None, "replicas": lambda number: None, "timeout_s": 20.0}
    return HealthSharing(of, url, **quiet | options)


def asked(view: HealthView, step: Row) -> Denial | None:
    keys = step.get("keys", [step.get("key", "k1")])
    held = holding(step.get("tenant", "acme"), *keys, former=tuple(step.get("former", ())))
    return view.denial(offer(model=step.get("model", "m")), held)


@asynccontextmanager
async def world(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if kind == "shared":
        shared = Shared(request.getfixturevalue("fresh_redis"))
        await shared.step()
        yield shared
        for each in shared.sharings:
            await each.close()
    else:
        yield Pure() if kind == "pure" else InProcess()


@pytest.mark.parametrize("kind", ["pure", "in process", pytest.param("shared", marks=pytest.mark.services)])
@pytest.mark.parametrize("row", rows("health", "story"))
async def test_story_is_the_same_everywhere(row: Row, kind: str, request: pytest.FixtureRequest) -> None:
    async with world(kind, request) as told:
        for step in row["steps"]:
            if "denied" in step:
                found = [denial.reason.value if denial else "" for denial in await told.denials(step)]
                assert set(found) == {step["denied"]}, step
            else:
                for _ in range(step.get("times", 1)):
                    await told.tell(step)


# --- the keeper -----------------------------------------------------------------------------------------------------


def fails(of: HealthKeeper, kind: str = "key_rejected", status: int | None = 401, times: int = 1) -> None:
    for _ in range(times):
        of.end(attempt({}, of.now() - START), failure=Failure(FailureKind(kind), "minimax", "m", status))


def test_listeners_hear_of_marks_and_of_their_end_and_not_of_the_rest() -> None:
    clock = FakeClock()
    kept, heard = keeper(clock), list[HealthChange]()
    kept.listen(heard.append)
    fails(kept, "server_error", 500, 4)
    assert heard == []
    fails(kept, "server_error", 500)
    (change,) = heard
    assert (change.subject.ill, change.subject.whose, change.elsewhere) == (Ill.ERRING, "acme", False)
    assert change.mark is not None and change.mark.until == START + 5.0
    fails(kept, "server_error", 500)
    clock.now += 5.0
    kept.begin(attempt({}, 5.0))
    assert len(heard) == 1
    kept.end(attempt({}, 5.0), answered=True)
    assert [each.mark for each in heard[1:]] == [None]
    kept.end(attempt({}, 5.0), answered=True)
    assert len(heard) == 2


def test_attempts_where_all_is_well_change_nothing() -> None:
    kept = keeper(FakeClock())
    kept.begin(attempt({}, 0.0))
    kept.end(attempt({}, 0.0), answered=True)
    kept.end(attempt({}, 0.0))
    assert kept.view() is ALL_WELL


def test_marks_are_counted_while_they_deny() -> None:
    clock = FakeClock()
    kept = keeper(clock)
    fails(kept)
    assert [kept.denying(ill) for ill in Ill] == [1, 0, 0]
    clock.now += 300.0
    assert kept.denying(Ill.KEY_REJECTED) == 0


def test_what_is_known_already_is_not_told_again() -> None:
    kept, heard = keeper(FakeClock()), list[HealthChange]()
    fails(kept)
    (subject, mark), *_ = kept.view().marks.items()
    kept.listen(heard.append)
    kept.hear(subject, mark)
    kept.hear(subject, None)
    kept.hear(subject, None)
    assert [each.mark for each in heard] == [None]


# --- through Redis --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("redis://h", "redis://:p@h:1/2?protocol=2&client_name=a&socket_keepalive=true", "unix:///tmp/s?db=1"),
        "rediss://u:p@h:1/2?ssl_cert_reqs=none&ssl_check_hostname=false&ssl_ca_certs=/ca&ssl_min_version=771",
    ],
)
def test_url_with_options_that_leave_the_answers_as_they_are_is_one(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "query",
    [
        *("decode_responses=True", "decode_responses", "socket_timeout=3", "db=0&max_connections=1", "timeout=1"),
        *("health_check_interval=1", "protocol=7", "ssl_ca_certs=/ca", "encoding=ascii", "x=y"),
    ],
)
def test_url_with_an_option_that_changes_what_is_relied_on_is_none(query: str) -> None:
    with pytest.raises(OptionError):
        check_url(f"redis://h/0?{query}")


@pytest.mark.services
async def test_a_process_that_starts_learns_what_the_others_know(fresh_redis: str) -> None:
    one, late, heard = keeper(FakeClock()), keeper(FakeClock(START + SKEW)), list[HealthChange]()
    late.listen(heard.append)
    first = sharing(one, fresh_redis)
    fails(one)
    fails(one, "rate_limited", 429)
    await first.keep_step()
    second = sharing(late, fresh_redis)
    await second.keep_step()
    assert late.view().denial(offer(), holding("acme", "k1")) is not None
    assert [(each.subject.ill, each.elsewhere) for each in heard] == [
        (Ill.KEY_REJECTED, True),
        (Ill.RATE_LIMITED, True),
    ]
    await second.keep_step()
    assert len(heard) == 2  # nothing is read twice
    await first.keep_step()
    with redis.Redis.from_url(fresh_redis) as client:
        assert client.xlen(STREAM) == 2  # and what was heard is not written again
        assert 0 < client.ttl(STREAM) <= 3_600
    await first.close()
    await second.close()


@pytest.mark.services
async def test_processes_are_counted(fresh_redis: str) -> None:
    counted = list[int]()
    sharings = [sharing(keeper(FakeClock()), fresh_redis, replicas=counted.append) for _ in range(3)]
    for each in sharings:
        await each.keep_step()
    assert counted == [1, 2, 3]
    await sharings[0].close()
    await sharings[1].keep_step()
    assert counted[-1] == 2
    with redis.Redis.from_url(fresh_redis) as client:
        client.zadd(REPLICAS, {"gone": 1.0})
    await sharings[1].keep_step()
    assert counted[-1] == 2
    for each in sharings[1:]:
        await each.close()


GOOD = {"ill": "erring", "provider_id": "p", "model": "m", "whose": "", "since": 0, "opened": 0, "until": 5, "level": 0}


@pytest.mark.services
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", '{"ill": "new"}', json.dumps(GOOD), json.dumps(GOOD | {"why": "x", "until": "soon"})]
    + [json.dumps(GOOD | {"why": "x", name: float("inf")}) for name in ("level",)]
    + [json.dumps(GOOD | {"why": "x", name: float("nan")}) for name in ("since", "opened", "until")]
    + ["[" * 100_000, b"\xff\xfe"],
    ids=lambda text: str(text[:80]),
)
async def test_what_is_no_mark_is_passed_over(text: str | bytes, fresh_redis: str) -> None:
    kept = keeper(FakeClock())
    with redis.Redis.from_url(fresh_redis) as client:
        client.xadd(STREAM, {"by": "another", "mark": text})
        client.xadd(STREAM, {"by": "another"})
        client.xadd(STREAM, {"by": "another", "mark": json.dumps(GOOD | {"provider_id": "q", "why": "x"})})
    subject = sharing(kept, fresh_redis)
    await subject.keep_step()
    assert [each.provider_id for each in kept.view().marks] == ["q"]
    await subject.close()


@pytest.mark.services
@pytest.mark.parametrize("level", [-(10**400), 10**400])
async def test_a_level_from_outside_is_bounded(level: int, fresh_redis: str) -> None:
    clock = FakeClock()
    kept = keeper(clock)
    with redis.Redis.from_url(fresh_redis) as client:
        client.xadd(STREAM, {"by": "another", "mark": json.dumps(GOOD | {"why": "x", "level": level})})
    subject = sharing(kept, fresh_redis)
    await subject.keep_step()
    assert [0 <= mark.level <= 16 for mark in kept.view().marks.values()] == [True]
    await subject.close()


class Gate:
    """A port before a Redis that can be shut, made silent and opened again."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.removeprefix("redis://").partition("/")[0].partition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._tasks = set[asyncio.Task[None]]()
        self.silent = False
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(asyncio.CancelledError), closing(writer):
            there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
            with closing(there_writer):
                await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        self._tasks.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if not self.silent:
                    sink.write(data)
        sink.close()


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.services
async def test_redis_that_is_away_is_told_once_and_costs_nobody_anything(fresh_redis: str) -> None:
    gate, told = Gate(fresh_redis), list[tuple[bool, str]]()
    await gate.open()
    kept = keeper(FakeClock())
    subject = sharing(
        kept, gate.url, tell=lambda shared, why: told.append((shared, why)), poll_s=0.02, away_s=0.05, timeout_s=0.2
    )
    running = asyncio.create_task(subject.run())
    await soon(lambda: told == [(True, "")])

    gate.silent = True
    await soon(lambda: len(told) == 2)
    fails(kept)
    assert kept.view().denial(offer(), holding("acme", "k1")) is not None  # its own view goes on
    trials = gate.connections
    await soon(lambda: gate.connections >= trials + 3)
    await gate.shut()
    assert told == [(True, ""), (False, "TimeoutError")]

    gate.silent = False
    await gate.open()
    await soon(lambda: len(told) == 3)
    await gate.shut()
    await soon(lambda: len(told) == 4)
    await gate.open()
    await soon(lambda: len(told) == 5)
    assert told[2:] == [(True, ""), (False, "ConnectionError"), (True, "")]
    other = keeper(FakeClock())
    reader = sharing(other, fresh_redis)
    await reader.keep_step()
    assert other.view().denial(offer(), holding("acme", "k1")) is not None  # what waited was written

    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await subject.close()
    await reader.close()
    await gate.shut()


async def test_a_redis_that_was_never_there_stops_nothing() -> None:
    gate = Gate("redis://127.0.0.1:1/0")
    await gate.open()
    await gate.shut()
    kept = keeper(FakeClock())
    subject = sharing(kept, gate.url)
    fails(kept)
    with pytest.raises((RedisError, OSError)):
        await subject.keep_step()
    assert kept.denying(Ill.KEY_REJECTED) == 1
    await subject.close()


def test_what_is_no_url_of_redis_is_refused() -> None:
    check_url("rediss://:secret@cache.example:6380/3")
    with pytest.raises(ValueError, match="scheme"):
        check_url("http://nowhere")
