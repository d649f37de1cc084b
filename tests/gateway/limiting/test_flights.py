"""Who boards which flight, and who is told when one fails: the turns of the loop are set here, so no server answers."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.limiting.asks import AwayError
from gateway.limiting.limiter import Limiter
from gateway.limiting.outbox import Change, Verb
from gateway.limiting.shared import FLIGHTS, Answer, Command, SharedLimits
from tests.gateway.limiting.test_limiter import rpm, tpm
from tests.gateway.limiting.test_same_meaning import unheard


class Airport(SharedLimits):
    """Each flight lands when its gate is told to."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        super().__init__("redis://127.0.0.1:1/0", unheard, timeout_s=timeout_s)
        self.gates: list[asyncio.Future[None]] = []

    async def _run(self, commands: Sequence[Command]) -> list[bytes]:
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        return [b"1 5 0 0" for _ in commands]

    def ask(self, holder: str) -> asyncio.Task[Answer]:
        return asyncio.ensure_future(self.admit([rpm(6)], holder))

    async def in_the_air(self, count: int) -> list[asyncio.Task[Answer]]:
        """So many more flights, each with one aboard."""
        tasks = []
        for number in range(count):
            known = len(self.gates)
            tasks.append(self.ask(f"f{number}"))
            while len(self.gates) == known:
                await asyncio.sleep(0)
        return tasks


async def test_who_comes_while_all_flights_land_at_once_has_a_flight() -> None:
    shared = Airport()
    aboard = await shared.in_the_air(FLIGHTS)
    for gate in shared.gates:
        gate.set_result(None)
    next_one = shared.ask("next")
    await asyncio.wait(aboard)
    async with asyncio.timeout(5):
        while len(shared.gates) == FLIGHTS:
            await asyncio.sleep(0)
    shared.gates[-1].set_result(None)
    assert (await next_one)[0]
    assert (shared._flights, shared._late) == (set(), set())


async def test_flight_that_was_given_up_fails_nobody_who_came_later() -> None:
    shared = Airport(timeout_s=0.5)
    (given_up,) = await shared.in_the_air(1)
    await asyncio.wait({given_up})
    assert isinstance(given_up.exception(), AwayError)
    aboard = await shared.in_the_air(FLIGHTS)
    waiting = shared.ask("waiting")
    await asyncio.sleep(0)
    shared.gates[0].set_exception(ConnectionResetError())
    while shared._late:
        await asyncio.sleep(0)
    for gate in shared.gates[1:]:
        gate.set_result(None)
    async with asyncio.timeout(5):
        while len(shared.gates) < 2 + FLIGHTS:
            await asyncio.sleep(0)
    shared.gates[-1].set_result(None)
    assert [(await each)[0] for each in (*aboard, waiting)] == [True] * (FLIGHTS + 1)


@pytest.mark.parametrize("boarded", [False, True], ids=["not sent", "sent"])
async def test_credit_that_travels_with_who_leaves_is_lost_only_where_it_may_have_been_told(boarded: bool) -> None:
    shared = Airport()
    limiter = Limiter(lambda unheard: shared)
    used = asyncio.ensure_future(limiter.admit([tpm(1_000, 900)]))
    while not shared.gates:
        await asyncio.sleep(0)
    shared.gates[0].set_result(None)
    ticket = (await used).ticket
    assert ticket is not None
    limiter.settle(ticket, 100)
    aboard = [] if boarded else await shared.in_the_air(FLIGHTS)
    leaving = asyncio.ensure_future(limiter.admit([tpm(1_000, 10)]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(shared.gates) == 2 if boarded else 1 + FLIGHTS
    leaving.cancel()
    await asyncio.wait({leaving})
    assert limiter._outbox.take() == ([] if boarded else [Change(Verb.FORCE, ticket.asks[0], -800)])
    for gate in shared.gates[1:]:
        gate.set_result(None)
    await asyncio.gather(*aboard)
