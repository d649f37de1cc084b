"""Price releases in the database: one is live, one decides, and what was live when is kept. On both databases."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from keystore import price_releases
from keystore.errors import PriceConflict, PriceReleaseError, PriceReleaseUnknown, PriceRowUnknown
from keystore.keystore import Keystore
from keystore.price_releases import Cause, NewRelease, Release, ReleaseState, WaitingRow
from keystore.price_sources import GoodContent
from keystore.rootkeys import SealingSource
from tests.keystore.conftest import World

LEASE_S = timedelta(minutes=1)


def new(base: int | None = None, **changes: Any) -> NewRelease:
    made: dict[str, Any] = {"content": b"rows", "digest": "d" * 64, "rows": 3, "base": base, "base_version": "before"}
    return NewRelease(**(made | changes))


async def live(keystore: Keystore, base: int | None = None, by: str = "ann") -> Release:
    staged = await keystore.prices.stage(new(base), by)
    return await keystore.prices.approve(staged.number, by, version=f"v{staged.number}")


async def test_release_is_staged_approved_and_read_back(keystore: Keystore, world: World) -> None:
    waiting = [WaitingRow("b", "jumped", "went", '{"a": 1}'), WaitingRow("a", "vanished", "the list no longer has it")]
    made = new(
        sources=[{"name": "file:x"}], counts={"added": 1}, impact=[{"sentence": "for 1 tenant"}], waiting=waiting
    )
    staged = await keystore.prices.stage(made, "ann")
    assert (staged.state, staged.base, staged.rows, staged.staged_by) == (ReleaseState.STAGED, None, 3, "ann")
    assert (staged.sources, staged.counts, staged.impact) == ([{"name": "file:x"}], {"added": 1}, made.impact)
    assert await keystore.prices.content(staged.number) == b"rows"
    assert await keystore.prices.waiting(staged.number) == waiting[::-1]
    assert await keystore.prices.live() is None
    done = await keystore.prices.approve(staged.number, "bob", version="v1")
    assert (done.state, done.decided_by, done.decided_at) == (ReleaseState.LIVE, "bob", world.clock())
    assert await keystore.prices.live() == done == await keystore.prices.get(staged.number)


async def test_newer_release_takes_the_place_of_what_is_staged(keystore: Keystore) -> None:
    one = await keystore.prices.stage(new(), "ann")
    two = await keystore.prices.stage(new(), "bob")
    states = {release.number: release.state for release in await keystore.prices.recent()}
    assert states == {one.number: ReleaseState.SUPERSEDED, two.number: ReleaseState.STAGED}
    with pytest.raises(PriceConflict, match=f"price release {one.number} is superseded by bob"):
        await keystore.prices.approve(one.number, "ann", version="v")
    with pytest.raises(PriceConflict, match="was never live"):
        await keystore.prices.roll_back(one.number, "ann", version="v")


async def test_of_two_operators_at_once_one_wins_and_the_other_is_told(world: World) -> None:
    ann, bob = [await world.open() for _ in range(2)]
    try:
        staged = await ann.prices.stage(new(), "rule")
        deciding = [
            keystore.prices.approve(staged.number, who, version="v1") for keystore, who in ((ann, "ann"), (bob, "bob"))
        ]
        results = await asyncio.gather(*deciding, return_exceptions=True)
        (won,) = [one for one in results if isinstance(one, Release)]
        (lost,) = [one for one in results if isinstance(one, PriceConflict)]
        assert str(lost) == (
            f"price release {staged.number} is live by {won.decided_by}; only one that is staged can be decided"
        )
        assert [period.by for period in await ann.prices.periods()] == [won.decided_by]
    finally:
        for keystore in (ann, bob):
            await keystore.close()


async def test_what_was_compared_with_something_else_does_not_go_live(keystore: Keystore) -> None:
    one = await live(keystore)
    with pytest.raises(PriceConflict, match="is live, and this was compared with the bundled map; refresh again"):
        await keystore.prices.stage(new(None), "ann")
    staged = await keystore.prices.stage(new(one.number), "ann")
    await keystore.prices.roll_back(None, "bob", version="bundled")
    with pytest.raises(PriceConflict):
        await keystore.prices.approve(staged.number, "ann", version="v")
    assert await keystore.prices.live() is None


async def test_database_itself_refuses_two_live_releases(keystore: Keystore, world: World) -> None:
    await live(keystore)
    other = await keystore.prices.refuse("e" * 64, [], "it holds no model", "rule")
    with pytest.raises(IntegrityError):
        await world.sql(
            "UPDATE wardgate_price_releases SET content = :c, state = 'live' WHERE number = :n", c=b"x", n=other.number
        )


async def test_refused_list_is_noted_once(keystore: Keystore) -> None:
    one = await keystore.prices.refuse("e" * 64, [{"name": "x"}], "it holds no model", "rule")
    assert (one.state, one.note, one.rows) == (ReleaseState.REFUSED, "it holds no model", 0)
    assert await keystore.prices.refuse("e" * 64, [], "it holds no model", "rule") == one
    assert (await keystore.prices.refuse("f" * 64, [], "it holds no model", "rule")).number > one.number
    for ask in (keystore.prices.content(one.number), keystore.prices.get(10**9)):
        with pytest.raises(PriceReleaseUnknown):
            await ask
    with pytest.raises(PriceConflict, match="only one that was live"):
        await keystore.prices.roll_back(one.number, "ann", version="v")


async def test_rejected_release_stays_rejected(keystore: Keystore) -> None:
    staged = await keystore.prices.stage(new(), "ann")
    rejected = await keystore.prices.reject(staged.number, "bob")
    assert (rejected.state, rejected.note) == (ReleaseState.REFUSED, "rejected by bob")
    for decide in (
        keystore.prices.reject(staged.number, "ann"),
        keystore.prices.approve(staged.number, "a", version="v"),
    ):
        with pytest.raises(PriceConflict, match="is refused by bob"):
            await decide
    assert [one.number for one in await keystore.prices.alike("d" * 64, None)] == [staged.number]
    assert await keystore.prices.alike("d" * 64, 5) == []


async def test_what_was_live_when(keystore: Keystore, world: World) -> None:
    began = world.clock()
    world.clock.advance(hours=1)
    one = await live(keystore)
    world.clock.advance(hours=1)
    two = await live(keystore, one.number)
    world.clock.advance(hours=1)
    await keystore.prices.roll_back(one.number, "bob", version=f"v{one.number}")
    hours = [await keystore.prices.as_of(began + timedelta(hours=hour)) for hour in (0, 0.99, 1, 1.99, 2, 3, 1000)]
    told = [period and (period.number, period.cause) for period in hours]
    first, second = (one.number, Cause.APPROVED), (two.number, Cause.APPROVED)
    assert told == [None, None, first, first, second, (one.number, Cause.ROLLED_BACK), (one.number, Cause.ROLLED_BACK)]
    states = {release.number: release.state for release in await keystore.prices.recent()}
    assert states == {one.number: ReleaseState.LIVE, two.number: ReleaseState.ROLLED_BACK}


async def test_clock_of_another_machine_that_is_behind_turns_no_time_round(keystore: Keystore, world: World) -> None:
    one = await live(keystore)
    world.clock.advance(hours=-1)
    two = await live(keystore, one.number)
    periods = await keystore.prices.periods()
    assert [period.number for period in periods] == [two.number, one.number]
    assert periods[0].since == periods[1].since
    at = await keystore.prices.as_of(periods[0].since)
    assert at and at.number == two.number


async def test_rows_are_let_in_by_a_new_release(keystore: Keystore) -> None:
    one = await keystore.prices.stage(new(waiting=[WaitingRow("a", "jumped", "went", "{}")]), "ann")
    with pytest.raises(PriceRowUnknown, match="no row 'b' waits"):
        await keystore.prices.stage(new(of=one.number, approves=["b"]), "ann")
    assert (await keystore.prices.get(one.number)).state is ReleaseState.STAGED  # nothing of it was done
    await keystore.prices.stage(new(of=one.number, approves=["a"]), "ann")
    (row,) = await keystore.prices.waiting(one.number)
    assert (row.decision, row.decided_by) == ("approved", "ann")


async def test_release_has_a_size(keystore: Keystore) -> None:
    large = b"x" * (price_releases.MOST_BYTES + 1)
    with pytest.raises(PriceReleaseError, match="may have"):
        await keystore.prices.stage(new(content=large), "ann")
    with pytest.raises(PriceReleaseError, match="may have"):
        good = GoodContent(large, "d", None, None)
        await keystore.price_sources.note("s", "file:x", keystore._now(), good=good)


async def test_source_keeps_its_last_good_content(keystore: Keystore, world: World) -> None:
    due = world.clock() + timedelta(hours=24)
    assert await keystore.price_sources.of(["s"]) == {} and await keystore.price_sources.content("s") is None
    await keystore.price_sources.note("s", "file:x", due, good=GoodContent(b"list", "d1", '"tag"', "yesterday"))
    await keystore.price_sources.note("s", "file:x", due, error="it broke off")
    state = (await keystore.price_sources.of(["s"]))["s"]
    assert (state.digest, state.etag, state.last_modified, state.error) == ("d1", '"tag"', "yesterday", "it broke off")
    assert await keystore.price_sources.content("s") == b"list"
    await keystore.price_sources.note("s", "file:x", due)
    assert (await keystore.price_sources.of(["s"]))["s"].error == ""


async def test_lease_is_held_by_one(world: World) -> None:
    one, two = [await world.open() for _ in range(2)]
    try:
        assert sorted(await asyncio.gather(one.leases.take("x", LEASE_S), two.leases.take("x", LEASE_S))) == [
            False,
            True,
        ]
        holder, other = (one, two) if await one.leases.take("x", LEASE_S) else (two, one)
        assert await holder.leases.take("x", LEASE_S)  # it may take it again
        await other.leases.give_back("x")  # what is another's is not given back
        assert not await other.leases.take("x", LEASE_S) and await other.leases.take("y", LEASE_S)
        await holder.leases.give_back("x")
        assert await other.leases.take("x", LEASE_S)
        world.clock.advance(minutes=2)
        assert await holder.leases.take("x", LEASE_S)
    finally:
        for keystore in (one, two):
            await keystore.close()


async def test_every_process_hears_of_a_decision(world: World) -> None:
    one, two = [await world.open() for _ in range(2)]
    heard = asyncio.Event()
    try:
        await two.begin_serving()
        two.watch_prices(heard.set)
        await one.prices.stage(new(), "ann")
        two.hear()
        assert not heard.is_set()
        await one.prices.approve((await one.prices.recent())[0].number, "ann", version="v")
        async with asyncio.timeout(2):
            while not heard.is_set():
                two.hear()
                await asyncio.sleep(0.01)
    finally:
        for keystore in (one, two):
            await keystore.close()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from keystore.keystore import Keystore, SealingSource
from keystore.price_releases import NewRelease
from keystore.providers import load_registry

async def main():
    keystore = await Keystore.open(database_url=sys.argv[1], sealing=SealingSource(None, Path(sys.argv[2])),
                                   registry=load_registry(), known_plans=["team"], create=True)
    await keystore.prices.stage(NewRelease(b"rows", "d" * 64, 3, None, "bundled"), "ann")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_process_killed_between_staging_and_approval_leaves_it_staged(world: World) -> None:
    command = [sys.executable, "-c", KILLED, world.url, str(world.ring)]
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, env=dict(os.environ), check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    keystore = await world.open(sealing=SealingSource(None, world.ring))
    try:
        assert await keystore.prices.live() is None
        (staged,) = await keystore.prices.recent()
        assert staged.state is ReleaseState.STAGED
        assert (await keystore.prices.approve(staged.number, "bob", version="v")).state is ReleaseState.LIVE
    finally:
        await keystore.close()
