"""Bulk waits its turn and loses no place, however a wait ends."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from gateway.limiting.asks import Ask, Verdict, requests_a_minute
from gateway.limiting.limiter import Limiter
from gateway.limiting.waiting import Left, Waited, WaitingRoom, bulk_asks
from tests.gateway.limiting.test_limiter import Clock, conc, rpm, tpm

LONG_S = 20.0


def room(places: int = 1, most_each: int = 10) -> WaitingRoom:
    return WaitingRoom(Limiter(clock=Clock()), places=places, most=20, most_each=most_each)


@contextlib.contextmanager
def interactive(waiting_room: WaitingRoom) -> Iterator[None]:
    """A request that is not bulk, for as long as it runs."""
    waiting_room.begin()
    try:
        yield
    finally:
        waiting_room.end()


def entering(waiting_room: WaitingRoom, tenant: str, *asks: Ask, patience_s: float = LONG_S) -> "asyncio.Task[Waited]":
    return asyncio.create_task(waiting_room.enter(tenant, asks, patience_s))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_bulk_waits_for_requests_that_do_not_and_goes_when_one_ends() -> None:
    waiting_room = room()
    with interactive(waiting_room), interactive(waiting_room):
        bulk = entering(waiting_room, "a", rpm(9))
        await settled()
        assert not bulk.done()
        assert len(waiting_room) == 1
    assert (await bulk).left is Left.ADMITTED


async def test_one_tenants_flood_does_not_keep_another_waiting() -> None:
    waiting_room = room()
    order: list[str] = []

    async def work(tenant: str) -> None:
        assert (await waiting_room.enter(tenant, [rpm(1_000, tenant)], LONG_S)).left is Left.ADMITTED
        order.append(tenant)
        await asyncio.sleep(0)
        waiting_room.leave()

    await asyncio.gather(*(work("flood") for _ in range(10)), work("calm"))
    assert order.index("calm") <= 2


async def test_wait_ends_when_its_patience_does_and_keeps_no_place() -> None:
    waiting_room = room()
    with interactive(waiting_room):
        assert await waiting_room.enter("a", [rpm(9)], 0.01) == Waited(Left.EXPIRED, None)
        assert len(waiting_room) == 0
    assert (await waiting_room.enter("a", [rpm(9)], LONG_S)).left is Left.ADMITTED


async def test_refusal_of_the_limits_is_told_when_the_wait_ends() -> None:
    clock = Clock()
    waiting_room = WaitingRoom(Limiter(clock=clock), clock=clock)
    assert (await waiting_room.enter("a", [rpm(1)], LONG_S)).left is Left.ADMITTED
    waiting_room.leave()
    bulk = entering(waiting_room, "a", rpm(1), patience_s=0.1)
    await settled()
    clock.now += 6
    left, verdict = await bulk
    assert left is Left.EXPIRED
    assert verdict is not None and verdict.refused is not None
    assert (verdict.retry_ms, verdict.refused.reset_ms) == (54_000, 54_000), "as of now"
    assert (await waiting_room.enter("b", [rpm(1, "b")], LONG_S)).left is Left.ADMITTED


async def test_refusal_that_is_over_is_not_told_of_who_waited_for_a_place_or_a_pause_since() -> None:
    """A lease is looked for again after 0.1 s; there was none for it to wait for, all the rest of its time."""
    for hold in ("place", "pause"):
        limiter = Limiter()
        waiting_room = WaitingRoom(limiter, places=1)
        held = await limiter.admit([conc(1)])
        bulk = entering(waiting_room, "a", conc(1), patience_s=0.6)
        await settled()
        assert held.ticket is not None and not bulk.done()
        limiter.settle(held.ticket)
        with interactive(waiting_room) if hold == "place" else contextlib.nullcontext():
            waiting_room.pause(frozenset({"a"} if hold == "pause" else set()))
            assert await bulk == Waited(Left.EXPIRED, None), hold


async def test_bulk_goes_when_its_limit_admits_it() -> None:
    waiting_room = WaitingRoom(Limiter())  # 20 ms a request
    for _ in range(3_001):
        left, verdict = await waiting_room.enter("a", [rpm(3_000)], LONG_S)
        assert left is Left.ADMITTED
        assert verdict is not None
        waiting_room.leave()


async def test_token_that_waits_for_its_own_limit_holds_up_no_other_of_its_tenant() -> None:
    waiting_room, own = room(places=9), requests_a_minute("token", "slow", "a", 1)
    slow = [entering(waiting_room, "a", rpm(100), own) for _ in range(3)]
    await settled()
    assert [each.done() for each in slow] == [True, False, False]
    for asks in ([rpm(100)], [rpm(100), requests_a_minute("token", "other", "a", 9)]):
        assert (await waiting_room.enter("a", asks, 0.5)).left is Left.ADMITTED
    for each in slow:
        each.cancel()


async def test_lease_that_ends_is_taken_by_bulk_that_waits_for_it() -> None:
    limiter = Limiter()
    waiting_room = WaitingRoom(limiter)
    held: Verdict = await limiter.admit([conc(1)])
    bulk = entering(waiting_room, "a", conc(1))
    await settled()
    assert not bulk.done()
    assert held.ticket is not None
    limiter.settle(held.ticket)
    assert (await bulk).left is Left.ADMITTED


async def test_too_many_are_turned_away_and_what_never_fits_is_refused() -> None:
    waiting_room = room(most_each=1)
    assert (await waiting_room.enter("a", [tpm(10, 11)], LONG_S)).left is Left.REFUSED
    with interactive(waiting_room):
        first = entering(waiting_room, "a", rpm(9))
        await settled()
        assert (await waiting_room.enter("a", [rpm(9)], LONG_S)).left is Left.CROWDED
    assert (await first).left is Left.ADMITTED


async def test_tenant_that_is_paused_waits_and_others_do_not() -> None:
    waiting_room = room(places=9)
    waiting_room.pause(frozenset({"a"}))
    paused, other = entering(waiting_room, "a", rpm(9)), entering(waiting_room, "b", rpm(9, "b"))
    assert (await other).left is Left.ADMITTED
    assert not paused.done()
    waiting_room.pause(frozenset())
    assert (await paused).left is Left.ADMITTED


@pytest.mark.parametrize("called", [False, True], ids=["while it waits", "as its turn comes"])
async def test_place_is_not_lost_when_a_caller_leaves(called: bool) -> None:
    waiting_room = room()
    with interactive(waiting_room):
        bulk = entering(waiting_room, "a", rpm(9))
        await settled()
        if not called:
            bulk.cancel()
    bulk.cancel()
    assert isinstance((await asyncio.gather(bulk, return_exceptions=True))[0], asyncio.CancelledError)
    assert (await waiting_room.enter("a", [rpm(9)], LONG_S)).left is Left.ADMITTED
    assert waiting_room._turns.running == 1


async def test_those_who_wait_are_told_when_the_process_stops_and_who_need_not_wait_goes() -> None:
    waiting_room = room()
    with interactive(waiting_room):
        waits = entering(waiting_room, "a", rpm(9))
        await settled()
        waiting_room.close()
        assert await waits == Waited(Left.CLOSED, None)
        assert (await waiting_room.enter("a", [rpm(9)], LONG_S)).left is Left.CLOSED
    assert (await waiting_room.enter("a", [rpm(1)], LONG_S)).left is Left.ADMITTED
    waiting_room.leave()
    left, verdict = await waiting_room.enter("a", [rpm(1)], LONG_S)
    assert left is Left.CLOSED, "its limit would have it wait"
    assert verdict is not None and not verdict.admitted
    assert (len(waiting_room), waiting_room.busy) == (0, 0)


async def test_many_of_one_tenant_yield_to_another_where_all_the_room_is_taken() -> None:
    waiting_room = WaitingRoom(Limiter(clock=Clock()), places=1, most=4, most_each=4)
    with interactive(waiting_room):
        many = [entering(waiting_room, "a", rpm(9)) for _ in range(4)]
        await settled()
        few = entering(waiting_room, "b", rpm(9, "b"))
        await settled()
        assert [one.done() for one in many] == [False, False, False, True]
        assert (await many[3]).left is Left.FULL
        assert (await waiting_room.enter("a", [rpm(9)], LONG_S)).left is Left.FULL, "it has the most itself"
    assert (await many[0]).left is Left.ADMITTED
    waiting_room.leave()
    assert (await few).left is Left.ADMITTED


async def test_those_who_wait_hold_so_many_bytes_and_no_more() -> None:
    waiting_room = WaitingRoom(Limiter(clock=Clock()), places=1, most_bytes=100)
    with interactive(waiting_room):
        tasks = [asyncio.create_task(waiting_room.enter(name, [], LONG_S, 40)) for name in ("a", "b")]
        await settled()
        assert (await waiting_room.enter("a", [], LONG_S, 1)).left is Left.CROWDED, "a quarter is for each"
        assert (await waiting_room.enter("c", [], LONG_S, 21)).left is Left.FULL
        tasks.append(asyncio.create_task(waiting_room.enter("c", [], LONG_S, 20)))
        await settled()
        assert not any(one.done() for one in tasks)
        tasks[0].cancel()
        await settled()
        tasks.append(asyncio.create_task(waiting_room.enter("d", [], LONG_S, 40)))
        await settled()
        assert not tasks[-1].done(), "who left holds nothing"
        waiting_room.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not waiting_room._held


async def test_fewer_places_hold_back_who_waits_and_more_let_them_go() -> None:
    waiting_room = room(places=3)
    waiting_room.allow(1, 3)
    with interactive(waiting_room):
        bulk = entering(waiting_room, "a", rpm(9))
        await settled()
        assert not bulk.done()
        waiting_room.allow(2, 0)
        await settled()
        assert not bulk.done()
        waiting_room.allow(2, 1)
        assert (await bulk).left is Left.ADMITTED
        assert waiting_room.busy == 2


async def test_turns_come_one_after_another_and_the_loop_is_others_in_between() -> None:
    waiting_room = WaitingRoom(Limiter(clock=Clock()), places=99, apart_s=0.005)
    began = asyncio.get_running_loop().time()
    many = [entering(waiting_room, "a", rpm(99)) for _ in range(9)]
    await settled()
    assert sum(one.done() for one in many) == 1
    assert {one.left for one in await asyncio.gather(*many)} == {Left.ADMITTED}
    assert asyncio.get_running_loop().time() - began >= 8 * 0.004  # uvloop and asyncio may be a millisecond early


@pytest.mark.parametrize(("limit", "for_bulk"), [(0, 0), (1, 1), (2, 1), (4, 3), (8, 6), (100, 75)])
def test_bulk_leaves_some_of_the_concurrency_to_others(limit: int, for_bulk: int) -> None:
    assert bulk_asks([rpm(9), conc(limit)]) == (rpm(9), conc(for_bulk))
