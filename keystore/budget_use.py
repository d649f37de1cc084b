"""What processes hold of budgets for calls that run: leased in slices, given back, returned when a process dies.

Owns the statements on `budget_holds` and `budget_holders`, and `held_nano` of `budget_use`, which is always the sum of
the holds. A budget's row there is the lock of its holds: every transaction takes these rows first, in the order of
their keys. Money is whole nano-dollars. Must not know what a holder does with what it holds, nor ledger rows.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Row, Table, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.budgets import Budget, Period
from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import KeystoreError
from keystore.money_tables import budget_holders, budget_holds, budget_use

FAIR: Final = 8  # a lease takes at most this part of what is left, so that other processes find something too
WANTED: Final = timedelta(minutes=1)  # for how long a budget that was too small for somebody counts as wanted
_AT_ONCE: Final = 1_000  # slots in one statement
_GIVEN_BACK: Final = 200  # slots in one transaction: somebody may wait for one of them, and on SQLite everybody does


class Slot(NamedTuple):
    """A budget in one of its periods."""

    budget_key: str
    starts: date


class Ask(NamedTuple):
    """What a process asks of a budget: at least `need`, better `want`; `back` is what it gives back before."""

    slot: Slot
    limit: int  # the budget's amount, as the process knows it
    need: int
    want: int
    back: int = 0


class Short(NamedTuple):
    """A budget has not enough left. `mine` is what the asking process holds of `held`."""

    slot: Slot
    spent: int
    held: int
    mine: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """How a budget stands: in nano-dollars what is spent, and what is held for calls that run or may."""

    budget: Budget
    starts: date
    resets_at: datetime
    spent_nano: int
    held_nano: int


class HolderGone(KeystoreError):
    """This holder was taken for dead, and what it held was returned; or the database was restored from an older copy,
    and knows less of what it holds."""


def share(left: int, need: int, want: int) -> int:
    """How much of what is left a lease takes: what is wanted, but only a fair part, and what is needed at least."""
    return max(need, min(want, left // FAIR))


class BudgetUse:
    """Leases and returns; each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now

    # --- leases --------------------------------------------------------------------------------------------------

    async def lease(self, holder: str, asks: Sequence[Ask]) -> dict[Slot, int] | Short:
        """What the holder got of each, all or nothing; what it gives back is given back either way. Raises
        HolderGone."""
        async with self._changing(holder) as connection:
            got: dict[Slot, int] = {}
            for ask in sorted(asks):
                row = await _locked(connection, ask.slot)
                left = ask.limit - row.spent_nano - row.held_nano + ask.back
                if left < ask.need:
                    short = await self._found_short(connection, holder, ask, row)
                    await _change_holds(connection, holder, _returned(asks))
                    return short
                got[ask.slot] = share(left, ask.need, ask.want)
            changes = {ask.slot: got[ask.slot] - ask.back for ask in asks}
            limits = {ask.slot: ask.limit for ask in asks}
            await _change_holds(connection, holder, changes, limits)
        return got

    async def _found_short(self, connection: AsyncConnection, holder: str, ask: Ask, row: Row[Any]) -> Short:
        """Note that the budget is wanted: other processes then give back what they do not use."""
        await connection.execute(update(budget_use).where(*_at(budget_use, ask.slot)).values(wanted_at=self._now()))
        of_mine = (budget_holds.c.holder == holder, *_at(budget_holds, ask.slot))
        mine = (await connection.execute(select(budget_holds.c.amount_nano).where(*of_mine))).scalar() or 0
        return Short(ask.slot, row.spent_nano, row.held_nano - ask.back, mine - ask.back)

    async def give_back(self, holder: str, amounts: Mapping[Slot, int]) -> None:
        """Hold so much less of each, in several transactions where there are many. Raises HolderGone."""
        for part in _parts(sorted(amounts), _GIVEN_BACK):
            async with self._changing(holder) as connection:
                await _change_all(connection, holder, {slot: -amounts[slot] for slot in part})

    @asynccontextmanager
    async def _changing(self, holder: str) -> AsyncIterator[AsyncConnection]:
        """A transaction in which a holder holds less or more, and never less than nothing."""
        try:
            async with self._database.write(told=False) as connection:
                await _hold_holder(connection, holder)
                yield connection
                owes = (budget_holds.c.holder == holder, budget_holds.c.amount_nano < 0)
                if (await connection.execute(select(budget_holds.c.holder).where(*owes).limit(1))).first():
                    raise HolderGone
        except IntegrityError as error:  # less is held than is given back
            raise HolderGone from error

    # --- holders -------------------------------------------------------------------------------------------------

    async def join(self, holder: str, holds: Mapping[Slot, int]) -> None:
        """A new holder, which holds this whatever is left: calls run for it already."""
        async with self._database.write(told=False) as connection:
            new = insert_into(connection, budget_holders).values(holder=holder, seen_at=self._now())
            await connection.execute(new)
            await _change_all(connection, holder, holds)

    async def renew(self, holder: str) -> bool:
        """Say that the holder lives; False when it was taken for dead already."""
        async with self._database.write(told=False) as connection:
            seen = update(budget_holders).where(budget_holders.c.holder == holder).values(seen_at=self._now())
            lives = bool((await connection.execute(seen)).rowcount)
            await _forget_empty(connection, holder)
        return lives

    async def holders(self) -> dict[str, datetime]:
        """Every holder, and when it last said that it lives, by its own clock."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(budget_holders.c.holder, budget_holders.c.seen_at))
            return {row.holder: row.seen_at for row in rows}

    async def bury(self, holder: str, seen_at: datetime) -> bool:
        """Return all that a holder holds, unless it was seen since; whether it was buried."""
        async with self._database.write(told=False) as connection:
            same = (budget_holders.c.holder == holder, budget_holders.c.seen_at == seen_at)
            if not (await connection.execute(delete(budget_holders).where(*same))).rowcount:
                return False
            await release(connection, holder)
        return True

    async def leave(self, holder: str) -> None:
        """The holder stops. What it still holds, for rows that are in its journal alone, is returned when they are
        written, or when it is buried."""
        async with self._database.write(told=False) as connection:
            more = (budget_holds.c.holder == holder, budget_holds.c.amount_nano > 0)
            if (await connection.execute(select(budget_holds.c.holder).where(*more).limit(1))).first() is None:
                await connection.execute(delete(budget_holds).where(budget_holds.c.holder == holder))
                await connection.execute(delete(budget_holders).where(budget_holders.c.holder == holder))

    async def ping(self) -> None:
        """One round trip."""
        await self._database.ping()

    # --- looking -------------------------------------------------------------------------------------------------

    async def wanted(self) -> set[Slot]:
        """The budgets that were too small for somebody lately."""
        lately = select(budget_use.c.budget_key, budget_use.c.starts).where(
            budget_use.c.wanted_at > self._now() - WANTED
        )
        async with self._database.read() as connection:
            return {Slot(row.budget_key, row.starts) for row in await connection.execute(lately)}

    async def states(self, of: Iterable[Budget], at: datetime) -> list[BudgetState]:
        """How these budgets stand in their periods at this time, in the same order."""
        listed = list(of)
        slots = [Slot(each.key, each.starts(at)) for each in listed]
        async with self._database.read() as connection:
            found = await rows_of(connection, slots)
        states = []
        for budget, slot in zip(listed, slots, strict=True):
            row = found.get(slot)
            spent, held = (row.spent_nano, row.held_nano) if row else (0, 0)
            states.append(BudgetState(budget, slot.starts, budget.resets_at(at), spent, held))
        return states

    async def filled(self, at: datetime) -> dict[int, int]:
        """How many budgets have reached which threshold, the highest of each, in their periods at this time."""
        now = [
            (budget_use.c.starts == period.starts(at)) & budget_use.c.budget_key.like(f"%:{period.value}")
            for period in Period
        ]
        counted = select(budget_use.c.told, func.count()).where(budget_use.c.told > 0, or_(*now))
        async with self._database.read() as connection:
            found = await connection.execute(counted.group_by(budget_use.c.told))
            return {row.told: row[1] for row in found}


# --- statements ------------------------------------------------------------------------------------------------------


async def release(connection: AsyncConnection, holder: str) -> None:
    """Return all that a holder holds, in the caller's transaction."""
    mine = select(budget_holds.c.budget_key, budget_holds.c.starts).where(budget_holds.c.holder == holder)
    await _lock_all(connection, [Slot(row.budget_key, row.starts) for row in await connection.execute(mine)])
    held = select(budget_holds).where(budget_holds.c.holder == holder)
    changes = {Slot(row.budget_key, row.starts): -row.amount_nano for row in await connection.execute(held)}
    await _change_all(connection, holder, changes)
    await connection.execute(delete(budget_holds).where(budget_holds.c.holder == holder))


async def rows_of(connection: AsyncConnection, slots: Collection[Slot]) -> dict[Slot, Row[Any]]:
    """The rows of `budget_use` that are there."""
    found: dict[Slot, Row[Any]] = {}
    for part in _parts(sorted(slots)):
        those = tuple_(budget_use.c.budget_key, budget_use.c.starts).in_([tuple(slot) for slot in part])
        for row in await connection.execute(select(budget_use).where(those)):
            found[Slot(row.budget_key, row.starts)] = row
    return found


async def _forget_empty(connection: AsyncConnection, holder: str) -> None:
    """Holds of nothing are deleted; those that another transaction is at are left for the next time, so that this one,
    which does not hold the budgets' rows, waits for nobody."""
    empty = (budget_holds.c.holder == holder, budget_holds.c.amount_nano <= 0)
    key = tuple_(budget_holds.c.budget_key, budget_holds.c.starts)
    free = select(budget_holds.c.budget_key, budget_holds.c.starts).where(*empty).limit(_AT_ONCE)
    slots = [tuple(row) for row in await connection.execute(free.with_for_update(skip_locked=True))]
    if slots:
        await connection.execute(delete(budget_holds).where(*empty, key.in_(slots)))


async def _hold_holder(connection: AsyncConnection, holder: str) -> None:
    """The holder is not buried while this transaction lasts. HolderGone when it was."""
    mine = select(budget_holders.c.holder).where(budget_holders.c.holder == holder)
    if (await connection.execute(mine.with_for_update(read=True, key_share=True))).first() is None:
        raise HolderGone


async def _locked(connection: AsyncConnection, slot: Slot) -> Row[Any]:
    """The budget's row, made when it is not there, held until the transaction ends."""
    row = {"budget_key": slot.budget_key, "starts": slot.starts, "spent_nano": 0, "held_nano": 0, "told": 0}
    made = insert_into(connection, budget_use).values(**row)
    keys = [budget_use.c.budget_key, budget_use.c.starts]
    kept = made.on_conflict_do_update(index_elements=keys, set_={"told": budget_use.c.told})
    return (await connection.execute(kept.returning(budget_use))).one()


async def _lock_all(connection: AsyncConnection, slots: Iterable[Slot]) -> None:
    """The budgets' rows, made where they are not there, held until the transaction ends."""
    for part in _parts(sorted(slots)):
        zero = {"spent_nano": 0, "held_nano": 0, "told": 0}
        made = insert_into(connection, budget_use)
        keys = [budget_use.c.budget_key, budget_use.c.starts]
        kept = made.on_conflict_do_update(index_elements=keys, set_={"told": budget_use.c.told})
        await connection.execute(kept, [slot._asdict() | zero for slot in part])


async def _change_all(connection: AsyncConnection, holder: str, changes: Mapping[Slot, int]) -> None:
    """Hold so much more of each, or less, whatever is left: few statements, however many these are."""
    await _lock_all(connection, changes)
    mine = (budget_use.c.budget_key == bindparam("key"), budget_use.c.starts == bindparam("since"))
    held = update(budget_use).where(*mine).values(held_nano=budget_use.c.held_nano + bindparam("more"))
    made = insert_into(connection, budget_holds)
    keys = [column.name for column in budget_holds.primary_key]
    summed = {"amount_nano": budget_holds.c.amount_nano + made.excluded.amount_nano}
    for part in _parts(sorted(changes)):
        new = [slot._asdict() | {"holder": holder, "amount_nano": changes[slot]} for slot in part]
        less = [{"key": slot.budget_key, "since": slot.starts, "more": changes[slot]} for slot in part]
        await connection.execute(held, less)
        await connection.execute(made.on_conflict_do_update(index_elements=keys, set_=summed), new)


async def _change_holds(
    connection: AsyncConnection, holder: str, changes: Mapping[Slot, int], limits: Mapping[Slot, int] | None = None
) -> None:
    """Hold so much more of each, or less; the rows of the budgets are held by the caller, and so much is there. With
    `limits` a budget that would be overrun breaks the transaction, whatever was counted before."""
    for slot, more in sorted(changes.items()):
        if not more:
            continue
        where = _at(budget_use, slot)
        if limits is not None and more > 0:
            where = (*where, budget_use.c.spent_nano + budget_use.c.held_nano + more <= limits[slot])
        held = update(budget_use).where(*where).values(held_nano=budget_use.c.held_nano + more)
        if not (await connection.execute(held)).rowcount:
            raise AssertionError(f"the budget {slot.budget_key} would be overrun")
        row = {"holder": holder, "budget_key": slot.budget_key, "starts": slot.starts, "amount_nano": more}
        made = insert_into(connection, budget_holds).values(**row)
        keys = [column.name for column in budget_holds.primary_key]
        summed = {"amount_nano": budget_holds.c.amount_nano + more}
        await connection.execute(made.on_conflict_do_update(index_elements=keys, set_=summed))


def _returned(asks: Iterable[Ask]) -> dict[Slot, int]:
    return {ask.slot: -ask.back for ask in asks}


def _at(table: Table, slot: Slot) -> tuple[ColumnElement[bool], ...]:
    return (table.c.budget_key == slot.budget_key, table.c.starts == slot.starts)


def insert_into(connection: AsyncConnection, table: Table) -> Any:
    """An INSERT of the connection's dialect, which knows ON CONFLICT."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _parts(slots: Sequence[Slot], size: int = _AT_ONCE) -> Iterator[Sequence[Slot]]:
    for start in range(0, len(slots), size):
        yield slots[start : start + size]
