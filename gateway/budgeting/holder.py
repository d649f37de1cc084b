"""The budgets of a process that serves: a reservation for each call, at the most it can cost, settled to what it did.

Owns the slices that this process holds and who may take from them. A reservation needs no I/O while the slices suffice;
else one transaction leases more. What is held may be used for as long as nobody can take this process for dead; without
the database it is used up, then hard budgets refuse. Must not know what a call is, nor how a refusal is worded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from gateway.budgeting.slices import Slice
from gateway.budgeting.standing import Standing, awake_or_not
from keystore.budget_use import Ask, BudgetUse, HolderGone, Short, Slot
from keystore.budgets import Budget
from keystore.errors import DatabaseUnavailable

Result = TypeVar("Result")
Held = tuple[str, str, int]  # who holds how much of which budget for a row of the ledger: LedgerRow.holds

_ANSWER_S: Final = 5.0  # a lease that takes longer has failed
_LEASES: Final = 8  # at a time: more would only wait in the database, until they count as failed
_DRY_S: Final = 1.0  # after a refusal more than was left is not asked for so long
_PATIENT_S: Final = 30.0  # a call waits for what other processes do not use, at most once in so long
_PAUSES_S: Final = (0.25, 0.5, 0.75, 1.0)  # between its looks
_AT_A_TIME: Final = 200  # slices that are looked at without a pause: half a millisecond
_IDLE_S: Final = 30.0  # what nobody touches for so long is given back, wanted or not


class Why(StrEnum):
    """Why nothing was reserved."""

    SPENT = "spent"  # too little is left
    UNAVAILABLE = "unavailable"  # nobody can say now


@dataclass(frozen=True, slots=True)
class Refused:
    """The call must not be made. `spent_nano`, and `held_nano` for calls that run, as last seen; zero when nobody could
    say."""

    budget: Budget
    why: Why
    needed_nano: int
    spent_nano: int
    held_nano: int
    resets_at: datetime


class Reservation:
    """So much of each slice, until it is settled."""

    __slots__ = ("most_nano", "settled", "slices")

    def __init__(self, slices: Sequence[Slice], most_nano: int) -> None:
        self.slices = slices
        self.most_nano = most_nano
        self.settled = False


@dataclass(slots=True)
class Counts:
    """What happened, for metrics: these only grow."""

    leases: int = 0
    refused: int = 0
    unavailable: int = 0
    overruns: int = 0  # of a budget, by a call that cost more than was held for it
    overrun_nano: int = 0
    given_back_nano: int = 0


@dataclass(slots=True, eq=False)
class _Place:
    """A slice, and who may fill it."""

    slice: Slice
    filling: asyncio.Lock = field(default_factory=asyncio.Lock)
    dry: Short | None = None  # what the last lease was refused with
    dry_left: int = 0
    dry_until: float = float("-inf")
    patient_at: float = float("-inf")

    def dried(self, short: Short, left: int, now: float) -> None:
        """For a moment nobody asks for more than was left."""
        self.dry, self.dry_left, self.dry_until = short, left, now + _DRY_S

    def is_dry(self, lack: int, now: float) -> bool:
        """Whether so much was not left just now."""
        return now < self.dry_until and lack > self.dry_left


@dataclass(slots=True)
class _Want:
    """What a call wants of one budget: `part` is reserved already."""

    budget: Budget
    place: _Place
    part: int = 0


class Holder:
    """One process. `use` is the database, `clock` monotonic seconds, `pause` how a call waits."""

    def __init__(
        self,
        use: BudgetUse,
        *,
        clock: Callable[[], float] = awake_or_not,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._use = use
        self._clock = clock
        self._pause = pause
        self._places: dict[tuple[str, date], _Place] = {}
        self._running: set[asyncio.Task[Reservation | Refused]] = set()
        self._asking: set[asyncio.Task[Any]] = set()
        self._leasing = asyncio.Semaphore(_LEASES)
        self.standing = Standing(use, self, clock)
        self.counts = Counts()

    # --- calls ---------------------------------------------------------------------------------------------------

    def reserve_now(self, budgets: Sequence[Budget], most_nano: int, at: datetime) -> Reservation | None:
        """As `reserve`, out of what this process holds; None when that does not suffice. No I/O."""
        slices = []
        for budget in budgets:
            if not budget.hard:
                continue
            place = self._places.get((budget.key, budget.starts(at)))
            if place is None or place.slice.free < most_nano or budget.amount_nano < place.slice.limit:
                return None
            slices.append(place.slice)
        now = self._clock()
        if slices and now >= self.standing.valid_until:
            return None
        for each in slices:
            each.take(most_nano, now)
        return Reservation(slices, most_nano)

    async def reserve(self, budgets: Sequence[Budget], most_nano: int, at: datetime) -> Reservation | Refused:
        """Reserve the most that a call can cost of every hard budget among these, all or nothing; `at` (UTC) is when
        its request began, which says in which period it counts. Soft budgets never refuse. Mostly without I/O; a call
        that finds too little left may wait some two seconds for what other processes give back."""
        found = self.reserve_now(budgets, most_nano, at)
        if found is not None:
            return found
        task = asyncio.ensure_future(self._reserve_slowly(budgets, most_nano, at))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)  # who leaves meanwhile does not leave a lease that nobody knows of
        except asyncio.CancelledError:
            task.add_done_callback(self._forsaken)
            raise

    def settle(self, reservation: Reservation, actual_nano: int) -> tuple[Held, ...]:
        """A call has cost so much: the rest may be taken again. What stays held for its row of the ledger until that is
        written (LedgerRow.holds); nothing when it was settled before."""
        if reservation.settled:
            return ()
        reservation.settled = True
        held = []
        for each in reservation.slices:
            covered = each.settle(reservation.most_nano, actual_nano)
            if covered:
                held.append((self.standing.name, each.slot.budget_key, covered))
            if covered < actual_nano:
                self.counts.overruns += 1
                self.counts.overrun_nano += actual_nano - covered
        return tuple(held)

    def _forsaken(self, task: asyncio.Task[Reservation | Refused]) -> None:
        """Who wanted it has left."""
        if not task.cancelled() and task.exception() is None and isinstance(found := task.result(), Reservation):
            self.settle(found, 0)

    # --- leases --------------------------------------------------------------------------------------------------

    async def _reserve_slowly(self, budgets: Sequence[Budget], most: int, at: datetime) -> Reservation | Refused:
        hard = sorted((each for each in budgets if each.hard), key=lambda each: each.key)
        wants = [_Want(budget, self._place(budget, at)) for budget in hard]
        for want in wants:
            want.place.slice.waiting += most
        try:
            async with AsyncExitStack() as stack:
                for want in wants:
                    await stack.enter_async_context(want.place.filling)
                return self.reserve_now(budgets, most, at) or await self._fill(wants, most, at)
        finally:
            for want in wants:
                want.place.slice.waiting -= most

    def _place(self, budget: Budget, at: datetime) -> _Place:
        slot = Slot(budget.key, budget.starts(at))
        place = self._places.get(slot)
        if place is None:
            place = self._places[slot] = _Place(Slice(slot, budget.amount_nano, self._clock()))
        return place

    async def _fill(self, wants: Sequence[_Want], most: int, at: datetime) -> Reservation | Refused:
        """What is free is taken first, so that nobody takes it meanwhile; the rest is leased, or all is put back."""
        try:
            short = self._dry(wants, most) or await self._lease(wants, most)
            if short is not None and self._worth_waiting(short, wants, most):
                short = await self._wait(wants, most, short)
            if short is None:
                return Reservation([want.place.slice for want in wants], most)
            refused = self._refused(short, wants, most, at)
        except DatabaseUnavailable:
            self.counts.unavailable += 1
            want = next((each for each in wants if each.part < most), wants[0])
            resets_at = want.budget.resets_at(at)
            refused = Refused(want.budget, Why.UNAVAILABLE, most, 0, 0, resets_at)
        except BaseException:
            self._put_back(wants)
            raise
        self._put_back(wants)
        return refused

    def _put_back(self, wants: Sequence[_Want]) -> None:
        for want in wants:
            want.place.slice.put_back(want.part)
            want.part = 0

    def _dry(self, wants: Sequence[_Want], most: int) -> Short | None:
        now = self._clock()
        for want in wants:
            place = want.place
            if place.is_dry(most - place.slice.free, now):
                return place.dry
        return None

    async def _lease(self, wants: Sequence[_Want], most: int) -> Short | None:
        """One lease for all that lack something, few at a time. DatabaseUnavailable when it does not answer."""
        async with self._leasing:
            return await self._lease_now(wants, most)

    async def _lease_now(self, wants: Sequence[_Want], most: int) -> Short | None:
        while True:
            await self._in_time(self.standing.assure())
            name, asks = self.standing.name, self._asks(wants, most)
            if not asks:
                return None
            self.counts.leases += 1
            try:
                answer = await self._in_time(self._use.lease(name, asks))
            except HolderGone:
                self.standing.gone()
                continue
            if name == self.standing.name:  # else it was got for a name that is given up
                break
        if isinstance(answer, Short):
            return answer
        self._got(answer, wants, most)
        return None

    async def _in_time(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` gives, or DatabaseUnavailable when that takes too long. It is not cancelled then: a transaction
        that is cancelled half-way may keep SQLite's lock. Nothing it does later counts, since its name is given up."""
        task = asyncio.ensure_future(work)
        self._asking.add(task)
        task.add_done_callback(self._answered)
        done, _ = await asyncio.wait({task}, timeout=_ANSWER_S)
        try:
            if not done:
                raise DatabaseUnavailable("the budgets' database does not answer")
            return task.result()
        except DatabaseUnavailable:
            self.standing.doubt()
            raise

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # it was told, or nobody waits for it any more

    def _asks(self, wants: Sequence[_Want], most: int) -> list[Ask]:
        now, asks = self._clock(), []
        for want in wants:
            piece, limit = want.place.slice, want.budget.amount_nano
            if limit >= piece.limit:
                piece.limit = limit
                taken = min(piece.free, most - want.part)
                piece.take(taken, now)
                want.part += taken
            if want.part < most or limit < piece.limit:
                asks.append(piece.ask(limit, most - want.part, most))
        return asks

    def _got(self, granted: Mapping[Slot, int], wants: Sequence[_Want], most: int) -> None:
        for want in wants:
            piece = want.place.slice
            if piece.slot in granted:
                piece.got(granted[piece.slot], most - want.part)
                want.part = most
                want.place.dry_until = float("-inf")

    # --- refusals ------------------------------------------------------------------------------------------------

    def _worth_waiting(self, short: Short, wants: Sequence[_Want], most: int) -> bool:
        """Other processes hold enough, and nobody waited for them lately."""
        want, now = _of(short, wants), self._clock()
        others, left = short.held - short.mine, want.budget.amount_nano - short.spent - short.mine
        if others <= 0 or left < most - want.part or now - want.place.patient_at < _PATIENT_S:
            return False
        want.place.patient_at = now
        return True

    async def _wait(self, wants: Sequence[_Want], most: int, short: Short) -> Short | None:
        """They see that it is wanted, and give back what they do not use."""
        found: Short | None = short
        for seconds in _PAUSES_S:
            await self._pause(seconds)
            found = await self._lease(wants, most)
            if found is None:
                break
        return found

    def _refused(self, short: Short, wants: Sequence[_Want], most: int, at: datetime) -> Refused:
        want = _of(short, wants)
        budget, now = want.budget, self._clock()
        if now >= want.place.dry_until:
            want.place.dried(short, budget.amount_nano - short.spent - short.held, now)
        self.counts.refused += 1
        return Refused(budget, Why.SPENT, most, short.spent, short.held, budget.resets_at(at))

    # --- what nobody needs ---------------------------------------------------------------------------------------

    async def tend(self) -> None:
        """Every second: say that this process lives, and give back what nobody uses: at once where it is wanted, else
        after half a minute. Raises DatabaseUnavailable."""
        await self.standing.renew()
        wanted = await self._use.wanted() if self._places else set()
        slots = list(self._places)
        for start in range(0, len(slots), _AT_A_TIME):
            await self._give_back(self._not_needed(slots[start : start + _AT_A_TIME], wanted))
            await asyncio.sleep(0)  # requests go on meanwhile

    def _not_needed(self, slots: Sequence[tuple[str, date]], wanted: Collection[Slot]) -> dict[Slot, int]:
        """End the round of these slices: what is to be given back of them, before anything is awaited."""
        now, back = self._clock(), {}
        for slot in slots:
            place = self._places[slot]
            piece = place.slice
            unneeded, untouched = piece.end_round(), now - piece.touched >= _IDLE_S
            idle = piece.free if untouched else unneeded if slot in wanted else 0
            if idle > 0:
                back[piece.slot] = idle
            elif untouched and piece.empty:
                del self._places[slot]
        return back

    async def close(self) -> None:
        """Give everything back that is free. Raises DatabaseUnavailable."""
        slices = [place.slice for place in self._places.values()]
        await self._give_back({piece.slot: piece.free for piece in slices if piece.free > 0})
        await self.standing.leave()

    async def _give_back(self, amounts: Mapping[Slot, int]) -> None:
        if not amounts:
            return
        for slot, nano in amounts.items():
            self.counts.given_back_nano += self._places[slot].slice.give_up(nano)
        try:
            await self._use.give_back(self.standing.name, amounts)
        except HolderGone:
            self.standing.gone()
        except BaseException:
            self.standing.doubt()
            raise

    # --- Pledges -------------------------------------------------------------------------------------------------

    def withhold(self) -> dict[Slot, int]:
        """See Pledges."""
        return {place.slice.slot: place.slice.give_up(place.slice.free) for place in self._places.values()}

    def restore(self, free: dict[Slot, int]) -> None:
        """See Pledges."""
        for slot, nano in free.items():
            if slot in self._places:
                self._places[slot].slice.free += nano

    def reserved(self) -> dict[Slot, int]:
        """See Pledges."""
        return {place.slice.slot: place.slice.reserved for place in self._places.values() if place.slice.reserved}


def _of(short: Short, wants: Sequence[_Want]) -> _Want:
    return next(want for want in wants if want.place.slice.slot == short.slot)
