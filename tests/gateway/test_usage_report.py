"""What may be asked of usage, and how it is told."""

import csv
import io
import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage_report import (
    FIELDS,
    NEXT,
    NUMBERS,
    UsageRefused,
    Wanted,
    as_csv,
    check_names,
    check_provider,
    document,
    dollars,
    numbers,
    read_wanted,
    rendered,
)
from keystore.ledger_usage import Sums
from keystore.providers import Registry, load_registry
from keystore.usage import Group, UsagePage, UsageQuestion, UsageRow

TODAY = date(2026, 11, 21)
COUNTS = st.one_of(st.integers(0, 3), st.integers(0, 2**55))
SUMS = st.builds(Sums, **dict.fromkeys(Sums._fields, COUNTS))


def asked(**given: str) -> UsageQuestion:
    return read_wanted(given, TODAY).question


def refusal(**given: str) -> str:
    with pytest.raises(UsageRefused) as caught:
        read_wanted(given, TODAY)
    return str(caught.value)


def page(*rows: UsageRow, has_more: bool = False) -> UsagePage:
    return UsagePage(added(row.sums for row in rows), rows, has_more)


def added(sums: Any) -> Sums:
    found = list(sums)
    return Sums(*(sum(getattr(one, name) for one in found) for name in Sums._fields))


# --- the question ----------------------------------------------------------------------------------------------------

TIMES = {
    "nothing": ({}, date(2026, 11, 1), date(2026, 12, 1)),
    "since": ({"since": "2026-01-01"}, date(2026, 1, 1), date(2026, 12, 1)),
    "until": ({"until": "2026-11-01"}, date(2026, 10, 1), date(2026, 11, 1)),
    "until within a month": ({"until": "2026-10-09"}, date(2026, 10, 1), date(2026, 10, 9)),
    "both": ({"since": "2025-12-31", "until": "2026-01-01"}, date(2025, 12, 31), date(2026, 1, 1)),
    "day": ({"day": "2026-12-31"}, date(2026, 12, 31), date(2027, 1, 1)),
    "month": ({"month": "2026-02"}, date(2026, 2, 1), date(2026, 3, 1)),
    "last day that can be said": ({"month": "2999-12"}, date(2999, 12, 1), date(3000, 1, 1)),
}


@pytest.mark.parametrize("name", TIMES)
def test_time_is_half_open_and_this_month_when_nothing_is_said(name: str) -> None:
    given, since, until = TIMES[name]
    question = asked(**given)
    assert (question.since, question.until, question.by) == (since, until, (Group.DAY,))


def test_december_has_a_next_month() -> None:
    assert read_wanted({}, date(2026, 12, 31)).question.until == date(2027, 1, 1)


REFUSED = {
    "word that is near": ({"by": "modle"}, "`by`: takes words", 'did you mean "model"?'),
    "token's id that is none": ({"token": "tok1"}, "12 letters and digits", "."),
    "word that is none": ({"by": "day,x"}, "day, month, model, provider, token, outcome, key_source", "."),
    "no word": ({"by": ""}, "`by`", "day, month"),
    "word twice": ({"by": "day, day"}, "`by`", "twice"),
    "tenant": ({"by": "tenant"}, "`by`", "day, month, model"),
    "date of another form": ({"since": "21.11.2026"}, "`since`", "2026-11-21"),
    "date that is none": ({"until": "2026-02-30"}, "`until`", "2026-11-21"),
    "week": ({"since": "2026-W47-6"}, "`since`", "2026-11-21"),
    "time": ({"since": "2026-11-21T00:00:00Z"}, "`since`", "2026-11-21"),
    "month that is none": ({"month": "2026-13"}, "`month`", "2026-11"),
    "time that is empty": ({"since": "2026-11-03", "until": "2026-11-03"}, "`until`", "nothing lies"),
    "time to come": ({"since": "2027-01-01"}, "`since`", "nothing lies"),
    "two times": ({"day": "2026-11-03", "since": "2026-11-03"}, "`day`", "leave the other out"),
    "outcome": ({"outcome": "refuse"}, "`outcome`", 'did you mean "refused"?'),
    "key source": ({"key_source": "mine"}, "`key_source`", "byok, managed"),
    "no model": ({"model": ""}, "`model`", "empty"),
    "format": ({"format": "jsn"}, "`format`", 'did you mean "json"?'),
    "limit of none": ({"limit": "0"}, "`limit`", "from 1 to 5000"),
    "limit that is too much": ({"limit": "5001"}, "`limit`", "from 1 to 5000"),
    "limit in other digits": ({"limit": "٣"}, "`limit`", "whole number"),
    "control character": ({"model": "a\0b"}, "`model`", "printable"),
    "cursor": ({"cursor": "x"}, "`cursor`", "not a cursor"),
    "cursor of another shape": ({"cursor": "e30"}, "`cursor`", "not a cursor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_with_what_is(name: str) -> None:
    given, field, hint = REFUSED[name]
    said = refusal(**given)
    assert field in said and hint in said and "21.11" not in said
    assert said.endswith((".", "?"))


def test_parameters_are_known_and_stand_once() -> None:
    check_names(["since", "by"], FIELDS)
    for names, hint in ((["form"], 'did you mean "format"'), (["x"], "known are by, cursor"), (["by", "by"], "twice")):
        with pytest.raises(UsageRefused, match=hint):
            check_names(names, FIELDS)


def test_operator_may_tell_tenants_apart_and_filters_are_taken() -> None:
    wanted = read_wanted({"by": "tenant, month", "model": "a/b"}, TODAY, groups=tuple(Group))
    assert wanted.question.by == (Group.TENANT, Group.MONTH)
    assert wanted.question.where == ((Group.MODEL, "a/b"),)


def test_provider_that_is_not_there_is_a_slip_unless_something_went_to_it() -> None:
    registry: Registry = load_registry()
    rows = registry.providers
    question, some = asked(provider="minimxa"), page(UsageRow(("2026-11-01",), Sums(requests=1)))
    with pytest.raises(UsageRefused, match='did you mean "minimax"'):
        check_provider(question, page(), rows)
    check_provider(question, some, rows)
    for name in ("minimax", *[former for row in rows for former in row.former_ids]):
        check_provider(asked(provider=name), page(), rows)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), min_size=2, max_size=2))
def test_cursor_leads_behind_the_last_row_and_to_no_other_list(keys: list[str]) -> None:
    question = asked(by="model,token")
    told = document(question, page(UsageRow(tuple(keys), Sums(requests=1)), has_more=True))
    cursor = str(told["next_cursor"])
    assert asked(by="model,token", cursor=cursor).after == tuple(keys)
    for by in ("token,model", "model", "model,token,day"):
        assert "not a cursor" in refusal(by=by, cursor=cursor)


# --- the answer ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**63))
def test_dollars_are_exact_and_plain(nano: int) -> None:
    text = dollars(nano)
    assert Decimal(text) * 10**9 == nano
    assert "E" not in text and not (text.endswith("0") and "." in text)


@given(st.lists(SUMS, max_size=5))
def test_total_is_the_sum_of_the_rows(sums: list[Sums]) -> None:
    rows = [UsageRow((f"2026-11-{n + 1:02}",), each) for n, each in enumerate(sums)]
    told = json.loads(rendered(Wanted(asked()), page(*rows)).body)
    for name in NUMBERS:
        found = [row[name] for row in told["rows"]]
        if name != "cost_usd":
            assert told["total"][name] == sum(found)
    costs = [Decimal(row["cost_usd"]) for row in told["rows"] if row["cost_usd"] is not None]
    known = sum(each.cost_nano for each in sums if not 0 < each.requests == each.unpriced)
    assert sum(costs) * 10**9 == known
    assert list(told["total"]) == list(NUMBERS) and told["currency"] == "USD"


def test_cost_that_nobody_knows_is_no_zero() -> None:
    assert numbers(Sums())["cost_usd"] == "0"
    assert numbers(Sums(requests=2, unpriced=2))["cost_usd"] is None
    some = numbers(Sums(requests=3, unpriced=2, cost_nano=120_000))
    assert (some["cost_usd"], some["unpriced_requests"]) == ("0.00012", 2)


def test_what_nobody_was_asked_for_is_null_in_json_and_empty_in_csv() -> None:
    question = asked(by="provider,model")
    found = page(UsageRow(("", ""), Sums(requests=1)))
    rows: Any = document(question, found)["rows"]
    assert (rows[0]["provider"], rows[0]["model"]) == (None, None)
    assert as_csv(question, found).splitlines()[1].startswith(",,1,0,")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), SUMS)
def test_csv_is_read_back_as_it_was_and_no_cell_of_a_caller_is_a_formula(name: str, sums: Sums) -> None:
    text = as_csv(asked(by="model"), page(UsageRow((name,), sums)))
    assert text.endswith("\r\n")
    head, line = list(csv.reader(io.StringIO(text, newline="")))
    assert head == ["model", *NUMBERS]
    assert line[1:] == ["" if value is None else str(value) for value in numbers(sums).values()]
    assert not line[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert line[0] in (name, "'" + name)
    assert all(cell == "" or cell[0].isdigit() for cell in line[1:])


@pytest.mark.parametrize("name", ["=1+2", "+1", "-1", "@SUM(A1)", "\uff1d1+2", "\t=1", "\r=1", '=cmd|" /C calc"!A0'])
def test_formula_is_a_text(name: str) -> None:
    text = as_csv(asked(by="model"), page(UsageRow((name,), Sums())))
    _, line = csv.reader(io.StringIO(text, newline=""))
    assert line[0] == "'" + name


def test_csv_says_how_it_goes_on() -> None:
    wanted = read_wanted({"format": "csv", "by": "model"}, TODAY)
    row = UsageRow(("m",), Sums(requests=1))
    whole, first = rendered(wanted, page(row)), rendered(wanted, page(row, has_more=True))
    assert NEXT not in whole.headers
    assert asked(by="model", cursor=first.headers[NEXT]).after == ("m",)
    assert first.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert first.headers["content-disposition"] == 'attachment; filename="usage-2026-11-01-2026-12-01.csv"'
