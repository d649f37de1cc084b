"""Where a call stands: what it holds of the places, what it is told, and what the operator's commands say of pauses."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.bulk import Places
from gateway.errors import ApiError
from gateway.limiting.asks import Ask
from gateway.limiting.limiter import Limiter
from gateway.limiting.waiting import WaitingRoom
from gateway.overload import SUSTAINED, Overload
from gateway.priority import Priority
from gateway.tally import Tally
from tests.gateway.commands import Commands
from tests.gateway.limiting.test_limiter import Clock, conc, rpm

BULK: dict[str, Any] = {"headers": [(b"x-wardgate-priority", b"bulk")]}
PLAIN: dict[str, Any] = {"headers": []}


class World:
    """The places of a process, and what they tell."""

    def __init__(self, most: int = 8, places: int = 4, wait_s: float = 0.01, answer_s: float = 60.0) -> None:
        self.shed: list[Priority] = []
        self.ends: list[str] = []
        self.room = WaitingRoom(Limiter(clock=Clock()), places=places)
        self.places = Places(
            self.room,
            Overload(most),
            wait_s=wait_s,
            answer_s=answer_s,
            most=places,
            shed=self.shed.append,
            waited=lambda end, _: self.ends.append(end),
        )


def tally(age_s: float = 0.0) -> Tally:
    made = Tally("req_1", "POST", time.monotonic() - age_s)
    made.tenant_id = "t"
    return made


async def code_of(world: World, asks: list[Ask], one: Tally) -> str:
    with pytest.raises(ApiError) as caught:
        await world.places.take(BULK).wait(asks, one)
    return caught.value.problem.code


async def test_what_is_held_is_given_back_once_whatever_it_turned_out_to_be() -> None:
    world = World()
    plain, flex, token = [world.places.take(PLAIN) for _ in range(3)]
    assert world.room.busy == 3
    flex.learn(tier="flex")
    token.learn(token=True)
    assert (world.room.busy, plain.bulk, flex.bulk, token.bulk) == (1, False, True, True)
    assert (await flex.wait([rpm(9)], tally())).admitted
    assert world.room.busy == 2
    for _ in range(2):
        for place in (plain, flex, token):
            place.end()
    assert world.room.busy == 0


def test_bulk_that_never_waits_is_in_flight_and_turned_away_first() -> None:
    world = World(most=4)
    held = [world.places.take(BULK, waits=False) for _ in range(3)]
    with pytest.raises(ApiError):
        world.places.take(BULK, waits=False)
    assert (world.room.busy, world.shed) == (3, [Priority.BULK])
    for place in held:
        place.end()
    assert world.room.busy == 0


def test_who_sends_slowly_is_looked_at_again_when_all_is_there() -> None:
    world = World(most=1)
    slow = world.places.take(PLAIN)
    with slow.reading(PLAIN):
        assert world.room.busy == 0
    assert world.room.busy == 1
    with pytest.raises(ApiError) as caught, slow.reading(PLAIN):
        world.places.take(PLAIN)
    assert (caught.value.problem.code, world.room.busy) == ("overloaded", 1)
    slow.end()
    assert world.room.busy == 1, "who is turned away holds nothing"


def test_who_waits_for_anothers_answer_is_not_in_flight_meanwhile() -> None:
    world = World()
    plain, bulk = world.places.take(PLAIN), world.places.take(BULK)
    for place in (plain, bulk):
        with pytest.raises(KeyError), place.aside():
            assert world.room.busy == (place is bulk)
            raise KeyError
        assert world.room.busy == 1
    plain.end()
    assert world.room.busy == 0


async def test_bulk_is_turned_away_first_and_as_soon_as_it_is_known() -> None:
    world = World(most=4)
    held = [world.places.take(PLAIN) for _ in range(3)]
    with pytest.raises(ApiError) as caught:
        world.places.take(BULK)
    assert caught.value.problem.code == "overloaded"
    held.append(world.places.take(PLAIN))
    with pytest.raises(ApiError):
        world.places.take(PLAIN)
    with pytest.raises(ApiError):
        held.pop().learn(tier="flex")
    assert world.room.busy == 3, "who is turned away holds nothing"
    held.pop().end()
    held.pop().learn(tier="flex")
    assert world.room.busy == 1
    assert world.shed == [Priority.BULK, Priority.INTERACTIVE, Priority.BULK]


async def test_late_loop_takes_places_from_bulk_and_gives_them_back() -> None:
    world = World(most=400, places=200)
    held = [world.places.take(PLAIN) for _ in range(100)]
    for _ in range(SUSTAINED + 20):
        world.places.note_lag(1.0)
    assert await code_of(world, [], tally()) == "overloaded"
    held.pop().end()
    for _ in range(40):
        held.pop().end()
    assert (await world.places.take(BULK).wait([rpm(9)], tally())).admitted
    for _ in range(100):
        world.places.note_lag(0.0)
    assert world.places.overload.allowed == 400
    assert not world.places.overload.refuses(299, bulk=True)


async def test_wait_ends_within_the_time_that_the_answer_has() -> None:
    """A minute's patience is no use to a request that has three milliseconds left."""
    world = World(places=1, wait_s=60.0, answer_s=5.0)
    world.places.take(PLAIN)
    one = tally(age_s=4.997)
    assert await code_of(world, [rpm(9)], one) == "bulk_wait_expired"
    assert one.waited_s is not None and one.waited_s < 30
    assert one.headers["x-wardgate-priority"] == "bulk" and one.headers["x-wardgate-waited-ms"].isdigit()


async def test_each_end_has_its_word() -> None:
    world = World(places=1)
    assert (await world.places.take(BULK).wait([rpm(9)], tally())).admitted
    assert await code_of(world, [rpm(9)], tally()) == "bulk_wait_expired"
    world.room.pause(frozenset({"t"}))
    assert await code_of(world, [rpm(9)], tally()) == "bulk_paused"
    world.room.close()
    assert await code_of(world, [rpm(9)], tally()) == "shutting_down"
    assert world.ends == ["admitted", "expired", "expired", "closed"]


async def test_who_waited_last_for_a_pause_is_told_of_that_and_not_of_the_limit_before() -> None:
    world = World(wait_s=0.6)
    held = world.places.take(BULK)
    assert (await held.wait([conc(2)], tally())).admitted  # bulk has one of two
    waiting = asyncio.create_task(code_of(world, [conc(2)], tally()))
    for _ in range(10):
        await asyncio.sleep(0)
    world.room.pause(frozenset({"t"}))
    assert await waiting == "bulk_paused"


async def test_refusal_of_the_limits_is_told_as_the_plan_has_it() -> None:
    """Bulk has three of four at a time; the fourth that waits in vain is told of four."""
    world = World(places=9)
    for _ in range(3):
        assert (await world.places.take(BULK).wait([conc(4)], tally())).admitted
    verdict = await world.places.take(BULK).wait([conc(4)], tally())
    assert verdict.refused is not None
    assert (verdict.refused.ask, verdict.standings[0].ask, verdict.retry_ms) == (conc(4), conc(4), 1_000)


def test_operator_pauses_lists_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli = Commands(tmp_path, monkeypatch)
    cli("tenant", "add", "acme", "--plan", "team")
    assert cli("bulk", "list") == "Nobody's bulk is paused.\n"
    paused = cli.json("bulk", "pause", "acme")
    assert isinstance(paused, dict) and (paused["tenant"], paused["paused"]) == ("acme", True)
    assert cli.json("bulk", "list") == [paused] == [cli.json("bulk", "pause", "acme")]
    assert "wardgate bulk resume acme" in cli("bulk", "pause", "acme")
    assert "acme" in cli("bulk", "list")
    assert cli("bulk", "resume", "acme") == "Bulk of acme goes on.\n"
    assert cli.json("bulk", "resume", "acme") == {"tenant": "acme", "paused": False, "was_paused": False}
    assert "no tenant" in cli("bulk", "pause", "nobody", code=1)
