"""What rows of the ledger spend of budgets, what that returns of what was held, and the thresholds that it crosses."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from keystore.budget_spent import BudgetSpent, Crossed
from keystore.budget_use import Ask, Slot
from keystore.budgets import Budget, Spend, plan_budget
from keystore.errors import DatabaseUnavailable
from keystore.keystore import Keystore
from keystore.ledger_row import LedgerRow, State
from keystore.money import NANO, usd_of
from keystore.tenants import Tenant
from tests.keystore.conftest import START
from tests.keystore.ledgers import a_row

PLAN = plan_budget("acme", 1_000)


@pytest.fixture
async def acme(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "solo", id="acme")


def row(cost: int | None, source: str = "managed", at: datetime = START, token: str = "tok") -> LedgerRow:
    return LedgerRow(
        request_id="one",
        began_at=at,
        tenant_id="acme",
        token_id=token,
        endpoint="chat_completions",
        state=State.SETTLED,
        outcome="ok",
        key_source=source,
        cost_nano=cost,
    )


async def write(keystore: Keystore, *rows: LedgerRow, plan: int = 1_000) -> Sequence[Crossed]:
    async with keystore._database.write() as connection:
        return await BudgetSpent({"solo": plan}).settle(connection, rows)


async def spent(keystore: Keystore, budget: Budget, at: datetime = START) -> int:
    return (await keystore.budget_use.states([budget], at))[0].spent_nano


async def test_row_counts_in_the_budgets_of_its_tenant_its_token_and_its_plan(keystore: Keystore, acme: Tenant) -> None:
    token = (await keystore.tokens.create(acme)).id
    month = await keystore.budgets.set(acme, "month", "managed", Decimal(1))
    of_token = await keystore.budgets.set(acme, "day", "managed", Decimal(1), token_id=token)
    byok = await keystore.budgets.set(acme, "day", "byok", Decimal(1))
    await write(keystore, row(5, token=token), row(7), row(100, "byok"), row(None, "byok"), row(0))
    assert [await spent(keystore, each) for each in (PLAN, month, of_token, byok)] == [12, 12, 5, 100]


async def test_what_no_column_holds_is_spent_at_the_most(keystore: Keystore, acme: Tenant) -> None:
    byok = await keystore.budgets.set(acme, "day", "byok", Decimal(1))
    await write(keystore, *[row(2**62, "byok")] * 3)
    await write(keystore, row(2**62, "byok"), row(1))
    assert (await spent(keystore, byok), await spent(keystore, PLAN)) == (2**63 - 1, 1)


async def test_attempts_with_keys_of_both_kinds(keystore: Keystore, acme: Tenant) -> None:
    byok = await keystore.budgets.set(acme, "day", "byok", Decimal(1))
    await write(keystore, replace(row(100, "byok"), managed_nano=30))
    assert (await spent(keystore, PLAN), await spent(keystore, byok)) == (30, 70)


async def test_what_nobody_can_price_counts_at_what_was_held(keystore: Keystore, acme: Tenant) -> None:
    byok = await keystore.budgets.set(acme, "day", "byok", Decimal(1))
    unpriced = replace(row(None), managed_nano=30)
    await write(keystore, unpriced, replace(unpriced, request_id="req_" + "9" * 32, managed_nano=0, byok_nano=70))
    assert (await spent(keystore, PLAN), await spent(keystore, byok)) == (30, 70)


async def test_row_counts_in_the_period_that_it_began_in(keystore: Keystore, acme: Tenant) -> None:
    day = await keystore.budgets.set(acme, "day", "managed", Decimal(1))
    before = datetime.fromisoformat("2026-10-31T23:59:59+00:00")
    await write(keystore, row(5, at=before), row(7, at=before + timedelta(seconds=1)))
    assert [await spent(keystore, PLAN, before), await spent(keystore, PLAN)] == [5, 7]
    assert await spent(keystore, day, before) == 5


async def test_plan_that_nobody_knows_is_counted_too(keystore: Keystore, acme: Tenant) -> None:
    async with keystore._database.write() as connection:
        assert await BudgetSpent({}).settle(connection, [row(5_000)]) == []
    assert await spent(keystore, PLAN) == 5_000


async def test_what_was_held_for_a_row_is_held_no_more(keystore: Keystore, acme: Tenant) -> None:
    slot = Slot(PLAN.key, PLAN.starts(START))
    use = keystore.budget_use
    await use.join("me", {})
    assert await use.lease("me", [Ask(slot, 1_000, 100, 100)]) == {slot: 100}
    await write(
        keystore, replace(row(60), holds=(("me", PLAN.key, 60),)), replace(row(60), holds=(("gone", PLAN.key, 9),))
    )
    state = (await use.states([PLAN], START))[0]
    assert (state.spent_nano, state.held_nano) == (120, 40)
    await write(keystore, replace(row(500), holds=(("me", PLAN.key, 500),)))
    state = (await use.states([PLAN], START))[0]
    assert (state.spent_nano, state.held_nano) == (620, 0), "no more is returned than is held"


async def test_threshold_is_told_once_in_a_period(keystore: Keystore, acme: Tenant) -> None:
    assert await write(keystore, row(499)) == []
    (half,) = await write(keystore, row(1))
    assert (half.budget, half.per_cent, half.spent_nano) == (PLAN, 50, 500)
    assert half.resets_at == datetime.fromisoformat("2026-12-01T00:00:00+00:00")
    assert await write(keystore, row(1)) == []
    assert [each.per_cent for each in await write(keystore, row(499))] == [100]
    assert await write(keystore, row(400)) == []
    next_month = START + timedelta(days=20)
    assert [each.per_cent for each in await write(keystore, row(800, at=next_month))] == [80]


async def test_threshold_of_a_larger_amount_is_worth_telling_again(keystore: Keystore, acme: Tenant) -> None:
    assert [each.per_cent for each in await write(keystore, row(1_000))] == [100]
    assert await write(keystore, row(1), plan=10_000) == []
    assert [each.per_cent for each in await write(keystore, row(4_999), plan=10_000)] == [50]


async def test_thresholds_of_a_soft_budget_are_told(keystore: Keystore, acme: Tenant) -> None:
    soft = await keystore.budgets.set(acme, "day", "byok", usd_of(10), hard=False)
    assert soft.spend is Spend.BYOK
    (crossed,) = await write(keystore, row(20, "byok"))
    assert (crossed.budget, crossed.per_cent, crossed.spent_nano) == (soft, 100, 20)


async def set_and_told(keystore: Keystore, acme: Tenant, nano: int, **more: Any) -> list[int]:
    """Set a budget of a day for the tenant's own keys; the thresholds that this told."""
    told: list[Crossed] = []
    keystore.budget_spent.tell = told.extend
    await keystore.budgets.set(acme, "day", "byok", usd_of(nano), **more)
    return [each.per_cent for each in told]


async def test_amount_that_is_reached_when_it_is_set_is_told_once(keystore: Keystore, acme: Tenant) -> None:
    """Nobody spends of a hard budget that is used up, so that no row could tell it."""
    assert await set_and_told(keystore, acme, 0, hard=True) == [], "nothing is spent of it"
    await keystore.budgets.remove(acme, "day", "byok")
    await keystore.ledger.write("j", 0, [a_row(1, tenant_id="acme", key_source="byok", cost_nano=27_000)])
    assert await set_and_told(keystore, acme, 10_000, hard=True) == [100]
    assert await set_and_told(keystore, acme, 10_000, hard=True) == []
    assert await write(keystore, row(1, "byok")) == [], "and no row tells it again"


async def test_amount_that_is_changed_is_looked_at_anew(keystore: Keystore, acme: Tenant) -> None:
    assert await set_and_told(keystore, acme, 1_000) == []
    assert await write(keystore, row(450, "byok")) == []
    assert await set_and_told(keystore, acme, 800) == [50]
    assert await set_and_told(keystore, acme, 700) == []
    assert await set_and_told(keystore, acme, 10_000) == []
    assert await set_and_told(keystore, acme, 500) == [80], "after more was allowed"
    assert await set_and_told(keystore, acme, 0) == [100]


async def test_budget_that_is_set_again_knows_what_was_told_of_another_token(keystore: Keystore, acme: Tenant) -> None:
    token = (await keystore.tokens.create(acme)).id
    await keystore.ledger.write("j", 0, [a_row(1, tenant_id="acme", token_id=token, key_source="byok", cost_nano=80)])
    assert await set_and_told(keystore, acme, 100, token_id=token) == [80]
    after = (await keystore.tokens.rotate(token, overlap=timedelta(hours=1))).id
    assert await set_and_told(keystore, acme, 100, token_id=after) == []
    assert await set_and_told(keystore, acme, 80, token_id=after) == [100]


async def test_budget_that_cannot_be_told_is_not_set(keystore: Keystore, acme: Tenant) -> None:
    """What webhooks are sent is written in one transaction with the amount."""
    await keystore.ledger.write("j", 0, [a_row(1, tenant_id="acme", key_source="byok", cost_nano=27_000)])
    await keystore.webhooks.add("https://hooks.example.com/")
    async with keystore._database.write() as connection:
        await connection.execute(text("ALTER TABLE wardgate_webhook_messages RENAME TO elsewhere"))
    with pytest.raises(DatabaseUnavailable):
        await set_and_told(keystore, acme, 10_000)
    assert await keystore.budgets.list(acme) == []
    async with keystore._database.write() as connection:
        await connection.execute(text("ALTER TABLE elsewhere RENAME TO wardgate_webhook_messages"))
    assert await set_and_told(keystore, acme, 10_000) == [100]
    assert await keystore.outbox.waiting() == 1


async def test_many_slots_in_one_batch(keystore: Keystore, acme: Tenant) -> None:
    """More budgets than one statement takes."""
    rows = [replace(row(1), tenant_id=f"t{number}") for number in range(2_500)]
    await write(keystore, *rows)
    assert await spent(keystore, plan_budget("t2499", NANO)) == 1


async def test_budgets_are_counted_by_how_full_they_are_in_their_period(keystore: Keystore, acme: Tenant) -> None:
    amount = Decimal("0.000000010")
    await keystore.budgets.set(acme, "day", "byok", amount)
    await keystore.budgets.set(acme, "month", "byok", amount)
    assert await keystore.budget_use.filled(START) == {}
    await write(keystore, row(8, "byok"), row(100, "managed"), plan=200)
    assert await keystore.budget_use.filled(START) == {50: 1, 80: 2}
    assert await keystore.budget_use.filled(START + timedelta(days=1)) == {50: 1, 80: 1}
    assert await keystore.budget_use.filled(START + timedelta(days=31)) == {}
