"""The task that keeps a process's hold on budgets does not end while the process lives."""

import asyncio
from typing import Any, cast

from gateway.budgeting.holder import Holder
from gateway.budgeting.tending import tend_budgets
from gateway.logs import EventLogger
from tests.keystore.conftest import World


class Odd(Holder):
    """Fails as nobody thought of, and then no more."""

    tended = 0

    async def tend(self) -> None:
        self.tended += 1
        if self.tended == 1:
            raise AssertionError("with a secret")
        await super().tend()


class Heard:
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})


async def test_error_that_nobody_thought_of_is_told_and_tending_goes_on(world: World) -> None:
    keystore, log = await world.open(), Heard()
    holder = Odd(keystore.budget_use)
    task = asyncio.create_task(tend_budgets(holder, keystore, cast("EventLogger", log), every_s=0.01))
    async with asyncio.timeout(20):
        while not await keystore.budget_use.holders():
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    await keystore.close()
    assert log.said == [{"event": "budgets.not_tended", "why": "AssertionError"}]
