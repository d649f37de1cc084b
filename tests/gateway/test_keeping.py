"""The keeper: what it gathers, what it drops when there is no room, and that nothing waits for it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from gateway.events import AttemptEnded, Decided, Endpoint, FellBack, Outcome, RequestCompleted
from gateway.keeping import AT_ONCE, BATCH, DecisionKeeper
from keystore.decisions import Keeping, KeptDecision
from keystore.errors import DatabaseUnavailable
from router.decision import Decision
from tests.router.test_decision import decide

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@dataclass
class Store:
    """Stands where the keystore's store does; `away` as a database that does not answer."""

    keeping: Keeping = field(default_factory=Keeping)
    away: bool = False
    written: list[KeptDecision] = field(default_factory=list)
    tries: int = 0

    async def write(self, batch: Sequence[KeptDecision]) -> None:
        self.tries += 1
        await asyncio.sleep(0)
        if self.away:
            raise DatabaseUnavailable("away")
        self.written += batch


@dataclass
class Bench:
    """A keeper over a store, and requests for it."""

    store: Store = field(default_factory=Store)
    reported: list[str] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keeper = DecisionKeeper(
            self.store,  # type: ignore[arg-type]
            lambda request_id, _: self.reported.append(request_id),
            now=lambda: NOW,
            **self.limits,
        )

    def request(self, number: int = 0, decision: Decision | None = None, **facts: Any) -> str:
        request_id = f"req_{number:032x}"
        made = decision or decide({"model": "minimax/MiniMax-M2", "held": ["minimax"]})
        self.keeper(Decided(request_id, "t1", made))
        self.keeper(AttemptEnded(request_id, "minimax", "MiniMax-M2", "server_error", 0.25, 500, "eu", 3, "req-9"))
        self.keeper(FellBack(request_id, "minimax", "minimax", "server_error"))
        self.keeper(AttemptEnded(request_id, "minimax", "MiniMax-M2", "ok", 1.5, 200))
        known: dict[str, Any] = {"status": 200, "outcome": Outcome.OK, "duration_s": 2.0, "tenant": "acme"}
        self.keeper(RequestCompleted(request_id, Endpoint.CHAT_COMPLETIONS, "POST", **(known | facts)))
        return request_id

    def documents(self) -> list[dict[str, Any]]:
        return [orjson.loads(one.document) for one in self.store.written]


async def test_request_is_kept_with_its_decision_attempts_and_end() -> None:
    bench = Bench()
    facts: dict[str, Any] = {"provider": "minimax", "model": "MiniMax-M2", "key_source": "byok", "key_via": "former"}
    facts |= {"cost_usd": Decimal("0.000120"), "catalogue": "test-1", "token_id": "tok", "client_request_id": "mine-1"}
    request_id = bench.request(7, **facts)
    assert (await bench.keeper.flush(), bench.store.written[0].tenant_id) == (1, "t1")
    assert bench.store.written[0].created_at == NOW - timedelta(seconds=2)
    (record,) = bench.documents()
    assert record.pop("decision")["ranked"][0]["id"] == "minimax/MiniMax-M2"
    assert record == {
        "object": "request",
        "id": request_id,
        "client_request_id": "mine-1",
        "created_at": "2026-11-20T11:59:58+00:00",
        "duration_ms": 2000,
        "waited_ms": None,
        "tenant": "acme",
        "token": "tok",
        "endpoint": "chat_completions",
        "stream": False,
        "outcome": "ok",
        "status": 200,
        "fault": None,
        "code": None,
        "passed_over": [],
        "served": {
            "provider": "minimax",
            "model": "MiniMax-M2",
            "key": "byok:former",
            "key_label": None,
            "key_former": None,
            "cost_usd": "0.000120",
            "catalogue": "test-1",
        },
        "attempts": [
            {
                **{"provider": "minimax", "model": "MiniMax-M2", "outcome": "server_error", "status": 500},
                **{"duration_ms": 250, "key_label": "eu", "key_former": 3, "provider_request_id": "req-9"},
            },
            {
                **{"provider": "minimax", "model": "MiniMax-M2", "outcome": "ok", "status": 200},
                **{"duration_ms": 1500, "key_label": None, "key_former": None, "provider_request_id": None},
            },
        ],
    }


async def test_request_without_a_decision_is_not_kept_and_none_is_when_it_is_switched_off() -> None:
    bench = Bench()
    bench.keeper(RequestCompleted("req_x", Endpoint.MODELS, "GET", status=200, outcome=Outcome.OK, duration_s=0.1))
    bench.keeper(AttemptEnded("req_x", "minimax", "m", "ok", 0.1, 200))
    off = Bench(Store(Keeping(timedelta(0))))
    off.request()
    assert [await bench.keeper.flush(), await off.keeper.flush()] == [0, 0]
    assert [bench.keeper.dropped, off.keeper.dropped] == [0, 0]


@pytest.mark.parametrize("where", ["model", "models", "client"])
async def test_key_in_the_place_of_a_name_is_masked(where: str) -> None:
    bench, key = Bench(), "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
    asked = key if where == "model" else "minimax/MiniMax-M2"
    others = [key] if where == "models" else []
    bench.request(
        decision=decide({"model": asked, "models": others}), client_request_id=key if where == "client" else None
    )
    await bench.keeper.flush()
    told = bench.store.written[0].document.decode()
    assert "sk-proj" not in told and "[redacted]" in told


@pytest.mark.parametrize("limits", [{"most_weight": 10}, {"most_waiting": 5}])
async def test_what_there_is_no_room_for_is_dropped_and_counted(limits: dict[str, int]) -> None:
    bench = Bench(limits=limits)
    for number in range(9):
        bench.request(number)
    assert bench.keeper.dropped == 4  # each weighs two: itself and the one offer considered
    assert await bench.keeper.flush() == 5
    bench.request(10)
    assert (await bench.keeper.flush(), bench.keeper.dropped) == (1, 4)


async def test_database_that_is_away_costs_what_there_is_no_room_for_and_nothing_else() -> None:
    bench = Bench(Store(away=True), limits={"most_bytes": 6_000})
    for number in range(20):
        bench.request(number)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await bench.keeper.flush()
    assert 0 < bench.keeper.dropped < 20
    bench.store.away = False
    assert await bench.keeper.flush() == 20 - bench.keeper.dropped
    assert [one.request_id for one in bench.store.written] == [f"req_{n:032x}" for n in range(len(bench.store.written))]


async def test_load_without_a_pause_is_written_and_stops_nothing() -> None:
    """What has ended and waits is made in parts, each written before the next; the loop turns between."""
    bench, turns = Bench(), 0
    for number in range(2_000):
        bench.request(number)
    flushing = asyncio.create_task(bench.keeper.flush())
    while not bench.store.written:
        turns += 1
        bench.request(2_000 + turns)
        await asyncio.sleep(0)
    assert turns > AT_ONCE / BATCH and len(bench.store.written) == AT_ONCE
    assert await flushing == 2_000 + turns and bench.keeper.dropped == 0


async def test_record_that_cannot_be_made_is_told_and_the_others_are_kept() -> None:
    bench = Bench()
    good = decide({"model": "minimax/MiniMax-M2", "held": ["minimax"]})
    broken = bench.request(1, replace(good, ranked=(None,)))  # type: ignore[arg-type]
    bench.request(2)
    assert (await bench.keeper.flush(), bench.reported, bench.keeper.dropped) == (1, [broken], 1)


async def test_task_writes_soon_and_tries_again_after_an_outage() -> None:
    bench = Bench(Store(away=True))
    running = asyncio.create_task(bench.keeper.run())
    async with asyncio.timeout(10):
        bench.request(1)
        while not bench.store.tries:
            await asyncio.sleep(0.01)
        bench.store.away = False
        while len(bench.store.written) < 1:
            await asyncio.sleep(0.01)
        bench.request(2)
        while len(bench.store.written) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    bench.request(3)
    await bench.keeper.close()
    assert len(bench.store.written) == 3


async def test_what_a_database_does_not_take_at_the_end_is_counted() -> None:
    bench = Bench(Store(away=True))
    bench.request(1)
    await bench.keeper.close()
    assert bench.keeper.dropped == 1


async def test_cancelled_write_loses_nothing() -> None:
    bench = Bench()
    bench.request(1)
    flushing = asyncio.create_task(bench.keeper.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.wait({flushing})
    await bench.keeper.close()
    assert [one.request_id for one in bench.store.written] == [f"req_{1:032x}"]


async def test_task_that_fails_unforeseen_goes_on() -> None:
    bench = Bench()

    async def fails(batch: Sequence[KeptDecision]) -> None:
        bench.store.tries += 1
        raise RuntimeError("unforeseen")

    write = bench.store.write
    bench.store.write = fails  # type: ignore[method-assign]
    running = asyncio.create_task(bench.keeper.run())
    async with asyncio.timeout(10):
        bench.request(1)
        while not bench.reported:
            await asyncio.sleep(0.01)
        bench.store.write = write  # type: ignore[method-assign]
        bench.request(2)
        while len(bench.store.written) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
