"""`GET /v1/usage` and `GET /admin/usage`: what was used, for its tenant and the operator alone."""

import asyncio
import csv
import io
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import create_async_engine

from keystore.engine import parse_url
from keystore.money_tables import usage
from tests.harness import RunningGateway
from tests.keystore.test_usage import row, with_months
from tests.scenarios.control import Control, prepared

MARCH = "since=2025-03-01&until=2025-04-01"  # long ago: what other tests use is not in it
FORMULA = '=HYPERLINK("http://x")'


def write(gateway: RunningGateway, rows: Sequence[dict[str, Any]]) -> None:
    """The rows of long ago, in the place of those that were there."""

    async def run() -> None:
        engine = create_async_engine(parse_url(gateway.database_url))
        async with engine.begin() as connection:
            await connection.execute(delete(usage).where(usage.c.starts < date(2026, 1, 1)))
            await connection.execute(insert(usage), rows)
        await engine.dispose()

    asyncio.run(run())


@pytest.fixture(scope="module")
def used(control: Control) -> Control:
    """A control plane where acme used something in March and April of 2025, and beta too."""
    acme, beta = [control.admin("GET", f"/admin/tenants/{slug}").json()["id"] for slug in ("acme", "beta")]
    counted = {"requests": 2, "input_tokens": 100, "output_tokens": 10, "cached_input_tokens": 40}
    counted |= {"cache_write_tokens": 5, "reasoning_tokens": 3}
    unpriced = {"requests": 3, "unpriced": 3, "estimated": 1, "model": FORMULA, "provider": "openai"}
    refused = {"provider": "", "model": "", "key_source": "", "outcome": "refused"}
    days = [
        row(date(2025, 3, 1), acme, cost_nano=1, **counted),
        row(date(2025, 3, 31), acme, cost_nano=10**9, **counted),
        row(date(2025, 3, 31), acme, **unpriced),
        row(date(2025, 3, 31), acme, **refused),
        row(date(2025, 4, 1), acme, cost_nano=7 * 10**9, **counted),
        row(date(2025, 3, 5), beta, cost_nano=5 * 10**9, model="betas-secret", **counted),
    ]
    write(control.gateway, with_months(days))
    return control


def told(control: Control, query: str, who: str = "inference") -> dict[str, Any]:
    path = "/admin/usage" if who.startswith("admin") else "/v1/usage"
    answer = control.ask(who, "GET", f"{path}?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def error(control: Control, query: str, who: str = "inference") -> dict[str, Any]:
    path = "/admin/usage" if who.startswith("admin") else "/v1/usage"
    answer = control.ask(who, "GET", f"{path}?{query}")
    assert answer.status_code == 400, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_tenant_is_told_what_it_used_and_what_it_cost(used: Control) -> None:
    answer = told(used, MARCH)
    assert answer["total"] == {
        "requests": 8,
        "prompt_tokens": 200,
        "completion_tokens": 20,
        "cached_tokens": 80,
        "cache_write_tokens": 10,
        "reasoning_tokens": 6,
        "total_tokens": 220,
        "cost_usd": "1.000000001",
        "unpriced_requests": 3,
        "estimated_requests": 1,
    }
    facts = [answer[name] for name in ("object", "since", "until", "currency", "by", "has_more", "next_cursor")]
    assert facts == ["usage", "2025-03-01", "2025-04-01", "USD", ["day"], False, None]
    assert [(one["day"], one["requests"], one["cost_usd"]) for one in answer["rows"]] == [
        ("2025-03-01", 2, "0.000000001"),
        ("2025-03-31", 6, "1"),
    ]


def test_every_way_of_telling_apart_adds_up_to_the_same(used: Control) -> None:
    names = ("day", "month", "model", "provider", "token", "outcome", "key_source")
    for by in (*names, ",".join(names)):
        answer = told(used, f"{MARCH}&by={by}")
        costs = [Decimal(one["cost_usd"]) for one in answer["rows"] if one["cost_usd"] is not None]
        assert sum(costs) == Decimal("1.000000001")
        assert sum(one["requests"] for one in answer["rows"]) == answer["total"]["requests"] == 8
        assert all(list(one)[: by.count(",") + 1] == by.split(",") for one in answer["rows"])


def test_unknown_cost_is_null_and_counted_never_a_silent_zero(used: Control) -> None:
    rows = {one["provider"]: one for one in told(used, f"{MARCH}&by=provider")["rows"]}
    assert (rows["openai"]["cost_usd"], rows["openai"]["unpriced_requests"]) == (None, 3)
    assert (rows[None]["cost_usd"], rows[None]["unpriced_requests"]) == ("0", 0)


def test_filters_take_what_they_name(used: Control) -> None:
    for query, requests in (
        ("outcome=refused", 1),
        ("provider=minimax", 4),
        ("provider=minimax&day=2025-03-31", 2),
        ("key_source=managed", 0),
        ("token=tok1tok1tok1", 8),
        ("token=AAAAAAAAAAAA", 0),
        ("outcome=lost", 0),
        ("model=MiniMax-M2", 4),
    ):
        time = "" if "day=" in query else f"{MARCH}&"
        assert told(used, time + query)["total"]["requests"] == requests, query
    assert told(used, "month=2025-04")["total"]["cost_usd"] == "7"
    assert told(used, "since=2025-01-01&until=2026-01-01&by=month")["total"]["cost_usd"] == "8.000000001"


def test_pages_have_every_row_once_and_the_whole_total(used: Control) -> None:
    whole = told(used, f"{MARCH}&by=day,provider,outcome")
    query, rows = f"{MARCH}&by=day,provider,outcome&limit=1", []
    cursor = ""
    while True:
        page = told(used, query + cursor)
        assert page["total"] == whole["total"] and len(page["rows"]) == 1
        rows += page["rows"]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert rows == whole["rows"] and len(rows) == 4


def test_csv_is_safe_to_open(used: Control) -> None:
    for who in ("inference", "admin"):
        path = "/admin/usage?tenant=acme&" if who == "admin" else "/v1/usage?"
        answer = used.ask(who, "GET", f"{path}{MARCH}&by=model&format=csv")
        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.headers["content-disposition"].endswith('"usage-2025-03-01-2025-04-01.csv"')
        assert answer.headers["cache-control"] == "no-store"
        head, *lines = csv.reader(io.StringIO(answer.text, newline=""))
        assert head[:3] == ["model", "requests", "prompt_tokens"]
        assert [line[0] for line in lines] == ["", "'" + FORMULA, "MiniMax-M2"]
        assert [line[head.index("cost_usd")] for line in lines] == ["0", "", "1.000000001"]
        assert answer.text.count("\r\n") == 4
        first = used.ask(who, "GET", f"{path}{MARCH}&by=model&format=csv&limit=1")
        query = f"{path}{MARCH}&by=model&limit=1&cursor={first.headers['x-wardgate-next-cursor']}"
        assert used.ask(who, "GET", query).json()["rows"][0]["model"] == FORMULA


def test_nothing_of_another_tenant_is_told(used: Control) -> None:
    for query in (
        MARCH,
        f"{MARCH}&by=model,token",
        f"{MARCH}&by=day,key_source,outcome&limit=1",
        f"{MARCH}&format=csv",
    ):
        answer = used.ask("inference", "GET", f"/v1/usage?{query}").text
        assert "betas-secret" not in answer and "2025-03-05" not in answer
    assert told(used, MARCH, "other")["total"]["cost_usd"] == "5"
    assert told(used, f"{MARCH}&model=betas-secret")["total"]["requests"] == 0
    for name in ("tenant", "tenant_id"):
        assert error(used, f"{MARCH}&{name}=beta")["param"] == "query"
    assert error(used, f"{MARCH}&by=tenant")["param"] == "by"
    assert used.ask("inference", "GET", f"/admin/usage?{MARCH}").status_code == 403
    assert used.ask("admin", "GET", "/v1/usage").status_code == 403
    assert used.ask("reader", "GET", "/v1/usage").json()["error"]["code"] == "scope_required"
    assert used.ask(None, "GET", "/v1/usage").status_code == 401


def test_operator_is_told_of_all_and_of_one(used: Control) -> None:
    answer = told(used, f"{MARCH}&by=tenant", "admin")
    assert [(one["tenant"], one["cost_usd"]) for one in answer["rows"]] == [("acme", "1.000000001"), ("beta", "5")]
    assert answer["total"]["cost_usd"] == "6.000000001"
    assert told(used, f"{MARCH}&tenant=acme", "admin reader") == told(used, MARCH)
    assert used.admin("GET", f"/admin/usage?{MARCH}&tenant=nobody").json()["error"]["code"] == "tenant_unknown"
    document = used.admin("GET", "/admin/openapi.json").json()
    schema = document["components"]["schemas"]["UsageOut"] | {"components": document["components"]}
    Draft202012Validator(schema).validate(answer)
    assert used.admin("GET", "/admin/audit?action=usage.show&limit=1").json()["data"][0]["outcome"] == "refused"


def test_what_is_not_known_is_named_with_what_is_near(used: Control) -> None:
    for who in ("inference", "admin"):
        for query, param, hint in (
            ("by=modle", "by", 'did you mean "model"'),
            ("outcome=okk", "outcome", 'did you mean "ok"'),
            ("provider=minimxa", "provider", 'did you mean "minimax"'),
            ("since=yesterday", "since", "2026-11-21"),
            ("cursor=x", "cursor", "not a cursor"),
            ("formt=csv", "query", "format"),
            ("by=day&by=day", "query", "twice"),
            ("model=a%00b", "model", "printable"),
        ):
            found = error(used, query, who)
            assert (found["param"], found["code"], found["fault"]) == (param, "invalid_request", "caller"), query
            assert hint in found["message"] and query.partition("=")[2] not in found["message"], found


def test_paths_are_those_of_the_data_plane(used: Control) -> None:
    whole = told(used, MARCH)
    for path in ("/v1/usage/", "/usage", "/usage/"):
        assert used.ask("inference", "GET", f"{path}?{MARCH}").json() == whole
    answer = used.ask("inference", "HEAD", f"/v1/usage?{MARCH}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert used.ask("inference", "POST", "/v1/usage").status_code == 405
    before = used.gateway.settled("wardgate_requests_total", endpoint="usage")
    used.ask("inference", "GET", "/v1/usage")
    assert used.gateway.settled("wardgate_requests_total", endpoint="usage") == before + 1


def test_no_usage_is_a_zero(used: Control) -> None:
    answer = told(used, "month=2025-01&by=model,month")
    assert answer["rows"] == [] and answer["total"]["cost_usd"] == "0"
    assert set(answer["total"].values()) == {0, "0"}


def test_database_that_is_away_is_said(gateway: RunningGateway) -> None:
    control = prepared(gateway)

    async def rename(old: str, new: str) -> None:
        engine = create_async_engine(parse_url(gateway.database_url))
        async with engine.begin() as connection:
            await connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")
        await engine.dispose()

    asyncio.run(rename("wardgate_usage", "away"))
    for who, path in (("inference", "/v1/usage"), ("admin", "/admin/usage")):
        answer = control.ask(who, "GET", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keystore_unavailable")
    asyncio.run(rename("away", "wardgate_usage"))
    assert control.ask("inference", "GET", "/v1/usage").status_code == 200
    control.client.close()
