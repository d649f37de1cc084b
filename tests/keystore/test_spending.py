"""What is spent in each hour, and what is told of it: the rule, the sums, and that each hour is told once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystore.keystore import Keystore
from keystore.ledger_row import LedgerRow
from keystore.money import NANO
from keystore.money_tables import MOST
from keystore.outbox import Letter
from keystore.spending import Unusual
from keystore.unusual import Busy, Rule, is_unusual
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import a_row

RULE = Rule(factor=10, least_nano=5 * NANO, days=7)
MONEY = st.integers(min_value=0, max_value=10**15)


# --- the rule --------------------------------------------------------------------------------------------------------


@given(MONEY, st.lists(MONEY, max_size=50), st.integers(1, 100), MONEY)
def test_rule_is_what_it_says_in_fractions(spent: int, before: list[int], factor: int, least: int) -> None:
    rule, busy = Rule(factor, least), [each for each in before if each]
    usual = Fraction(sum(busy), len(busy)) if busy else Fraction(0)
    assert is_unusual(spent, Busy.of(before), rule) is (spent > 0 and spent >= least and spent >= factor * usual)


@given(MONEY, st.lists(MONEY, max_size=50), st.integers(0, 500))
def test_idle_hours_and_more_spending_change_nothing_and_nothing_back(spent: int, before: list[int], idle: int) -> None:
    assert Busy.of([*before, *[0] * idle]) == Busy.of(before)
    if is_unusual(spent, Busy.of(before), RULE):
        assert is_unusual(spent + 1, Busy.of(before), RULE)
        assert spent >= RULE.least_nano


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200))
def test_hour_like_those_before_is_never_unusual(before: list[int]) -> None:
    assert not is_unusual(Busy.of(before).usual_nano, Busy.of(before), Rule(factor=2, least_nano=0))


def test_factor_of_0_is_off() -> None:
    assert not is_unusual(10**18, Busy(), Rule(factor=0))


# --- the sums --------------------------------------------------------------------------------------------------------


class Told:
    """A keystore whose rule is RULE, with what it told."""

    def __init__(self, keystore: Keystore) -> None:
        self.keystore = keystore
        self.told: list[Unusual] = []
        self.journal, self.position = "j", 0
        keystore.spending.tell = self.told.extend

    async def write(self, *rows: LedgerRow) -> Sequence[Unusual]:
        """Write rows; what was told of them."""
        before = len(self.told)
        await self.keystore.ledger.write(self.journal, self.position, rows)
        self.position += len(rows)
        return self.told[before:]


@pytest.fixture
async def told(world: World) -> AsyncIterator["Told"]:
    keystore = await world.open(unusual=RULE)
    await keystore.tenants.add("acme", "solo", id="t1")
    yield Told(keystore)
    await keystore.close()


def row(number: int, usd: float, *, hours_ago: int = 0, token: str = "one", **more: object) -> LedgerRow:
    at = START - timedelta(hours=hours_ago)
    return replace(a_row(number, token_id=token, began_at=at, cost_nano=int(usd * NANO)), **more)  # type: ignore[arg-type]


async def history(told: Told, usd: float, hours: int = 20) -> None:
    """So much in each of so many hours before, which is told where the first of them is large."""
    for each in range(hours, 0, -1):
        await told.write(row(1_000 + each, usd, hours_ago=each))


async def test_tenth_of_what_is_unusual_is_not_told_and_all_of_it_once(told: Told) -> None:
    await history(told, 1)
    assert await told.write(row(1, 9.999999999)) == []
    (token, tenant) = sorted(await told.write(row(2, 0.000000001)), key=lambda one: one.token_id, reverse=True)
    assert (token.tenant, token.token_id, token.hour) == ("acme", "one", START.replace(minute=0))
    assert (token.spent_nano, token.usual_nano) == (10 * NANO, NANO)
    assert replace(tenant, token_id="one") == token and tenant.token_id == ""
    assert await told.write(row(3, 100)) == []  # the hour was told
    assert await told.write(row(4, 0), row(5, 0, cost_nano=None)) == []
    assert len(await told.write(row(6, 100, hours_ago=-1))) == 2  # the next one is another


async def test_token_is_unusual_where_its_tenant_is_not(told: Told) -> None:
    await history(told, 10)
    (first,) = await told.write(row(1, 6, token="two"))
    assert (first.token_id, first.usual_nano) == ("two", 0)


async def test_first_spending_is_told_from_the_least_on(told: Told) -> None:
    assert await told.write(row(1, 4.999999999)) == []
    assert {one.token_id for one in await told.write(row(2, 0.000000001))} == {"one", ""}


async def test_token_in_place_of_another_has_its_hours(told: Told, world: World) -> None:
    acme = await told.keystore.tenants.get("t1")
    old, beside = [(await told.keystore.tokens.create(acme)).id for _ in range(2)]
    for each in range(20, 0, -1):
        await told.write(
            *(row(100 * n + each, 2, hours_ago=each, token=token) for n, token in enumerate((old, beside)))
        )
    assert await told.write(row(1_000, 3, token=old)) == []
    new = (await told.keystore.tokens.rotate(old, overlap=timedelta(hours=1))).id
    whole = [
        (await world.sql(f"SELECT sum(spent_nano) FROM wardgate_spending WHERE token_id = '{each}'"))[0][0]
        for each in (old, new, "")
    ]
    assert whole == [43 * NANO, 43 * NANO, 83 * NANO]
    assert await told.write(row(1_001, 16.999999999, token=new)) == []  # 20 in the hour, with what the old one spent
    (found,) = await told.write(row(1_002, 0.000000001, token=new))
    assert (found.token_id, found.spent_nano, found.usual_nano) == (new, 20 * NANO, 2 * NANO)


async def test_hour_that_was_told_is_not_told_of_the_token_in_place(told: Told) -> None:
    acme = await told.keystore.tenants.get("t1")
    old = (await told.keystore.tokens.create(acme)).id
    assert {one.token_id for one in await told.write(row(1, 6, token=old))} == {old, ""}
    new = (await told.keystore.tokens.rotate(old, overlap=timedelta(hours=1))).id
    assert await told.write(row(2, 6, token=new)) == []


async def test_old_hours_say_nothing_and_are_removed(told: Told, world: World) -> None:
    await history(told, 3)
    await told.write(row(1, 1000, hours_ago=24 * 7 + 21))
    assert len(await told.write(row(2, 30))) == 2
    world.clock.advance(days=9)
    await told.keystore.spending.expire()
    assert await world.sql("SELECT count(*) FROM wardgate_spending") == [(0,)]


async def test_hour_stops_at_what_a_column_holds_and_no_row_is_refused_for_it(told: Told, world: World) -> None:
    most = row(1, 0, cost_nano=MOST)
    for number in range(4):
        both = [replace(most, request_id=f"req_{number}{each}") for each in "ab"]
        hour = START - timedelta(hours=number // 2)
        await told.write(*(replace(each, began_at=hour) for each in both))
    assert {nano for (nano,) in await world.sql("SELECT spent_nano FROM wardgate_spending")} == {MOST}
    third = START + timedelta(hours=1)
    before = await told.write(replace(most, request_id="req_9", began_at=third))
    assert before == [], "what is usual is the sum of two such hours, exactly"


async def test_line_that_comes_again_counts_once(told: Told, world: World) -> None:
    rows = [row(1, 2), row(2, 2)]
    await told.keystore.ledger.write("j", 0, rows)
    await told.keystore.ledger.write("j", 0, rows)
    await told.keystore.ledger.write("other", 0, rows)
    sums = await world.sql("SELECT token_id, spent_nano FROM wardgate_spending ORDER BY 1")
    assert sums == [("", 4 * NANO), ("one", 4 * NANO)]


async def letters(keystore: Keystore) -> list[Letter]:
    (webhook_id,) = await keystore.outbox.due()
    return await keystore.outbox.claim(webhook_id, 10)


async def test_many_writers_tell_an_hour_once(told: Told) -> None:
    """Each in a journal of its own, at the same time: together they spend what is unusual."""

    async def writes(writer: int) -> None:
        for each in range(4):
            number = 100 * writer + each
            await told.keystore.ledger.write(f"journal-{writer}", each, [row(number, 1, token=f"t{each % 2}")])

    await told.keystore.webhooks.add("https://hooks.example/x")
    await asyncio.gather(*(writes(writer) for writer in range(4)))
    assert sorted(one.token_id for one in told.told) == ["", "t0", "t1"]
    written = await letters(told.keystore)
    assert sorted(orjson.loads(one.body)["data"]["token"] or "" for one in written) == ["", "t0", "t1"]


async def test_nothing_is_told_or_sent_of_what_is_not_committed(told: Told, world: World) -> None:
    await told.keystore.webhooks.add("https://hooks.example/x")

    async def refused(rows: Sequence[LedgerRow]) -> None:
        async with told.keystore._database.write() as connection:
            await told.keystore.spending.counted(connection, rows)
            raise KeyError

    with pytest.raises(KeyError):
        await refused([row(1, 100)])
    assert (told.told, await told.keystore.outbox.waiting()) == ([], 0)
    assert await world.sql("SELECT count(*) FROM wardgate_spending") == [(0,)]


async def test_webhook_is_sent_exact_text(told: Told) -> None:
    await told.keystore.webhooks.add("https://hooks.example/x")
    await told.write(row(1, 5.000000001))
    bodies = [orjson.loads(one.body) for one in await letters(told.keystore)]
    facts = {"tenant": "acme", "hour": "2026-11-20T12:00:00+00:00", "spent_usd": "5.000000001", "usual_usd": "0"}
    wanted = facts | {"factor": 10}
    assert sorted((one["type"], one["data"]["token"] or "") for one in bodies) == [
        ("spend.unusual", ""),
        ("spend.unusual", "one"),
    ]
    assert all(one["data"] | {"token": None} == wanted | {"token": None} for one in bodies)
