"""Questions to the sums: on both databases, against the same asked of the rows in Python."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import create_async_engine

from keystore.engine import Database, parse_url
from keystore.errors import DatabaseUnavailable
from keystore.ledger_usage import Sums
from keystore.money_tables import usage
from keystore.usage import Group, UsagePage, UsageQuestion, UsageStore, _statement, segments
from tests.keystore.conftest import World

NAMES = list(Sums._fields)
COLUMN = {Group.TENANT: "tenant_id", Group.TOKEN: "token_id"}
NOVEMBER = UsageQuestion(date(2026, 11, 1), date(2026, 12, 1), (Group.DAY,))
ALL_YEAR = UsageQuestion(date(2026, 1, 1), date(2027, 1, 1), (Group.MONTH,))


def row(day: date, tenant: str = "t1", **values: Any) -> dict[str, Any]:
    """A day's sums."""
    names = {
        "token_id": "tok1tok1tok1",
        "provider": "minimax",
        "model": "MiniMax-M2",
        "key_source": "byok",
        "outcome": "ok",
    }
    known = {"tenant_id": tenant, "period": "day", "starts": day} | names | Sums(requests=1)._asdict() | values
    assert len(known) == len(usage.c)
    return known


def with_months(days: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of days, and those of their months."""
    days = list(days)
    months: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in days:
        month = each | {"period": "month", "starts": each["starts"].replace(day=1)}
        key = tuple(month[column.name] for column in usage.primary_key)
        known = months.setdefault(key, month | dict.fromkeys(NAMES, 0))
        known.update({name: known[name] + month[name] for name in NAMES})
    return days + list(months.values())


async def stored(world: World, rows: Sequence[dict[str, Any]]) -> UsageStore:
    """The rows in the table, and a store on it."""
    engine = create_async_engine(parse_url(world.url))
    async with engine.begin() as connection:
        for start in range(0, len(rows), 1_000):
            await connection.execute(insert(usage), rows[start : start + 1_000])
    await engine.dispose()
    return UsageStore(Database(world.url))


async def all_pages(store: UsageStore, question: UsageQuestion, tenant_id: str | None) -> list[UsagePage]:
    pages = [await store.page(question, tenant_id=tenant_id)]
    while pages[-1].has_more:
        after = pages[-1].rows[-1].keys
        pages.append(await store.page(replace(question, after=after), tenant_id=tenant_id))
    return pages


def added(sums: Iterable[Sums]) -> Sums:
    rows = [each._asdict() for each in sums]
    return Sums(**{name: sum(row[name] for row in rows) for name in NAMES})


def key_of(row: dict[str, Any], group: Group) -> str:
    if group in (Group.DAY, Group.MONTH):
        return str(row["starts"])[: 10 if group is Group.DAY else 7]
    return str(row[COLUMN.get(group, group.value)])


def expected(rows: Iterable[dict[str, Any]], question: UsageQuestion, tenant_id: str | None) -> dict[Any, Sums]:
    """The answer, from the rows of days alone."""
    found: dict[Any, list[Sums]] = {}
    for each in rows:
        inside = each["period"] == "day" and question.since <= each["starts"] < question.until
        mine = tenant_id in (None, each["tenant_id"])
        if inside and mine and all(key_of(each, group) == value for group, value in question.where):
            keys = tuple(key_of(each, group) for group in question.by)
            found.setdefault(keys, []).append(Sums(**{name: each[name] for name in NAMES}))
    return {keys: added(sums) for keys, sums in found.items()}


def crowd(seed: int, count: int) -> list[dict[str, Any]]:
    """Rows of days from October to January, of three tenants, with names that are awkward to compare."""
    chance = random.Random(seed)
    rows: dict[Any, dict[str, Any]] = {}
    for _ in range(count):
        each = row(
            date(2026, 10, 1) + timedelta(days=chance.randrange(120)),
            chance.choice(["t1", "t2", "t3"]),
            token_id=chance.choice(["tokA", "tokb"]),
            provider=chance.choice(["", "minimax", "openai"]),
            model=chance.choice(["", "a/b", "A-model", "b_model", "zürich", "a'b; --", "模型", "b-Model"]),
            key_source=chance.choice(["byok", "managed"]),
            outcome=chance.choice(["ok", "refused", "cut"]),
            **{name: chance.choice([0, 1, 7, 10**12]) for name in NAMES},
        )
        rows[tuple(each[column.name] for column in usage.primary_key)] = each
    return with_months(rows.values())


# --- which sums ------------------------------------------------------------------------------------------------------

DAYS = st.dates(date(2024, 1, 1), date(2028, 12, 31))


@given(DAYS, st.integers(1, 900), st.booleans())
def test_segments_hold_every_day_once_and_no_other(since: date, length: int, days: bool) -> None:
    until = since + timedelta(days=length)
    parts = segments(since, until, days=days)
    covered = [begin + timedelta(days=n) for _, begin, end in parts for n in range((end - begin).days)]
    assert covered == [since + timedelta(days=n) for n in range(length)]
    for period, begin, end in parts:
        assert period == "day" or (begin.day, end.day, days) == (1, 1, False)
    assert len(parts) <= (1 if days else 3)


def test_a_year_by_month_reads_months_and_a_broken_one_what_is_left_of_days() -> None:
    assert segments(ALL_YEAR.since, ALL_YEAR.until, days=False) == [("month", ALL_YEAR.since, ALL_YEAR.until)]
    assert segments(date(2026, 1, 31), date(2026, 3, 2), days=False) == [
        ("day", date(2026, 1, 31), date(2026, 2, 1)),
        ("month", date(2026, 2, 1), date(2026, 3, 1)),
        ("day", date(2026, 3, 1), date(2026, 3, 2)),
    ]
    assert segments(date(2026, 1, 2), date(2026, 1, 31), days=False)[0][0] == "day"


# --- answers ---------------------------------------------------------------------------------------------------------

WAYS = [
    ((Group.DAY,), ()),
    ((Group.MONTH,), ()),
    ((Group.MODEL,), ((Group.PROVIDER, "minimax"),)),
    ((Group.DAY, Group.MODEL, Group.PROVIDER, Group.TOKEN, Group.OUTCOME, Group.KEY_SOURCE), ()),
    ((Group.MONTH, Group.OUTCOME), ((Group.MODEL, "a'b; --"), (Group.KEY_SOURCE, "byok"))),
    ((Group.TOKEN,), ((Group.TOKEN, "tokb"), (Group.OUTCOME, "ok"))),
    ((Group.MODEL, Group.TENANT), ()),
    ((Group.TENANT,), ((Group.TENANT, "t2"),)),
]
TIMES = [
    (date(2026, 11, 1), date(2026, 12, 1)),
    (date(2026, 10, 9), date(2027, 1, 5)),
    (date(2026, 11, 3), date(2026, 11, 4)),
]


async def test_answers_are_those_of_the_rows_page_by_page(world: World) -> None:
    rows = crowd(1, 600)
    store = await stored(world, rows)
    for by, where in WAYS:
        for since, until in TIMES:
            for tenant_id in (None, "t1"):
                question = UsageQuestion(since, until, by, where, limit=7)
                want = expected(rows, question, tenant_id)
                pages = await all_pages(store, question, tenant_id) if len(want) < 80 else []
                pages = pages or [await store.page(replace(question, limit=5_000), tenant_id=tenant_id)]
                found = [each for page in pages for each in page.rows]
                assert [each.keys for each in found] == sorted(want), (by, where)
                assert {each.keys: each.sums for each in found} == want
                assert {page.total for page in pages} == {added(want.values())}
    await store._database.close()


async def test_another_tenants_rows_are_in_nothing(world: World) -> None:
    mine = [row(date(2026, 11, 3), "t1", cost_nano=5)]
    theirs = [row(date(2026, 11, day), "t2", model="secret", cost_nano=10**9) for day in range(1, 30)]
    store = await stored(world, with_months([*mine, *theirs]))
    for by, where in WAYS:
        page = await store.page(replace(NOVEMBER, by=by, where=where), tenant_id="t1")
        assert page.total.cost_nano in (0, 5) and len(page.rows) <= 1 and "secret" not in str(page)
    assert (await store.page(NOVEMBER, tenant_id="t3")) == UsagePage(Sums(), (), False)
    assert (await store.page(NOVEMBER, tenant_id=None)).total.requests == 30
    await store._database.close()


async def test_tenants_are_told_by_slug_and_one_that_is_gone_by_its_id(world: World) -> None:
    keystore = await world.open()
    acme, zeta = [await keystore.tenants.add(slug, "team") for slug in ("acme", "zeta")]
    owners = (zeta.id, "gone", acme.id)
    await (await stored(world, with_months([row(date(2026, 11, 3), each) for each in owners])))._database.close()
    question = replace(NOVEMBER, by=(Group.TENANT, Group.MODEL), limit=1)
    pages = await all_pages(keystore.usage, question, None)
    assert [page.rows[0].keys[0] for page in pages] == ["acme", "gone", "zeta"]
    assert [page.has_more for page in pages] == [True, True, False]
    await keystore.close()


async def test_page_behind_the_last_has_the_total_and_no_rows(world: World) -> None:
    store = await stored(world, with_months([row(date(2026, 11, 3))]))
    page = await store.page(replace(NOVEMBER, after=("2026-11-03",)), tenant_id="t1")
    assert (page.total.requests, page.rows, page.has_more) == (1, (), False)
    await store._database.close()


async def test_money_is_added_to_the_nano_dollar_beyond_what_a_float_holds(world: World) -> None:
    costs = [2**53 + 1, 2**60 + 1, 3]
    store = await stored(world, [row(date(2026, 11, 1 + n), cost_nano=cost) for n, cost in enumerate(costs)])
    assert (await store.page(NOVEMBER, tenant_id="t1")).total.cost_nano == sum(costs)
    await store._database.close()


async def test_database_that_is_away_is_said(world: World) -> None:
    store = await stored(world, [])
    await world.sql("ALTER TABLE wardgate_usage RENAME TO away")
    with pytest.raises(DatabaseUnavailable):
        await store.page(NOVEMBER, tenant_id="t1")
    await world.sql("ALTER TABLE away RENAME TO wardgate_usage")
    await store._database.close()


# --- the plan --------------------------------------------------------------------------------------------------------


async def test_rows_of_a_tenants_month_stand_together_in_sqlite(sqlite_world: World) -> None:
    """They are written day by day among those of all tenants: a table in that order is read all over."""
    [(made,)] = await sqlite_world.sql("SELECT sql FROM sqlite_master WHERE name = 'wardgate_usage'")
    assert made.rstrip().endswith("WITHOUT ROWID")


ASKED = (NOVEMBER, ALL_YEAR, replace(ALL_YEAR, until=date(2026, 11, 22)))


async def plan_of(world: World, question: UsageQuestion, tenant_id: str | None) -> str:
    statement: Any = _statement(question, tenant_id, is_sqlite=world.is_sqlite)
    dialect: Any = (sqlite if world.is_sqlite else postgresql).dialect()
    asked = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    rows = await world.sql(("EXPLAIN QUERY PLAN " if world.is_sqlite else "EXPLAIN ") + asked)
    return "\n".join(str(each[-1]) for each in rows)


async def test_plan_is_a_range_of_an_index_never_the_whole_table(world: World) -> None:
    """A tenant's usage among that of 50 others, and that of all in a short time among five years."""
    days = [date(2022, 1, 1) + timedelta(days=6 * n) for n in range(304)]
    store = await stored(world, with_months(row(day, f"t{number}") for number in range(50) for day in days))
    await world.sql("ANALYZE wardgate_usage")
    for question in ASKED:
        for tenant_id in ("t7", None):
            plan = await plan_of(world, question, tenant_id)
            index = "ix_wardgate_usage_period_starts" if tenant_id is None else "PRIMARY KEY|pk_wardgate_usage"
            assert re.search(index, plan), plan
            assert "SCAN wardgate_usage" not in plan and "Seq Scan on wardgate_usage" not in plan, plan
    await store._database.close()
