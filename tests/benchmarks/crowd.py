"""Many tenants: how long finding and opening one key takes beside a thousand tenants and beside a million.

`python -m tests.benchmarks.crowd` fills an SQLite file and a real PostgreSQL with sealed keys (five for each tenant),
then reads keyrings in random order: cold, from the database, and warm, from the cache. A million tenants take some
minutes and some gigabytes on each database. No test: nothing fails for being slow.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from keystore.engine import Database, parse_url
from keystore.holdings import hint_of, hosts_of
from keystore.keystore import Keystore
from keystore.providers import Registry, load_registry
from keystore.resolve import provider_for_setting
from keystore.rings import open_ring
from keystore.rootkeys import SealingSource
from keystore.sealing import KEY_BYTES, NONCE_BYTES, Opened, Place, fingerprint, seal, wrap
from keystore.servicekeys import Purpose, open_service_keys
from keystore.tables import credentials, tenant_keys, tenant_names, tenants
from keystore.tenants import Tenant
from router.plans import load_plans
from tests import services
from tests.benchmarks.served import percentile

NAMES = ("MINIMAX_2_7_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY", "MISTRAL_API_KEY")
ASKED = "minimax"
CHUNK = 2_000  # tenants that are written at once
COLD = 5_000  # keyrings read from the database
WARM = 20_000
REWRAPPED = 10_000  # up to so many tenants are rewrapped as well
TABLES = (tenants, tenant_names, tenant_keys, credentials)


@dataclass(frozen=True, slots=True)
class Figures:
    """One database with one number of tenants; times in microseconds, memory in MB."""

    database: str
    tenants: int
    keys: int
    generated_s: float
    cold_p50_us: float
    cold_p99_us: float
    warm_p50_us: float
    warm_p99_us: float
    unseal_p50_us: float
    rewrapped_s: float | None  # all of them, where they are not too many
    resident_mb: float


def main() -> int:
    chosen = _arguments()
    found: list[Figures] = []
    console = Console(stderr=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardgate-crowd-", dir=chosen.folder)))
        server = stack.enter_context(services.postgres()) if "postgres" in chosen.databases else None
        for kind in chosen.databases:
            for number in chosen.tenants:
                with ExitStack() as once:
                    if kind == "sqlite":
                        url = f"sqlite+aiosqlite:///{folder}/crowd-{number}.db"
                    else:
                        assert server is not None
                        url = once.enter_context(services.database(server))
                    found.append(asyncio.run(_measure(kind, url, folder / f"{kind}-{number}.keys", number, console)))
    _print(found, as_json=chosen.json)
    return 0


async def _measure(kind: str, url: str, ring: Path, number: int, console: Console) -> Figures:
    registry = load_registry()
    keystore = await _open(url, ring, registry)
    await keystore.close()
    started = time.monotonic()
    ids = await _fill(url, ring, registry, number, console)
    generated_s = time.monotonic() - started
    keystore = await _open(url, ring, registry)
    await keystore.begin_serving()
    try:
        cold, opened = await _cold(keystore, ids)
        warm = await _warm(keystore, ids[: min(len(ids), 1_000)])
        rewrapped_s = await _rewrap(keystore) if number <= REWRAPPED else None
    finally:
        await keystore.close()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Figures(
        kind,
        number,
        number * len(NAMES),
        generated_s,
        percentile(cold, 50),
        percentile(cold, 99),
        percentile(warm, 50),
        percentile(warm, 99),
        percentile(opened, 50),
        rewrapped_s,
        resident,
    )


async def _open(url: str, ring: Path, registry: Registry) -> Keystore:
    return await Keystore.open(
        database_url=url,
        sealing=SealingSource(None, ring),
        registry=registry,
        known_plans=load_plans({}).names,
        create=True,
    )


async def _cold(keystore: Keystore, ids: Sequence[str]) -> tuple[list[float], list[float]]:
    """Each tenant once: the statements, every envelope opened and judged; then one key unsealed."""
    cold, opened = [], []
    chosen = random.sample(ids, min(COLD, len(ids)))
    for one in chosen:
        tenant = _tenant(one)
        before = time.perf_counter()
        keyring = await keystore.keyring(tenant)
        between = time.perf_counter()
        keystore.unseal(keyring, ASKED)
        after = time.perf_counter()
        cold.append((between - before) * 1e6)
        opened.append((after - between) * 1e6)
    return cold, opened


async def _warm(keystore: Keystore, ids: Sequence[str]) -> list[float]:
    """Keyrings that are remembered, found and unsealed, as a request does it."""
    held = [_tenant(one) for one in ids]
    for tenant in held:
        await keystore.keyring(tenant)
    times = []
    for _ in range(min(WARM, 50 * len(held))):
        tenant = random.choice(held)
        before = time.perf_counter()
        keyring = await keystore.keyring(tenant)
        keystore.unseal(keyring, ASKED, keystore.keys_in_turn(keyring, ASKED)[0])
        times.append((time.perf_counter() - before) * 1e6)
    return times


async def _rewrap(keystore: Keystore) -> float:
    """How long a new root key takes to wrap every tenant's key."""
    await keystore.sealing.activate(await keystore.sealing.add())
    before = time.monotonic()
    tally = await keystore.sealing.rewrap()
    if tally.faults:
        raise RuntimeError(f"{tally.failed} keys were not rewrapped")
    return time.monotonic() - before


def _tenant(tenant_id: str) -> Tenant:
    return Tenant(tenant_id, f"t-{tenant_id}", "", "team", None, datetime(2026, 11, 21, tzinfo=UTC))


# --- filling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seals:
    """What generating needs of an open keystore."""

    kek_id: str
    kek: bytes
    fingerprint_key: bytes


async def _fill(url: str, ring: Path, registry: Registry, number: int, console: Console) -> list[str]:
    """`number` tenants with sealed keys, written in the order of their ids; the ids."""
    database = Database(url)
    opened = await open_ring(database, SealingSource(None, ring), create=False, now=_now, random=os.urandom)
    service = await open_service_keys(database, opened, now=_now, random=os.urandom)
    await database.close()
    seals = _Seals(opened.active, opened.keys.get(opened.active), service.get(Purpose.FINGERPRINT).key)
    ids = sorted(str(uuid.UUID(bytes=os.urandom(16), version=4)) for _ in range(number))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(f"{url.partition(':')[0]}: tenants", total=number)
        if url.startswith("sqlite"):
            path = parse_url(url).database
            assert path is not None
            for written in _into_sqlite(path, _rows(ids, registry, seals)):
                progress.advance(task, written)
        else:
            async for written in _into_postgres(url, _rows(ids, registry, seals)):
                progress.advance(task, written)
    return ids


Rows = dict[str, list[tuple[Any, ...]]]


def _rows(ids: Sequence[str], registry: Registry, seals: _Seals) -> Iterator[tuple[int, Rows]]:
    """The rows of a chunk of tenants, by table, in the order of the tables' columns."""
    owners = {name: provider_for_setting(name, registry) for name in NAMES}
    now = _now()
    for start in range(0, len(ids), CHUNK):
        rows: Rows = {table.name: [] for table in TABLES}
        chunk = ids[start : start + CHUNK]
        for tenant_id in chunk:
            rows[tenants.name].append((tenant_id, f"t-{tenant_id}", "crowd", "team", None, now, now, None))
            rows[tenant_names.name].append((tenant_id.replace("-", ""), tenant_id))
            dek, dek_id = os.urandom(KEY_BYTES), uuid.uuid4().hex[:20]
            key = wrap(
                seals.kek,
                dek,
                kek_id=seals.kek_id,
                tenant_id=tenant_id,
                dek_id=dek_id,
                nonce=os.urandom(NONCE_BYTES),
            )
            rows[tenant_keys.name].append((dek_id, tenant_id, seals.kek_id, key.wrapped, len(NAMES), "active", now))
            for place, name in enumerate(NAMES):
                owner = owners[name]
                assert owner is not None
                value = f"sk-{tenant_id}-{place}"
                where = Place(tenant_id, f"{tenant_id[:34]}{place:02d}", name)
                envelope = seal(
                    dek,
                    Opened(value.encode(), hosts_of(owner)),
                    where,
                    dek_id=dek_id,
                    nonce=os.urandom(NONCE_BYTES),
                )
                mark = fingerprint(seals.fingerprint_key, value)
                rows[credentials.name].append(
                    (
                        where.credential_id,
                        tenant_id,
                        name,
                        owner.id,
                        1,
                        "active",
                        "",
                        envelope,
                        hint_of(value),
                        mark,
                        "set",
                        now,
                        now,
                        1,
                        0,
                        None,
                        None,
                    )
                )
        yield len(chunk), rows


def _into_sqlite(path: str, chunks: Iterator[tuple[int, Rows]]) -> Iterator[int]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-1000000;")
        for number, rows in chunks:
            connection.execute("BEGIN")
            for table in TABLES:
                marks = ", ".join("?" * len(table.columns))
                plain = [
                    tuple(f"{one:%Y-%m-%d %H:%M:%S.%f}" if isinstance(one, datetime) else one for one in row)
                    for row in rows[table.name]
                ]
                connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", plain)
            connection.execute("COMMIT")
            yield number
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


async def _into_postgres(dsn: str, chunks: Iterator[tuple[int, Rows]]) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        for number, rows in chunks:
            for table in TABLES:
                await connection.copy_records_to_table(table.name, records=rows[table.name])
            yield number
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def _now() -> datetime:
    return datetime.now(UTC)


# --- what is said --------------------------------------------------------------------------------------------------


def _print(found: Sequence[Figures], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    titles = (
        "tenants",
        "keys",
        "filled in s",
        "cold p50 µs",
        "cold p99",
        "warm p50",
        "warm p99",
        "unseal p50",
        "rewrapped in s",
    )
    table = Table("database", *titles, "resident MB", "cold p50 to the first", box=None, pad_edge=False)
    first: dict[str, float] = {}
    for one in found:
        base = first.setdefault(one.database, one.cold_p50_us)
        times = (one.cold_p50_us, one.cold_p99_us, one.warm_p50_us, one.warm_p99_us, one.unseal_p50_us)
        table.add_row(
            *(one.database, f"{one.tenants:,}", f"{one.keys:,}", f"{one.generated_s:,.0f}"),
            *(f"{number:,.1f}" for number in times),
            *(
                "-" if one.rewrapped_s is None else f"{one.rewrapped_s:,.1f}",
                f"{one.resident_mb:,.0f}",
                f"{one.cold_p50_us / base:.2f}",
            ),
        )
    console = Console()
    (console if console.is_terminal else Console(width=180)).print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.crowd", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--tenants", type=int, nargs="+", default=[1_000, 10_000, 1_000_000])
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"])
    parser.add_argument("--folder", type=Path, default=None, help="where the SQLite file is made; else TMPDIR")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
