"""Budgets' definitions: what may be set, what is refused and how, what others hear, and what counts from before."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from keystore.budget_spent import Crossed
from keystore.budget_use import Ask, Short, Slot, rows_of
from keystore.budgets import Budget, Period, Spend, TenantBudgets, Whose, in_nano, plan_budget
from keystore.errors import BudgetInvalid, BudgetUnknown
from keystore.keystore import Keystore
from keystore.ledger_row import LedgerRow
from keystore.money import NANO, usd_of
from keystore.tenants import Tenant
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import a_row


@pytest.fixture
async def acme(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "solo", id="acme")


# --- periods and amounts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "at", "starts", "resets"),
    [
        ("day", "2026-11-20T23:59:59.999999", "2026-11-20", "2026-11-21"),
        ("day", "2028-02-28T12:00:00", "2028-02-28", "2028-02-29"),
        ("month", "2026-11-20T12:00:00", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2026-01-31T00:00:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_period_of_a_moment(period: str, at: str, starts: str, resets: str) -> None:
    began = Period(period).starts(datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert began == date.fromisoformat(starts)
    assert Period(period).resets_at(began) == datetime.fromisoformat(resets).replace(tzinfo=UTC)


@given(st.integers(0, 10**18))
def test_dollars_and_nano_dollars_are_the_same(nano: int) -> None:
    assert in_nano(usd_of(nano)) == nano


@pytest.mark.parametrize(
    ("amount", "says"),
    [
        ("-1", "from 0 to"),
        ("1000000001", "from 0 to 1,000,000,000 dollars"),
        ("0.0000000001", "at most nine decimals"),
        ("NaN", 'like "49.90"'),
        ("Infinity", 'like "49.90"'),
    ],
)
def test_amount_that_is_none(amount: str, says: str) -> None:
    with pytest.raises(BudgetInvalid, match=says):
        in_nano(Decimal(amount))


def test_what_a_call_is_counted_in() -> None:
    plan = plan_budget("acme", NANO)

    def own(token: str, spend: Spend) -> Budget:
        whose = Whose.TOKEN if token else Whose.TENANT
        return Budget(f"{token}{spend}", whose, "acme", token, Period.DAY, spend, True, 1)

    one, two, three, four = (
        own("", Spend.MANAGED),
        own("", Spend.BYOK),
        own("a", Spend.MANAGED),
        own("b", Spend.MANAGED),
    )
    known = TenantBudgets.of([one, two, three, four])
    assert known.matching("a", Spend.MANAGED, plan) == (plan, one, three)
    assert known.matching("c", Spend.MANAGED, None) == (one,)
    assert known.matching("a", Spend.BYOK, plan) == (two,)
    assert TenantBudgets().matching("a", Spend.MANAGED, plan) == (plan,)


# --- the store -------------------------------------------------------------------------------------------------------


async def test_set_get_list_remove(keystore: Keystore, acme: Tenant) -> None:
    made = await keystore.tokens.create(acme)
    month = await keystore.budgets.set(acme, "month", "managed", Decimal("49.90"))
    assert (month.key, month.hard, month.amount_usd) == ("tenant:acme:managed:month", True, Decimal("49.90"))
    day = await keystore.budgets.set(acme, "day", "byok", Decimal(5), token_id=made.id)
    assert (day.key, day.hard, day.whose) == (f"token:{made.id}:byok:day", False, Whose.TOKEN)
    assert await keystore.budgets.list(acme) == [month, day]
    assert await keystore.budgets.get(acme, "day", "byok", token_id=made.id) == day

    changed = await keystore.budgets.set(acme, "month", "managed", Decimal(0), hard=False)
    assert (changed.key, changed.hard, changed.amount_nano) == (month.key, False, 0)
    assert await keystore.budgets.remove(acme, "month", "managed") == changed
    assert await keystore.budgets.list(acme) == [day]


async def test_what_is_refused_says_what_would_help(keystore: Keystore, acme: Tenant) -> None:
    await keystore.budgets.set(acme, "month", "byok", Decimal(5))
    other = await keystore.tenants.add("other", "solo")
    theirs = (await keystore.tokens.create(other)).id
    refused = [
        (("week", "byok", ""), '"day" or a "month"'),
        (("day", "own", ""), '"managed" keys'),
        (("day", "byok", theirs), "wardgate token list"),
    ]
    for (period, spend, token), says in refused:
        with pytest.raises(BudgetInvalid, match=says):
            await keystore.budgets.set(acme, period, spend, Decimal(1), token_id=token)
    for work in (keystore.budgets.get, keystore.budgets.remove):
        with pytest.raises(BudgetUnknown, match=r"no managed budget for a day; it has: byok for a month"):
            await work(acme, "day", "managed")


async def test_other_process_hears_of_it(world: World, keystore: Keystore, acme: Tenant) -> None:
    serving = await world.open()
    await serving.begin_serving()
    try:
        assert (await serving.keyring(acme)).budgets.of_tenant == ()
        made = await keystore.budgets.set(acme, "month", "managed", Decimal(5))
        deadline = asyncio.get_running_loop().time() + 5
        while (await serving.keyring(acme)).budgets.of_tenant != (made,):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)
        known = (await serving.keyring(acme)).budgets
        assert (await serving.keyring(acme)).budgets is known
    finally:
        await serving.close()


async def test_new_budget_counts_what_its_period_has_seen(world: World, keystore: Keystore, acme: Tenant) -> None:
    made = await keystore.tokens.create(acme)
    columns = "tenant_id, period, starts, token_id, provider, model, key_source, outcome, cost_nano, requests"
    kinds = ("input", "output", "cached_input", "cache_write", "reasoning")
    zeroes = (*(f"{kind}_tokens" for kind in kinds), "unpriced", "estimated")
    seen = [
        ("month", "2026-11-01", made.id, "managed", 700),
        ("month", "2026-11-01", "another", "managed", 50),
        ("month", "2026-10-01", made.id, "managed", 5),
        ("month", "2026-11-01", made.id, "byok", 3),
        ("day", "2026-11-20", made.id, "managed", 20),
    ]
    for period, starts, token, source, cost in seen:
        row = f"'acme', '{period}', '{starts}', '{token}', 'openai', 'm', '{source}', 'ok', {cost}, 1"
        await world.sql(
            f"INSERT INTO wardgate_usage ({columns}, {', '.join(zeroes)}) VALUES ({row}{', 0' * len(zeroes)})"
        )
    whole = await keystore.budgets.set(acme, "month", "managed", Decimal(5))
    of_token = await keystore.budgets.set(acme, "month", "managed", Decimal(5), token_id=made.id)
    today = await keystore.budgets.set(acme, "day", "managed", Decimal(5))
    states = await keystore.budget_use.states([whole, of_token, today], START)
    assert [state.spent_nano for state in states] == [750, 700, 20]
    assert states[0].resets_at == datetime(2026, 12, 1, tzinfo=UTC)


async def test_holds_of_a_thousand_budgets_take_few_statements(keystore: Keystore) -> None:
    """Each would be locked while the others are counted one by one, and those who want it wait."""
    use, slots = (
        keystore.budget_use,
        [Slot(f"plan:t{number}:managed:month", date(2026, 11, 1)) for number in range(1_000)],
    )
    said: list[str] = []
    engine = keystore._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    await use.join("first", dict.fromkeys(slots, 7))
    await use.join("second", dict.fromkeys(slots, 1))
    before = keystore._database.writes
    await use.give_back("first", dict.fromkeys(slots, 2))
    assert keystore._database.writes - before == 5, "nobody waits for all of them"
    assert await use.bury("second", (await use.holders())["second"])
    assert len(said) < 60
    async with keystore._database.read() as connection:
        found = await rows_of(connection, slots)
    assert {found[slot].held_nano for slot in slots} == {5}


# --- a token that takes another's place ------------------------------------------------------------------------------


def spent(number: int, token: str, nano: int, **more: Any) -> LedgerRow:
    own = {"tenant_id": "acme", "token_id": token, "key_source": "managed", "cost_nano": nano, "began_at": START}
    return a_row(number, **(own | more))


async def write(keystore: Keystore, *rows: LedgerRow) -> list[Crossed]:
    """Write rows of the ledger; the thresholds that they crossed."""
    told: list[Crossed] = []
    keystore.budget_spent.tell = told.extend
    await keystore.ledger.write(rows[0].request_id, 0, rows)
    return told


async def stand(keystore: Keystore, acme: Tenant) -> list[tuple[str, int, int]]:
    """Each budget's token, what is spent, and what is held."""
    states = await keystore.budget_use.states(await keystore.budgets.list(acme), START)
    return sorted((state.budget.token_id, state.spent_nano, state.held_nano) for state in states)


async def rotated(keystore: Keystore, token_id: str) -> str:
    return (await keystore.tokens.rotate(token_id, overlap=timedelta(hours=1))).id


async def test_token_in_place_of_another_has_its_budgets_and_what_was_spent(keystore: Keystore, acme: Tenant) -> None:
    old, beside = [(await keystore.tokens.create(acme)).id for _ in range(2)]
    await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=old)
    await keystore.budgets.set(acme, "month", "byok", usd_of(100), token_id=old, hard=True)
    await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=beside)
    await write(keystore, spent(1, old, 30), spent(2, beside, 1))
    new = await rotated(keystore, old)
    known = (await keystore.keyring(acme)).budgets
    shapes = [
        {(each.key, each.token_id, each.period, each.spend, each.hard, each.amount_nano) for each in found}
        for found in (known.matching(token, spend, None) for token in (old, new) for spend in Spend)
    ]
    assert [len(each) for each in shapes] == [1, 1, 1, 1]
    assert [{(key, *rest) for key, _, *rest in each} for each in shapes[:2]] == [
        {(key, *rest) for key, _, *rest in each} for each in shapes[2:]
    ]
    assert sorted(await stand(keystore, acme)) == sorted(
        [(old, 30, 0), (old, 0, 0), (new, 30, 0), (new, 0, 0), (beside, 1, 0)]
    )


async def test_both_tokens_of_a_rotation_spend_one_budget(keystore: Keystore, acme: Tenant) -> None:
    first = (await keystore.tokens.create(acme)).id
    of_first = await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=first)
    second = await rotated(keystore, first)
    third = await rotated(keystore, second)
    budgets = {each.token_id: each for each in await keystore.budgets.list(acme)}
    use, slots = keystore.budget_use, {token: Slot(each.key, each.starts(START)) for token, each in budgets.items()}
    await use.join("one", {})
    await use.join("two", {})
    assert await use.lease("one", [Ask(slots[first], 100, 60, 60)]) == {slots[first]: 60}
    refused = await use.lease("two", [Ask(slots[third], 100, 50, 50)])
    assert isinstance(refused, Short) and refused.held == 60

    told = await write(
        keystore,
        spent(1, first, 60, holds=(("one", of_first.key, 60),)),
        spent(2, second, 10),
        spent(3, third, 15),
    )
    assert await stand(keystore, acme) == sorted((token, 85, 0) for token in (first, second, third))
    assert [(each.per_cent, each.spent_nano) for each in told] == [(80, 85)]
    assert [each.per_cent for each in await write(keystore, spent(4, first, 15))] == [100]


async def test_amount_set_for_one_is_set_for_those_that_share_it(keystore: Keystore, acme: Tenant) -> None:
    old, beside = [(await keystore.tokens.create(acme)).id for _ in range(2)]
    for token in ("", old, beside):
        await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=token)
    await keystore.budgets.set(acme, "month", "managed", usd_of(100), token_id=old)
    new = await rotated(keystore, old)
    for token, amount in ((new, 50), (old, 70)):
        made = await keystore.budgets.set(acme, "day", "managed", usd_of(amount), token_id=token, hard=False)
        assert (made.token_id, made.amount_nano, made.hard) == (token, amount, False)
        found = {(each.token_id, each.period.value): each for each in await keystore.budgets.list(acme)}
        assert {found[each, "day"].amount_nano for each in (old, new)} == {amount}
        assert {found[each].amount_nano for each in (("", "day"), (beside, "day"), (new, "month"))} == {100}

    await keystore.budgets.remove(acme, "day", "managed", token_id=old)
    assert (await keystore.budgets.get(acme, "day", "managed", token_id=new)).amount_nano == 70


async def test_amount_that_is_set_while_a_token_is_rotated_is_both_tokens(keystore: Keystore, acme: Tenant) -> None:
    for amount in range(1, 9):
        old = (await keystore.tokens.create(acme)).id
        await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=old)
        setting = keystore.budgets.set(acme, "day", "managed", usd_of(amount), token_id=old)
        new, _ = await asyncio.gather(rotated(keystore, old), setting)
        found = [await keystore.budgets.get(acme, "day", "managed", token_id=each) for each in (old, new)]
        assert [each.amount_nano for each in found] == [amount, amount]


async def test_row_that_names_itself_as_its_successor_ends_no_search(
    keystore: Keystore, acme: Tenant, world: World
) -> None:
    one, two = [(await keystore.tokens.create(acme)).id for _ in range(2)]
    await world.sql(f"UPDATE wardgate_tokens SET replaced_by = CASE id WHEN '{one}' THEN '{two}' ELSE '{one}' END")
    assert (await keystore.budgets.set(acme, "day", "managed", usd_of(5), token_id=one)).amount_nano == 5


async def test_budget_set_again_counts_all_whose_place_the_token_took(keystore: Keystore, acme: Tenant) -> None:
    first = (await keystore.tokens.create(acme)).id
    second = await rotated(keystore, first)
    third = await rotated(keystore, second)
    stranger = (await keystore.tokens.create(acme)).id
    await write(keystore, *(spent(n, token, 10) for n, token in enumerate((first, second, third, stranger))))
    for token in (second, third, first, second):
        made = await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=token)
        assert (await keystore.budget_use.states([made], START))[0].spent_nano == 30
        await keystore.budgets.remove(acme, "day", "managed", token_id=token)


async def test_budget_set_beside_the_one_that_it_shares_takes_nothing_back(
    keystore: Keystore, acme: Tenant, world: World
) -> None:
    """What was held for calls without a price is counted there, and in no usage."""
    first = (await keystore.tokens.create(acme)).id
    made = await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=first)
    second = await rotated(keystore, first)
    await keystore.budgets.remove(acme, "day", "managed", token_id=second)
    await write(keystore, spent(1, first, 10))
    await world.sql("UPDATE wardgate_budget_use SET spent_nano = 90, told = 80")
    keystore.budget_spent.tell = lambda crossed: pytest.fail(f"told again: {crossed}")
    again = await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=second)
    assert again.key == made.key
    mine = "SELECT spent_nano, told FROM wardgate_budget_use WHERE budget_key = :key"
    assert await world.sql(mine, key=made.key) == [(90, 80)]


async def test_budget_of_before_tokens_shared_one_counts_on_and_is_carried(
    keystore: Keystore, acme: Tenant, world: World
) -> None:
    old = (await keystore.tokens.create(acme)).id
    made = await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=old)
    await world.sql("UPDATE wardgate_budgets SET counted_as = NULL")
    await write(keystore, spent(1, old, 10))
    new = await rotated(keystore, old)
    await write(keystore, spent(2, new, 10))
    assert {each.key for each in await keystore.budgets.list(acme)} == {made.key}
    assert await stand(keystore, acme) == sorted([(old, 20, 0), (new, 20, 0)])


async def test_process_that_serves_hears_of_a_budget_that_was_carried(
    world: World, keystore: Keystore, acme: Tenant
) -> None:
    old = (await keystore.tokens.create(acme)).id
    await keystore.budgets.set(acme, "day", "managed", usd_of(100), token_id=old)
    serving = await world.open()
    await serving.begin_serving()
    try:
        assert (await serving.keyring(acme)).budgets.matching(old, Spend.MANAGED, None)
        new = await rotated(keystore, old)
        deadline = asyncio.get_running_loop().time() + 5
        while not (await serving.keyring(acme)).budgets.matching(new, Spend.MANAGED, None):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)
    finally:
        await serving.close()
