"""Whatever processes do, and whenever they die or lose the database: no hard budget is overrun, and nothing is lost."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.budgeting.burying import Burying
from gateway.budgeting.holder import Holder, Reservation
from keystore.budgets import Budget
from keystore.errors import DatabaseUnavailable
from keystore.ledger_row import LedgerRow
from tests.gateway.budgeting.conftest import Process, ShakyUse, Town, managed, row

PROCESSES = 3
EXAMPLES = int(os.environ.get("WARDGATE_BUDGET_TALES", "6"))
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a tale takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Step = tuple[str, int, int]  # what, which process, how much
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve"] * 4 + ["burst", "settle", "settle", "settle", "ship", "ship", "tend", "wait"]),
        st.integers(0, PROCESSES - 1),
        st.integers(1, 400),
    ),
    max_size=30,
)
TROUBLE = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "burst", "settle", "ship", "tend", "wait", "die", "lost", "unheard"]),
        st.integers(0, PROCESSES - 1),
        st.integers(1, 400),
    ),
    max_size=30,
)


@dataclass
class Tale:
    """What was asked of some processes, and what is true of it."""

    town: Town
    budgets: tuple[Budget, ...]
    tenant: str
    living: list[Process] = field(default_factory=list)
    uses: list[ShakyUse] = field(default_factory=list)
    calls: list[tuple[Process, Reservation]] = field(default_factory=list)
    orphans: list[list[LedgerRow]] = field(default_factory=list)
    costs: int = 0  # of all rows that there are, written or not

    @property
    def running(self) -> int:
        return sum(reservation.most_nano for _, reservation in self.calls)

    def add(self) -> Process:
        made = self.town.process(len(self.living))
        use = ShakyUse(made.database, now=self.town.world.clock)
        clock = self.town.ticks
        made.holder, made.burying = Holder(use, clock=clock, pause=clock.pause), Burying(use, clock)
        self.living.append(made)
        self.uses.append(use)
        return made

    async def step(self, what: str, which: int, nano: int) -> None:
        process = self.living[which]
        if what == "reserve":
            self.note(process, await self.town.reserve(process, nano, *self.budgets))
        elif what == "burst":
            found = await asyncio.gather(*(self.town.reserve(each, nano, *self.budgets) for each in self.living * 2))
            for each, reservation in zip(self.living * 2, found, strict=True):
                self.note(each, reservation)
        elif what == "settle" and self.calls:
            self.settle(*self.calls.pop(nano % len(self.calls)), nano)
        elif what == "ship":
            await self.town.ship(process.journal)
        elif what == "tend":
            await self.tend(seconds=1)
        elif what == "wait":
            for _ in range(5):
                await self.tend(seconds=5)
        elif what == "die":
            self.die(which)
        elif what in ("lost", "unheard"):
            self.uses[which].failing = what

    def note(self, process: Process, found: object) -> None:
        if isinstance(found, Reservation):
            self.calls.append((process, found))

    def settle(self, process: Process, reservation: Reservation, nano: int) -> None:
        cost = min(nano, reservation.most_nano)
        self.town.settle(process, reservation, cost, tenant_id=self.tenant)
        self.costs += cost

    def die(self, which: int) -> None:
        """Its journal is found by somebody; of the calls that ran nobody knows, and they are booked at the most."""
        process = self.living[which]
        lost = [reservation.most_nano for each, reservation in self.calls if each is process]
        self.calls = [(each, reservation) for each, reservation in self.calls if each is not process]
        at = self.town.world.clock()
        rows = [row(next(self.town.numbers), at, most, tenant_id=self.tenant) for most in lost]
        self.costs += sum(lost)
        self.orphans.append(process.journal + rows)
        del self.living[which], self.uses[which]
        self.add()

    async def tend(self, seconds: float) -> None:
        """A second of everybody's life; journals of the dead are found before they are buried."""
        while self.orphans:
            await self.town.ship(self.orphans.pop())
        self.town.ticks.advance(seconds)
        for process in self.living:
            for work in (process.holder.tend, process.burying.tend):
                try:
                    await work()
                except DatabaseUnavailable:
                    continue

    async def check(self, *, shaky: bool) -> None:
        for budget in self.budgets:
            spent, held = await self.town.book(budget)
            assert self.costs + self.running <= budget.amount_nano, "overrun"
            rows = [each for journal in self.orphans for each in journal if not each.holds]  # nobody holds these yet
            unheld = sum(each.cost_nano or 0 for each in rows)
            assert spent + held >= self.costs + self.running - unheld, "less is counted than is spent"
            assert shaky or spent + held <= budget.amount_nano

    async def end(self) -> None:
        while self.calls:
            self.settle(*self.calls.pop(), 1)
        for process in self.living:
            await self.town.ship(process.journal)
        for _ in range(11):  # what is idle is given back, and who is dead is buried
            await self.tend(seconds=10)
        for budget in self.budgets:
            assert await self.town.book(budget) == (self.costs, 0)


async def tell(town: Town, steps: Sequence[Step], *, shaky: bool) -> None:
    tenant = await town.move_in(f"t{next(town.numbers)}")
    tale = Tale(town, (managed(3_000, tenant.id), await town.own(2_000, period="month", of=tenant)), tenant.id)
    for _ in range(PROCESSES):
        tale.add()
    for step in steps:
        await tale.step(*step)
        await tale.check(shaky=shaky)
    await tale.end()


@BOUNDED
@given(steps=STEPS)
async def test_never_overrun(town: Town, steps: list[Step]) -> None:
    await tell(town, steps, shaky=False)


@BOUNDED
@given(steps=TROUBLE)
async def test_never_overrun_in_trouble(town: Town, steps: list[Step]) -> None:
    await tell(town, steps, shaky=True)
