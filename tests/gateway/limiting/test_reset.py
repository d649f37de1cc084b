"""Idle connections to Valkey are reset, as balancers do, under the event loop that `wardgate serve` has: uvloop closes
the transport, and the client's next write raises what is no error of Redis."""

import asyncio
from collections.abc import Coroutine

import pytest
import uvloop

from gateway.limiting.asks import AwayError
from gateway.limiting.breaker import State
from gateway.limiting.limiter import Limiter
from gateway.limiting.outbox import Change, Verb
from gateway.limiting.shared import FLIGHTS, SharedLimits
from tests.gateway.limiting.link import link_to
from tests.gateway.limiting.test_limiter import rpm
from tests.gateway.limiting.test_same_meaning import unheard

LIMIT = 60
AT_ONCE = 3 * FLIGHTS


def in_uvloop(story: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(story, 20))


def test_who_is_aboard_a_reset_connection_is_told_in_time(fresh_redis: str) -> None:
    async def story() -> None:
        async with link_to(fresh_redis) as link:
            shared = SharedLimits(link.url, unheard)
            await shared.warm()
            await link.reset()
            asked = (shared.admit([rpm(LIMIT)], str(number)) for number in range(AT_ONCE))
            answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 1)
            assert any(isinstance(each, AwayError) for each in answers), "else nothing was reset"
            assert all(isinstance(each, AwayError | tuple) for each in answers), answers
            assert (await shared.admit([rpm(LIMIT)], "after"))[0]
            await shared.close()

    in_uvloop(story())


def test_what_is_told_behind_fails_as_redis_that_is_away_does(fresh_redis: str) -> None:
    async def story() -> None:
        async with link_to(fresh_redis) as link:
            shared = SharedLimits(link.url, unheard)
            changes = [Change(Verb.FORCE, rpm(LIMIT), 1)]
            for work in (
                lambda: shared.apply(changes),
                lambda: shared.epoch("x"),
                lambda: shared.exchange("a", ""),
                shared.warm,
            ):
                await shared.epoch("x")
                await link.reset()
                with pytest.raises(AwayError) as caught:
                    await work()
                assert not caught.value.late, "nothing was sent"
            await shared.close()

    in_uvloop(story())


def test_share_decides_for_who_was_aboard_and_the_next_rounds_find_redis_again(fresh_redis: str) -> None:
    async def story() -> None:
        async with link_to(fresh_redis) as link:
            alone: list[bool] = []
            limiter = Limiter(
                lambda unheard: SharedLimits(link.url, unheard), replicas=lambda: 2, decided_alone=alone.append
            )
            await limiter.tend()
            await link.reset()
            verdicts = await asyncio.wait_for(asyncio.gather(*(limiter.admit([rpm(LIMIT)]) for _ in range(AT_ONCE))), 1)
            assert [each.admitted for each in verdicts] == alone == [True] * AT_ONCE
            await limiter.tend()
            await link.reset()
            limiter._tell_at = 0
            await limiter.tend()
            failed = limiter._in_doubt
            await limiter.tend()
            assert (failed, limiter._in_doubt, limiter.state) == (True, False, State.CLOSED)
            assert (await limiter.admit([rpm(LIMIT)])).standings[0].remaining <= LIMIT - AT_ONCE - 1, "told afterwards"
            await limiter.close()

    in_uvloop(story())
