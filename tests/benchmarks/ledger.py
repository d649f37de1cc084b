"""The ledger's figures: rows written a second into both databases, bytes a row takes, and how long it takes to read.

    python -m tests.benchmarks.ledger                      # writing, both databases, some seconds
    python -m tests.benchmarks.ledger --size 1000000       # bytes of so many rows
    python -m tests.benchmarks.ledger --among 10000000     # reading among so many rows, on PostgreSQL

No test: nothing here fails for being slow. PostgreSQL is a scratch database of the tests' own server, which does not
sync its files, unless WARDGATE_TEST_DATABASE_URL names another.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from keystore.clock import utc_now
from keystore.engine import Database
from keystore.ledger import LedgerStore
from keystore.ledger_row import LedgerRow, State
from keystore.migrate import migrate
from tests.benchmarks.machine import cpu_s, describe
from tests.services import database, postgres

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
TENANTS = 200
MODELS = ("gpt-4o-mini", "gpt-4o", "claude-sonnet-4-5", "MiniMax-M2")
BATCHES = (200, 1_000, 5_000)
WRITTEN = 20_000  # rows of a round
ROUNDS = 3  # of which the one that took least of the processor is printed: others disturb, nothing speeds up
TIMES = 50
DETAIL = json.dumps(
    {
        "lines": [["input", 1234, "0.00000015", 185100], ["output", 512, "0.0000006", 307200]],
        "attempts": [
            {"provider": "minimax", "model": "MiniMax-M2", "outcome": "rate_limited", "status": 429, "ms": 41},
            {"provider": "openai", "model": "gpt-4o-mini", "outcome": "ok", "status": 200, "ms": 812},
        ],
    }
)


@dataclass(frozen=True, slots=True)
class Written:
    """What writing so many rows took, in seconds: by the clock, of this process, of the database's (None: the same)."""

    rows: int
    clock_s: float
    own_s: float
    server_s: float | None

    @property
    def cpu_s(self) -> float:
        return self.own_s + (self.server_s or 0)

    def line(self, name: str, batch: int) -> str:
        each = 1e6 / self.rows
        server = "" if self.server_s is None else f" + {self.server_s * each:.1f} of the server"
        return (
            f"{name:10} batches of {batch:5,}: {self.rows / self.clock_s:8,.0f} rows/s by the clock; a row takes"
            f" {self.own_s * each:.1f} us of this process{server}: {self.rows / self.cpu_s:8,.0f} rows/s of one core"
        )


def some_rows(number: int, chance: random.Random, *, began: datetime = START) -> list[LedgerRow]:
    """Rows as a gateway writes them, 1 ms apart: most requests are of few tenants, each with two tokens."""
    return [_a_row(began + timedelta(milliseconds=each), chance) for each in range(number)]


def _a_row(began_at: datetime, chance: random.Random) -> LedgerRow:
    tenant = min(int(chance.paretovariate(0.7)), TENANTS)
    ok = chance.random() < 0.95
    return LedgerRow(
        request_id=f"req_{chance.getrandbits(128):032x}",
        began_at=began_at,
        tenant_id=f"tenant-{tenant:029}",
        token_id=f"{tenant:09}{chance.randrange(2):03}",
        endpoint="chat",
        state=State.SETTLED,
        outcome="ok" if ok else "error",
        client_request_id=f"{chance.getrandbits(128):032x}",
        stream=True,
        model_asked="auto",
        provider="openai",
        model=chance.choice(MODELS),
        key_source="tenant",
        key_via="stored",
        setting_key="OPENAI_API_KEY",
        status=200 if ok else 502,
        input_tokens=2234,
        output_tokens=512,
        cached_input_tokens=1000,
        cost_nano=567_300,
        catalogue="release-12-1f3a9c0e",
        attempts=2,
        duration_ms=912,
        upstream_ms=853,
        first_token_ms=210,
        detail=DETAIL,
    )


# --- databases -----------------------------------------------------------------------------------------------------


@contextmanager
def scratch() -> Iterator[dict[str, str]]:
    """The URL of an empty database of each kind, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, postgres() as server, database(server) as dsn:
        yield {"sqlite": f"sqlite+aiosqlite:///{Path(folder) / 'ledger.db'}", "postgresql": dsn}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    await migrate(url)
    opened = Database(url, command_s=None)
    try:
        yield opened
    finally:
        await opened.close()


async def ask(opened: Database, statement: str, **values: Any) -> list[Any]:
    async with opened.read() as connection:
        result = await connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []


async def server_cpu_s(opened: Database) -> float | None:
    """Of the connections that a writer uses: this pool has one."""
    if opened.is_sqlite:
        return None
    return cpu_s((await ask(opened, "SELECT pg_backend_pid()"))[0][0])


# --- writing -------------------------------------------------------------------------------------------------------


async def write(opened: Database, number: int, batch: int, chance: random.Random) -> Written:
    """Write `number` rows from a journal of its own, and measure."""
    store = LedgerStore(opened, now=utc_now)
    journal = f"journal-{chance.getrandbits(32)}"
    batches = [some_rows(batch, chance) for _ in range(number // batch)]
    server = await server_cpu_s(opened)
    own, clock = time.process_time(), time.perf_counter()
    for index, rows in enumerate(batches):
        await store.write(journal, index * batch, rows)
    took, used = time.perf_counter() - clock, time.process_time() - own
    after = await server_cpu_s(opened)
    return Written(batch * len(batches), took, used, None if server is None or after is None else after - server)


async def writing(urls: dict[str, str]) -> None:
    for name, url in urls.items():
        async with opened(url) as one:
            await write(one, 1_000, 1_000, random.Random(0))  # the statements are prepared, the month is made
            for batch in BATCHES:
                rounds = [await write(one, WRITTEN, batch, random.Random(batch + each)) for each in range(ROUNDS)]
                print(min(rounds, key=lambda each: each.cpu_s).line(name, batch), flush=True)


# --- size ----------------------------------------------------------------------------------------------------------


async def size(urls: dict[str, str], number: int) -> None:
    for name, url in urls.items():
        async with opened(url) as one:
            chance, store = random.Random(1), LedgerStore(one, now=utc_now)
            clock = time.perf_counter()
            for first in range(0, number, 5_000):
                rows = some_rows(5_000, chance, began=START + timedelta(seconds=first / 1_000))
                await store.write("journal", first, rows)
            took = time.perf_counter() - clock
            asked = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            if not one.is_sqlite:
                asked = "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits"
            whole = int((await ask(one, asked))[0][0])
            print(
                f"{name}: {number:,} rows are {whole / 1e6:,.0f} MB, {whole / number:.0f} bytes a row with its indexes;"
                f" made and written in {took:.0f} s"
            )


# --- reading -------------------------------------------------------------------------------------------------------

MAKE = """
INSERT INTO wardgate_ledger
SELECT 'req_' || md5(n::text), timestamptz '2026-10-01 00:00+00' + n * (interval '60 days' / CAST(:number AS bigint)),
  'tenant-' || lpad((n % 500)::text, 29, '0'), 'token-' || (n % 1500), md5((-n)::text), 'chat', 1, 'auto', 'openai',
  (ARRAY['gpt-4o-mini', 'gpt-4o', 'claude-sonnet-4-5', 'MiniMax-M2'])[1 + n / 500 % 4],
  'tenant', 'stored', 'OPENAI_API_KEY', 'settled', CASE WHEN n / 2000 % 20 = 0 THEN 'error' ELSE 'ok' END,
  200, NULL, NULL, 2234, 512, 1000, NULL, NULL, 567300, 'release-12-1f3a9c0e', 2, 912, 853, 210, CAST(:detail AS text)
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) n
"""
ADD_UP = """
INSERT INTO wardgate_usage
SELECT tenant_id, p.period, (date_trunc(p.period, began_at AT TIME ZONE 'UTC'))::date, token_id, provider, model,
  key_source, outcome, count(*), sum(input_tokens), sum(output_tokens), sum(cached_input_tokens), 0, 0, sum(cost_nano),
  0, 0
FROM wardgate_ledger, (VALUES ('day'), ('month')) p(period) GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""
USAGE = """
SELECT starts, model, sum(requests), sum(input_tokens), sum(output_tokens), sum(cost_nano) FROM wardgate_usage
WHERE tenant_id = :tenant AND period = :period AND starts >= '2026-11-01' AND starts < '2026-12-01' GROUP BY 1, 2
"""
TENANT = f"tenant-{7:029}"


async def reading(url: str, number: int) -> None:
    """Reads among `number` rows of two months and 500 tenants."""
    async with opened(url) as one:
        clock = time.perf_counter()
        await _fill(one, number)
        print(f"{number:,} rows made in {time.perf_counter() - clock:.0f} s")
        store, chance = LedgerStore(one, now=utc_now), random.Random(2)
        chosen = [str(chance.randrange(1, number)) for _ in range(TIMES)]
        ids = [row[0] for each in chosen for row in await ask(one, "SELECT 'req_' || md5(CAST(:n AS text))", n=each)]
        for period in ("month", "day"):
            took = [await _timed(ask(one, USAGE, tenant=TENANT, period=period)) for _ in range(TIMES)]
            print(_times(f"a tenant's usage of a month, from its {period}s", took))
        print(_times("a row by its id", [await _timed(store.get(each)) for each in ids]))
        print(_times("a row by its id and tenant", [await _timed(_or_none(store, each)) for each in ids]))
        await _explained(one, USAGE, tenant=TENANT, period="day")
        await _explained(one, "SELECT * FROM wardgate_ledger WHERE request_id = :id", id=ids[0])


async def _fill(one: Database, number: int) -> None:
    for month in ("2026_10", "2026_11"):
        year, digits = month.split("_")
        store = LedgerStore(one, now=utc_now)
        await store.write(f"of-{month}", 0, [_a_row(datetime(int(year), int(digits), 5, tzinfo=UTC), random.Random(3))])
    step = 500_000
    for first in range(1, number, step):
        async with one.write() as connection:
            given = {"first": first, "last": min(first + step, number) - 1, "number": number, "detail": DETAIL}
            await connection.execute(text(MAKE), given)
    async with one.write() as connection:
        await connection.execute(text("TRUNCATE wardgate_usage"))
        await connection.execute(text(ADD_UP))
        await connection.execute(text("ANALYZE wardgate_ledger, wardgate_usage"))


async def _or_none(store: LedgerStore, request_id: str) -> None:
    row = await store.get(request_id)
    await store.get(request_id, tenant_id=row.tenant_id)


async def _timed(work: Any) -> float:
    clock = time.perf_counter()
    await work
    return time.perf_counter() - clock


def _times(what: str, took_s: Sequence[float]) -> str:
    return f"{what}: median {statistics.median(took_s) * 1e3:.2f} ms, longest of {len(took_s)} {max(took_s) * 1e3:.2f}"


async def _explained(one: Database, statement: str, **values: Any) -> None:
    print(statement.strip())
    for (line,) in await ask(one, "EXPLAIN (ANALYZE, BUFFERS) " + statement, **values):
        print("   ", line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, metavar="ROWS")
    parser.add_argument("--among", type=int, metavar="ROWS")
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    chosen = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    with scratch() as urls:
        wanted = {name: url for name, url in urls.items() if chosen.only in (None, name)}
        if chosen.size:
            asyncio.run(size(wanted, chosen.size))
        elif chosen.among:
            asyncio.run(reading(urls["postgresql"], chosen.among))
        else:
            asyncio.run(writing(wanted))


if __name__ == "__main__":
    main()
