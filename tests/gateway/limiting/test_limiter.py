"""The limiter of one process without Redis: all or nothing, settling, leases."""

import asyncio

from gateway.limiting.asks import Ask, Verdict, at_once, requests_a_minute, tokens_a_minute
from gateway.limiting.limiter import Limiter


class Clock:
    """Seconds, as the test sets them."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def rpm(limit: int, who: str = "a") -> Ask:
    return requests_a_minute("tenant", who, who, limit)


def tpm(limit: int, estimate: int, who: str = "a") -> Ask:
    return tokens_a_minute("tenant", who, who, limit, estimate)


def conc(limit: int, who: str = "a") -> Ask:
    return at_once("tenant", who, who, limit)


async def admitted(limiter: Limiter, times: int, *asks: Ask) -> list[Verdict]:
    verdicts = [await limiter.admit(asks) for _ in range(times)]
    return [each for each in verdicts if each.admitted]


async def test_whole_minute_is_admitted_at_once_and_one_more_when_its_wait_is_over() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock)
    assert len(await admitted(limiter, 20, rpm(7))) == 7
    refusal = await limiter.admit([rpm(7)])
    assert refusal.retry_ms == 8_572  # 60,000 / 7, rounded up
    clock.now += 8.571
    assert not (await limiter.admit([rpm(7)])).admitted
    clock.now += 0.001
    assert len(await admitted(limiter, 2, rpm(7))) == 1


async def test_nothing_is_taken_when_one_of_several_refuses() -> None:
    limiter = Limiter(clock=Clock())
    await admitted(limiter, 5, rpm(100), tpm(50, 10), conc(9))
    refusal = await limiter.admit([rpm(100), tpm(50, 10), conc(9)])
    assert refusal.refused is not None
    assert (refusal.refused.ask.key, refusal.retry_ms) == ("tpm:tenant:a", 12_000)
    after = await limiter.admit([rpm(100), conc(9)])
    assert [each.remaining for each in after.standings] == [94, 3]


async def test_tokens_are_credited_or_debited_when_the_truth_is_known() -> None:
    limiter = Limiter(clock=Clock())
    first, second = [await limiter.admit([tpm(100, 50)]) for _ in range(2)]
    assert first.ticket is not None
    assert second.ticket is not None
    limiter.settle(first.ticket, 10)
    limiter.settle(first.ticket, 10)  # once
    assert (await limiter.admit([tpm(100, 40)])).standings[0].remaining == 0
    limiter.settle(second.ticket, 150)  # a debt of 100: a minute more
    assert (await limiter.admit([tpm(100, 1)])).retry_ms == 60_600


async def test_request_that_is_larger_than_the_limit_is_told_that_no_wait_helps() -> None:
    refusal = await Limiter(clock=Clock()).admit([tpm(100, 101), rpm(0)])
    assert (refusal.admitted, refusal.retry_ms) == (False, None)


async def test_lease_is_given_back_when_settled_and_by_itself_when_nobody_keeps_it() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock)
    first = (await admitted(limiter, 3, conc(2)))[0]
    assert first.ticket is not None
    limiter.settle(first.ticket)
    assert len(await admitted(limiter, 2, conc(2))) == 1
    clock.now += 60
    assert len(await admitted(limiter, 3, conc(2))) == 2


async def test_lease_is_kept_for_as_long_as_its_request_runs() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock)
    await admitted(limiter, 1, conc(1))
    for _ in range(20):
        clock.now += 20
        await limiter.tend()
    assert await admitted(limiter, 1, conc(1)) == []


async def test_share_of_several_processes_is_the_limit_divided() -> None:
    clock = Clock()
    limiters = [Limiter(clock=clock, replicas=lambda: 4) for _ in range(4)]
    burst = sum([len(await admitted(each, 50, rpm(103), conc(10_000))) for each in limiters])
    assert burst == 100  # whole requests of 25.75 each
    clock.now += 60
    assert sum([len(await admitted(each, 500, rpm(103))) for each in limiters]) <= 103


async def test_keys_are_forgotten_when_they_are_full_again() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock)
    for number in range(1_000):
        await limiter.admit([rpm(60, f"tenant{number}"), tpm(600, 5, f"tenant{number}"), conc(2, f"tenant{number}")])
    assert len(limiter._local) == 3_000
    clock.now += 60
    local = limiter._local
    for _ in range(3):
        local.forget(int(clock() * 1000))
    assert len(local) == 0


async def test_nothing_asked_is_admitted_and_settled() -> None:
    limiter = Limiter()
    verdict = await limiter.admit([])
    assert verdict.ticket is not None
    limiter.settle(verdict.ticket, 5)


async def test_run_ends_when_it_is_cancelled() -> None:
    limiter = Limiter()
    task = asyncio.create_task(limiter.run())
    await asyncio.sleep(0)
    task.cancel()
    assert await asyncio.gather(task, return_exceptions=True)
    await limiter.close()


async def test_round_that_fails_is_said_once_and_the_next_goes_on() -> None:
    """Whatever it is: leases are kept by nobody else."""
    rounds, errors = 0, list[Exception]()

    def clock() -> float:
        nonlocal rounds
        rounds += 1
        if rounds < 4:
            raise ZeroDivisionError
        return 1_000.0

    limiter = Limiter(clock=clock, round_failed=errors.append)
    task = asyncio.create_task(limiter.run())
    async with asyncio.timeout(10):
        while rounds < 8 and not task.done():
            limiter._wake.set()
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), [type(each) for each in errors]) == (True, [ZeroDivisionError])
