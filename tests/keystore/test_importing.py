"""Adoption of a tenant_settings table: nothing lost, nothing changed, nothing left behind (RELIABILITY 4.6, G13)."""

import asyncio
import json
import os
import random
import sqlite3
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from keystore.errors import DatabaseUnavailable, ImportRefused, UnknownPlan
from keystore.importing.classify import Kind, classify, quarantine
from keystore.importing.importer import Applied, ImportOptions, Planned
from keystore.importing.scrub import still_in_files
from keystore.importing.source import TenantTable, open_source
from keystore.importing.verify import Verified
from keystore.keystore import Keystore
from keystore.providers import Registry
from keystore.resolve import Found, Store, known_names
from keystore.sealing import Place
from keystore.tenantkeys import sealed_with
from tests.forks import program
from tests.keystore.conftest import World
from tests.keystore.legacy_corpus import CANARY, T1, Corpus, Row, corpus

ROWS = int(os.environ.get("WARDGATE_IMPORT_ROWS", "5000"))
KILLS = int(os.environ.get("WARDGATE_IMPORT_KILLS", "2"))
ON_POSTGRES = 700
NOTHING = ImportOptions()


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


# --- tables --------------------------------------------------------------------------------------------------------


async def fill(url: str, rows: Sequence[Row], *, key: str = "id {serial} PRIMARY KEY, ") -> None:
    """A settings table of these rows."""
    columns = (
        "tenant_id VARCHAR(64), setting_key VARCHAR(200), setting_value TEXT,"
        " created_at TIMESTAMP, updated_at TIMESTAMP"
    )
    if url.startswith("sqlite"):
        database = sqlite3.connect(file_of(url))
        database.execute(f"CREATE TABLE tenant_settings ({key.format(serial='INTEGER')}{columns})")
        database.executemany(f"INSERT INTO tenant_settings {_INTO} VALUES (?, ?, CAST(? AS TEXT), ?, ?)", rows_of(rows))
        blobs = [(row.value, row.name, row.tenant_id) for row in rows if row.kind == "blob"]
        database.executemany(
            "UPDATE tenant_settings SET setting_value = ? WHERE setting_key = ? AND tenant_id = ?", blobs
        )
        database.commit()
        database.close()
        return
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE TABLE tenant_settings ({key.format(serial='SERIAL')}{columns})")
    await connection.executemany(
        f"INSERT INTO tenant_settings {_INTO} VALUES ($1, $2, $3, $4, $5)",
        [(a, b, c, *(time and datetime.fromisoformat(time) for time in times)) for a, b, c, *times in rows_of(rows)],
    )
    await connection.close()


_INTO = "(tenant_id, setting_key, setting_value, created_at, updated_at)"


def rows_of(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return [(row.tenant_id, row.name, row.value, row.created_at, row.updated_at) for row in rows]


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite+aiosqlite:///"))


async def stored_values(world: World) -> list[bytes | None]:
    """What the table holds, by id, byte for byte."""
    kind = "BLOB" if world.is_sqlite else "TEXT"
    rows = await world.sql(f"SELECT CAST(setting_value AS {kind}) FROM tenant_settings ORDER BY id")
    return [value.encode() if isinstance(value, str) else value for (value,) in rows]


async def stocked(world: World, made: Corpus) -> Keystore:
    """A keystore that has the corpus's tenants."""
    keystore = await world.open()
    now = world.clock()
    await world.sql(
        *(
            f"INSERT INTO wardgate_tenants (id, slug, name, plan, created_at, updated_at)"
            f" VALUES ('{each}', '{slug}', '{slug}', 'team', '{now.isoformat(sep=' ')}', '{now.isoformat(sep=' ')}')"
            for slug, each in made.tenants.items()
        )
    )
    return keystore


async def apply(keystore: Keystore, url: str | None = None, options: ImportOptions = NOTHING) -> Applied:
    return await keystore.importing.apply(url, options, None, batch=500, progress=quiet)


async def verify(keystore: Keystore, url: str | None = None) -> Verified:
    return await keystore.importing.verify(url, quiet)


def total(planned: Planned) -> int:
    return sum(planned.counts["outcomes"].values())


async def opened_values(world: World, keystore: Keystore) -> list[bytes]:
    """Every sealed value, opened past the importer."""
    values = []
    keys: dict[str, Any] = {}
    for tenant, credential, name, envelope in await world.sql(
        "SELECT tenant_id, credential_id, setting_key, envelope FROM wardgate_credentials"
    ):
        if tenant not in keys:
            async with keystore._database.read() as connection:
                keys[tenant] = await keystore._keys.all_of(connection, tenant)
        place = Place(tenant, credential, name)
        values.append(keystore._keys.open(sealed_with(envelope, place, keys[tenant])).secret)
    return values


@dataclass
class Adopted:
    """A keystore beside a settings table in the same database."""

    world: World
    keystore: Keystore
    made: Corpus


@pytest.fixture
async def adopted(world: World) -> AsyncIterator[Adopted]:
    made = corpus(80, sqlite=world.is_sqlite)
    await fill(world.url, made.rows)
    keystore = await stocked(world, made)
    yield Adopted(world, keystore, made)
    await keystore.close()
    if not world.is_sqlite:
        await world.sql("DROP TABLE tenant_settings")


# --- what a row is -------------------------------------------------------------------------------------------------


CLASSES = {
    "known": ("OPENAI_API_KEY", b"anything", Kind.KNOWN_NAME, None),
    "known and empty": ("OPENAI_API_KEY", None, Kind.KNOWN_NAME, "empty"),
    "unknown provider": ("NOBODY_API_KEY", b"abcdef123456", Kind.SECRET_NAME, "unknown_name"),
    "lower case": ("openai_api_key", b"abcdef123456", Kind.SECRET_NAME, "unknown_name"),
    "hyphens": ("stripe-secret", b"abcdef", Kind.SECRET_NAME, "unknown_name"),
    "access key id": ("AWS_ACCESS_KEY_ID", b"AKIAabcdef", Kind.SECRET_NAME, "unknown_name"),
    "number": ("MAX_TOKEN", b"4096", Kind.SETTING, None),
    "prefix": ("note", b"sk-abcdefghijklmnop", Kind.SECRET_VALUE, "unknown_name"),
    "dense": ("note", b"aB3dE5gH7jK9mN1pQ3sT5vW7xY9z", Kind.SECRET_VALUE, "unknown_name"),
    "pem": ("note", b"-----BEGIN RSA PRIVATE KEY-----\nx", Kind.SECRET_VALUE, "control_characters"),
    "words": ("motto", b"nothing is silent here, and never was", Kind.SETTING, None),
    "url": ("home", b"https://example.com/a/B3/c/D4/e/F5/aaaaaaaa", Kind.SETTING, None),
    "uuid": ("ref", b"31c06fc4-db22-4740-83ea-48ac14f25810", Kind.SETTING, None),
    "tokenizer": ("tokenizer", b"cl100k_base", Kind.SETTING, None),
    "damaged": ("X_SECRET", b"\xff\xfe", Kind.SECRET_NAME, "damaged"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_row_is_classified_by_its_name_and_value(name: str, registry: Registry) -> None:
    key, value, kind, why = CLASSES[name]
    known = known_names(registry)
    assert classify(key, value, known) is kind
    if kind is not Kind.SETTING:
        assert quarantine(key, value, known) == why


# --- plan ----------------------------------------------------------------------------------------------------------


async def test_plan_writes_a_manifest_without_values_and_nothing_else(adopted: Adopted, tmp_path: Path) -> None:
    before = await stored_values(adopted.world)
    path = tmp_path / "plan.jsonl"
    planned = await adopted.keystore.importing.plan(None, NOTHING, path, quiet)
    assert total(planned) == planned.rows == len(adopted.made.rows)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CANARY not in path.read_text()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == planned.rows + 1 and lines[0]["import_id"] == planned.import_id
    assert len({line["mark"] for line in lines[1:]}) == planned.rows
    assert await stored_values(adopted.world) == before
    assert await adopted.world.sql("SELECT count(*) FROM wardgate_imports") == [(0,)]
    assert planned.no_tenant == sorted({row.tenant_id for row in adopted.made.of("unknown tenant")})
    assert {"GROQ_API_KEY", "XAI_API_KEY", "MISTRAL_API_KEY"} <= {each["setting_key"] for each in planned.conflicts}


async def test_apply_tells_what_is_not_as_in_the_manifest(adopted: Adopted, tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    planned = await adopted.keystore.importing.plan(None, NOTHING, path, quiet)
    await adopted.world.sql("UPDATE tenant_settings SET setting_value = 'UTC' WHERE setting_key = 'timezone'")
    done = await adopted.keystore.importing.apply(None, NOTHING, path, batch=10, progress=quiet)
    assert done.since_plan == len(adopted.made.of("setting")) - len(
        [row for row in adopted.made.of("setting") if row.name != "timezone"]
    )
    assert done.plan.import_id == planned.import_id
    path.write_text("{}")
    with pytest.raises(ImportRefused, match="manifest"):
        await adopted.keystore.importing.apply(None, NOTHING, path, batch=10, progress=quiet)


# --- apply ---------------------------------------------------------------------------------------------------------


async def test_every_row_is_taken_over_byte_for_byte_and_again_is_nothing(adopted: Adopted) -> None:
    done = await apply(adopted.keystore)
    assert done.taken == len(adopted.made.rows) == total(done.plan)
    wanted = sorted(
        row.value if isinstance(row.value, bytes) else (row.value or "").encode()
        for row in adopted.made.rows
        if row.kind not in ("setting", "null name", "unknown tenant", "plain number under a secret's name")
    )
    assert sorted(await opened_values(adopted.world, adopted.keystore)) == wanted
    again = await apply(adopted.keystore)
    assert (again.taken, again.elsewhere, again.edited) == (0, 0, 0)
    assert len(await opened_values(adopted.world, adopted.keystore)) == len(wanted)
    result = await verify(adopted.keystore)
    assert result.passed, result.failures
    assert result.rows == sum(result.outcomes.values()) and result.lookups > 0


async def test_what_answers_is_what_answered_before(adopted: Adopted) -> None:
    before = {}
    for tenant in await adopted.keystore.tenants.list():
        ring = await adopted.keystore.keyring(tenant)
        for provider, found in ring.resolutions.items():
            if isinstance(found, Found):
                before[tenant.slug, provider] = adopted.keystore.unseal(ring, provider).secret.reveal()
    assert len(before) > 10
    await apply(adopted.keystore)
    for tenant in await adopted.keystore.tenants.list():
        ring = await adopted.keystore.keyring(tenant)
        for provider, found in ring.resolutions.items():
            if isinstance(found, Found):
                assert found.store is Store.CREDENTIALS
                assert adopted.keystore.unseal(ring, provider).secret.reveal() == before.pop((tenant.slug, provider))
    assert not before


async def test_newest_of_two_rows_is_in_force_and_the_other_an_older_version(adopted: Adopted) -> None:
    await apply(adopted.keystore)
    rows = await adopted.world.sql(
        "SELECT state, count(*) FROM wardgate_credentials WHERE setting_key = 'GROQ_API_KEY' GROUP BY state ORDER BY 1"
    )
    assert [state for state, _ in rows] == ["active", "superseded"]
    reasons = {
        str(why)
        for (why,) in await adopted.world.sql("SELECT DISTINCT quarantine FROM wardgate_credentials")
        if why is not None
    }
    expected = {"empty", "masked", "placeholder", "reference", "encrypted", "oversized", "control_characters"}
    assert expected | {"unknown_name", "other_spelling"} <= reasons


async def test_a_row_edited_later_is_told_and_taken_over_as_a_new_version(adopted: Adopted) -> None:
    await apply(adopted.keystore)
    slug, tenant_id = next(iter(adopted.made.tenants.items()))
    change = "UPDATE tenant_settings SET setting_value = :v WHERE setting_key = 'OPENAI_API_KEY' AND tenant_id = :t"
    for version, value in ((2, "sk-second-value-0123456789"), (3, adopted.made.of("plain key")[0].value)):
        await adopted.world.sql(change, v=value, t=tenant_id)
        told = await verify(adopted.keystore)
        assert [each[:2] for each in told.changed_since] == [(slug, "OPENAI_API_KEY")] and not told.passed
        await apply(adopted.keystore)
        assert (await verify(adopted.keystore)).passed
        tenant = await adopted.keystore.tenants.get(slug)
        ring = await adopted.keystore.keyring(tenant)
        assert ring.holdings["OPENAI_API_KEY"][0].version == version
        assert adopted.keystore.unseal(ring, "openai").secret.reveal() == value


async def test_a_key_that_was_set_here_is_never_displaced(adopted: Adopted) -> None:
    slug = next(iter(adopted.made.tenants))
    tenant = await adopted.keystore.tenants.get(slug)
    await adopted.keystore.credentials.set(tenant, "OPENAI_API_KEY", "sk-set-by-the-operator-0001")
    await apply(adopted.keystore)
    ring = await adopted.keystore.keyring(tenant)
    assert adopted.keystore.unseal(ring, "openai").secret.reveal() == "sk-set-by-the-operator-0001"
    result = await verify(adopted.keystore)
    assert result.passed and (slug, "OPENAI_API_KEY") in result.set_here


async def test_two_operators_at_once_take_each_row_once(adopted: Adopted) -> None:
    second = await adopted.world.open()
    first, other = await asyncio.gather(apply(adopted.keystore), apply(second))
    await second.close()
    rows = len(adopted.made.rows)
    assert first.taken + other.taken == rows
    assert len(await adopted.world.sql("SELECT import_id FROM wardgate_imports")) == 1
    assert (await verify(adopted.keystore)).passed


async def test_a_damaged_credential_fails_the_gates(adopted: Adopted) -> None:
    await apply(adopted.keystore)
    await adopted.world.sql("UPDATE wardgate_credentials SET envelope = 'wg1.x.y' WHERE setting_key = 'integration'")
    result = await verify(adopted.keystore)
    assert any("same bytes" in each for each in result.failures) and not result.passed
    with pytest.raises(ImportRefused, match="verify"):
        await adopted.keystore.importing.scrub(batch=500, progress=quiet)


# --- tenants -------------------------------------------------------------------------------------------------------


async def test_tenants_are_made_only_on_a_plan_that_is_stated_and_known(adopted: Adopted) -> None:
    with pytest.raises(ImportRefused, match="--plan"):
        await apply(adopted.keystore, options=ImportOptions(create_tenants=True))
    with pytest.raises(UnknownPlan):
        await apply(adopted.keystore, options=ImportOptions(create_tenants=True, plan="teem"))
    gone = {row.tenant_id for row in adopted.made.of("unknown tenant")}
    assert (await apply(adopted.keystore)).plan.counts["outcomes"]["no_tenant"] == len(gone)
    done = await apply(adopted.keystore, options=ImportOptions(create_tenants=True, plan="team"))
    assert set(done.created) == gone and "no_tenant" not in done.plan.counts["outcomes"]
    result = await verify(adopted.keystore)
    assert result.passed, result.failures


async def test_tenants_are_read_through_a_mapping(adopted: Adopted) -> None:
    gone = sorted({row.tenant_id for row in adopted.made.of("unknown tenant")})
    await adopted.world.sql(
        "CREATE TABLE accounts (id VARCHAR(64), handle VARCHAR(64), tier VARCHAR(64))",
        f"INSERT INTO accounts VALUES ('{gone[0]}', 'first', 'solo'), ('{gone[1]}', 'second', 'platinum')",
        "INSERT INTO accounts VALUES ('a-1', 'twice', 'solo'), ('a-2', 'twice', 'solo')",
    )
    options = ImportOptions(TenantTable("accounts", "id", "handle", "tier"), create_tenants=True)
    try:
        done = await apply(adopted.keystore, options=options)
        assert (done.created, done.plan.unknown_plans) == (["first"], {"platinum": 1})
        assert (done.plan.no_tenant, done.plan.ambiguous_tenants) == ([gone[1]], ("a-1", "a-2"))
        assert (await adopted.keystore.tenants.get("first")).plan == "solo"
        assert (await verify(adopted.keystore)).passed
        with pytest.raises(ImportRefused, match="nowhere"):
            await apply(adopted.keystore, options=ImportOptions(TenantTable("nowhere", "id", "slug", None)))
    finally:
        await adopted.world.sql("DROP TABLE accounts")


# --- another database ----------------------------------------------------------------------------------------------


async def test_another_database_is_only_read_and_its_settings_are_copied(world: World, tmp_path: Path) -> None:
    made = corpus(70)
    other = f"sqlite+aiosqlite:///{tmp_path / 'other.db'}"
    await fill(other, made.rows)
    before = file_of(other).read_bytes()
    keystore = await stocked(world, made)
    try:
        assert (await apply(keystore, other)).taken == len(made.rows)
        settings = await world.sql("SELECT setting_value FROM wardgate_imported_settings")
        plain = [row.value.encode() for row in made.rows if row.kind in ("setting", _NUMBER)]
        assert sorted(bytes(value) for (value,) in settings) == sorted(plain)
        assert (await apply(keystore, other)).taken == 0
        result = await verify(keystore, other)
        assert result.passed, result.failures
        assert file_of(other).read_bytes() == before
        with pytest.raises(ImportRefused):
            await keystore.importing.scrub(batch=500, progress=quiet)
    finally:
        await keystore.close()


_NUMBER = "plain number under a secret's name"


@pytest.mark.services
async def test_a_postgresql_database_is_taken_over_into_sqlite(sqlite_world: World, pg_world: World) -> None:
    made = corpus(80, sqlite=False)
    await fill(pg_world.url, made.rows)
    before = await stored_values(pg_world)
    keystore = await stocked(sqlite_world, made)
    try:
        assert (await apply(keystore, pg_world.url)).taken == len(made.rows)
        changed = "UPDATE tenant_settings SET setting_value = 'sk-changed-in-the-other-one' WHERE id = :id"
        ((row,),) = await pg_world.sql("SELECT min(id) FROM tenant_settings WHERE setting_key = 'OPENAI_API_KEY'")
        await pg_world.sql(changed, id=row)
        assert len((await verify(keystore, pg_world.url)).changed_since) == 1
        assert (await apply(keystore, pg_world.url)).taken == 1
        assert (await verify(keystore, pg_world.url)).passed
        assert len([1 for old, new in zip(before, await stored_values(pg_world), strict=True) if old != new]) == 1
    finally:
        await keystore.close()


async def test_another_database_cannot_be_written_through_its_source(pg_world: World, sqlite_world: World) -> None:
    for other in (pg_world, sqlite_world):
        await fill(other.url, corpus(5, sqlite=False).rows)
    keystore = await sqlite_world.open()
    source = await open_source(keystore._database, pg_world.url)
    try:
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            async with source.database.write() as connection:
                await source.blank(connection, [1, 2])
    finally:
        await source.close()
        await keystore.close()


def test_what_is_left_in_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    path.write_bytes(b"x" * ((1 << 22) - 10) + b"sk-across-the-window" + b"ssk-again-and-again" + b"\xff-]^raw-bytes")
    (tmp_path / "some.db-wal").write_bytes(b"in the log: sk-logged-value")
    there = {b"sk-across-the-window", b"sk-again-and-again", b"\xff-]^raw-bytes", b"sk-logged-value"}
    assert still_in_files(path, there | {b"sk-never-written"}) == len(there)


async def test_values_of_a_utf16_database_are_taken_over_as_utf8(sqlite_world: World, tmp_path: Path) -> None:
    other = f"sqlite+aiosqlite:///{tmp_path / 'utf16.db'}"
    database = sqlite3.connect(file_of(other))
    database.execute("PRAGMA encoding = 'UTF-16le'")
    database.close()
    made = corpus(10)
    rows = [Row("plain key", "t", "X_API_KEY", "ключ-от-всего", T1, T1), *made.of("plain key")]
    await fill(other, rows)
    keystore = await stocked(sqlite_world, Corpus({"t": "t"} | made.tenants, rows))
    await apply(keystore, other)
    assert sorted(await opened_values(sqlite_world, keystore)) == sorted(row.value.encode() for row in rows)
    await keystore.close()


async def test_a_database_without_the_table_is_refused(world: World, tmp_path: Path) -> None:
    keystore = await world.open()
    with pytest.raises(ImportRefused, match="tenant_settings"):
        await apply(keystore)
    with pytest.raises(Exception, match="there is no"):
        await apply(keystore, f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    await keystore.close()


async def test_a_table_without_a_key_is_read_by_place(world: World) -> None:
    made = corpus(40, sqlite=world.is_sqlite)
    await fill(world.url, made.rows, key="")
    keystore = await stocked(world, made)
    try:
        assert (await apply(keystore)).taken == 40
        await world.sql("UPDATE tenant_settings SET updated_at = updated_at")  # every ctid moves
        await apply(keystore)
        assert len(await opened_values(world, keystore)) <= 40
        assert (await verify(keystore)).passed
    finally:
        await keystore.close()
        if not world.is_sqlite:
            await world.sql("DROP TABLE tenant_settings")


# --- scrub ---------------------------------------------------------------------------------------------------------


async def test_scrub_comes_after_verify_and_leaves_edited_rows(adopted: Adopted) -> None:
    await apply(adopted.keystore)
    with pytest.raises(ImportRefused, match="verify"):
        await adopted.keystore.importing.scrub(batch=500, progress=quiet)
    assert (await verify(adopted.keystore)).passed
    await adopted.world.sql(
        "UPDATE tenant_settings SET setting_value = 'sk-edited-since-0123456789'"
        f" WHERE setting_key = 'OPENAI_API_KEY' AND tenant_id = '{next(iter(adopted.made.tenants.values()))}'"
    )
    done, after = await adopted.keystore.importing.scrub(batch=500, progress=quiet)
    assert [each[1] for each in done.edited] == ["OPENAI_API_KEY"]
    left = [value for value in await stored_values(adopted.world) if value and CANARY.encode() in value]
    assert len(left) == len([row for row in adopted.made.rows if row.kind in ("null name", "unknown tenant")])
    assert not any(each.startswith("tenant") for each in after.failures), after.failures
    again, _ = await adopted.keystore.importing.scrub(batch=500, progress=quiet)
    assert again.blanked == 0
    assert (await apply(adopted.keystore)).taken == 1  # the edited one


# --- G13 -----------------------------------------------------------------------------------------------------------


APPLY = """
import asyncio, sys
from pathlib import Path
from keystore.importing.importer import ImportOptions
from keystore.keystore import Keystore, SealingSource
from keystore.providers import load_registry

async def main():
    keystore = await Keystore.open(database_url=sys.argv[1], sealing=SealingSource(None, Path(sys.argv[2])),
        registry=load_registry(), known_plans=["team"], create=False)
    def progress(done, total):
        print(done, flush=True)
    await keystore.importing.apply(None, ImportOptions(), None, batch=100, progress=progress)
    await keystore.close()
asyncio.run(main())
"""


async def killed_apply(world: World, after: int) -> bool:
    """An apply in a process of its own, killed when it has told of `after` batches; False when it ended before."""
    process = await program("-c", APPLY, world.url, str(world.ring))
    assert process.stdout is not None
    for _ in range(after):
        if not await process.stdout.readline():
            return await process.wait() != 0
    process.kill()
    await process.wait()
    return True


async def test_g13_kills_edits_and_scrub_lose_nothing_on_sqlite(sqlite_world: World) -> None:
    await g13(sqlite_world, ROWS, kills=KILLS)
    files = [path for path in file_of(sqlite_world.url).parent.iterdir() if path.is_file()]
    assert files and not any(CANARY.encode() in path.read_bytes() for path in files)


@pytest.mark.services
async def test_g13_kills_edits_and_scrub_lose_nothing_on_postgresql(pg_world: World) -> None:
    await g13(pg_world, ON_POSTGRES, kills=1)
    left = await pg_world.sql("SELECT count(*) FROM tenant_settings WHERE setting_value LIKE '%Cn4rY%'")
    assert left == [(0,)]


async def g13(world: World, count: int, *, kills: int) -> None:
    made = corpus(count * 11 // 10, sqlite=world.is_sqlite)
    unreachable = {"null name", "unknown tenant"}  # reported and left, so their plain text stays
    made = Corpus(made.tenants, [row for row in made.rows if row.kind not in unreachable][:count])
    await fill(world.url, made.rows)
    keystore = await stocked(world, made)
    rng = random.Random(13)
    assert [await killed_apply(world, rng.randrange(1, 4)) for _ in range(kills)] == [True] * kills
    await asyncio.gather(apply(keystore), edits(world, made, rng))
    done = await apply(keystore)
    assert (done.edited, total(done.plan)) == (0, len(made.rows))
    assert (await apply(keystore)).taken == 0
    result = await verify(keystore)
    assert result.passed, result.failures
    assert sum(result.outcomes.values()) == result.rows == len(made.rows)
    sealed = set(await opened_values(world, keystore))
    assert {value for value in await stored_values(world) if value and CANARY.encode() in value} <= sealed
    scrubbed, after = await keystore.importing.scrub(batch=500, progress=quiet)
    assert (scrubbed.edited, scrubbed.found) == ((), 0 if world.is_sqlite else None)
    assert after.passed and after.rotate
    await keystore.close()


async def edits(world: World, made: Corpus, rng: random.Random) -> None:
    """The old application goes on writing while the rows are taken over."""
    change = "UPDATE tenant_settings SET setting_value = :v WHERE tenant_id = :of AND setting_key = 'OPENAI_API_KEY'"
    for number, tenant_id in enumerate(rng.sample(sorted(made.tenants.values()), min(15, len(made.tenants)))):
        await world.sql(
            change,
            v=f"sk-{CANARY}-edited-{number}-0123456789",
            of=tenant_id,
        )


# --- the mapping of an earlier run -----------------------------------------------------------------------------------

CUSTOMERS = ImportOptions(TenantTable("customers", "id", "slug", None))


@pytest.fixture
async def mapped(world: World) -> AsyncIterator[Keystore]:
    """A tenant whom the old table knows by another id, through a table of customers."""
    await fill(world.url, [Row("x", "42", "MINIMAX_API_KEY", "sk-kept-value-0123456789-2222", None, None)])
    keystore = await world.open()
    await keystore.tenants.add("acme", "team")
    await world.sql(
        "CREATE TABLE customers (id VARCHAR(64), slug VARCHAR(64))",
        "INSERT INTO customers VALUES ('42', 'acme')",
        "CREATE TABLE others (id VARCHAR(64), slug VARCHAR(64))",
    )
    try:
        yield keystore
    finally:
        await keystore.close()
        await world.sql("DROP TABLE customers", "DROP TABLE others")


async def test_mapping_of_an_earlier_run_is_used_on(mapped: Keystore, world: World) -> None:
    await apply(mapped, options=CUSTOMERS)
    await world.sql("UPDATE tenant_settings SET setting_value = 'sk-kept-value-0123456789-7777'")
    planned = await mapped.importing.plan(None, NOTHING, None, quiet)
    assert planned.counts["outcomes"] == {"migrated": 1}
    assert (await apply(mapped)).plan.counts["outcomes"] == {"migrated": 1}
    result = await verify(mapped)
    assert result.passed and result.outcomes == {"migrated": 1}
    assert [each.hint for each in result.rotate] == ["7777", "2222"]  # both lay in plain text


async def test_another_mapping_needs_to_be_said(mapped: Keystore) -> None:
    await apply(mapped, options=CUSTOMERS)
    other = ImportOptions(TenantTable("others", "id", "slug", None))
    with pytest.raises(ImportRefused, match=r"by the table customers \(id, slug\); say --remap"):
        await apply(mapped, options=other)
    assert (await verify(mapped)).passed
    await mapped.importing.apply(None, other, None, batch=500, progress=quiet, remap=True)
    assert not (await verify(mapped)).passed
    await mapped.importing.apply(None, CUSTOMERS, None, batch=500, progress=quiet, remap=True)
    assert (await verify(mapped)).passed


async def test_scrubbed_row_is_never_taken_over_again(mapped: Keystore) -> None:
    await apply(mapped, options=CUSTOMERS)
    assert (await verify(mapped)).passed
    _, after = await mapped.importing.scrub(batch=500, progress=quiet)
    for options in (NOTHING, CUSTOMERS):
        assert (await apply(mapped, options=options)).taken == 0
        result = await verify(mapped)
        assert (result.passed, result.scrubbed, result.rotate) == (True, 1, after.rotate)
    assert [each.state for each in await mapped.importing.list()] == ["scrubbed"]
    with pytest.raises(ImportRefused, match="scrubbed"):
        await mapped.importing.apply(
            None, ImportOptions(TenantTable("others", "id", "slug", None)), None, batch=9, progress=quiet, remap=True
        )
    keyring = await mapped.keyring(await mapped.tenants.get("acme"))
    assert mapped.unseal(keyring, "minimax").secret.reveal().endswith("2222")


async def test_plan_says_what_apply_would_do_with_the_tenants_that_it_makes(world: World) -> None:
    rows = [
        Row("x", "42", "MINIMAX_API_KEY", "sk-kept-value-0123456789-2222", None, None),
        Row("x", "042", "OPENAI_API_KEY", "your-key-here", None, None),
        Row("x", "nova", "OPENAI_API_KEY", "", None, None),
    ]
    await fill(world.url, rows, key="")
    keystore = await world.open()
    options = ImportOptions(create_tenants=True, plan="team")
    planned = await keystore.importing.plan(None, options, None, quiet)
    done = await apply(keystore, options=options)
    await keystore.close()
    assert planned.counts == done.plan.counts
    assert [new.slug for new in planned.create] == done.created
    assert (planned.no_tenant, done.plan.no_tenant) == (["42"], ["42"])  # text ids: another spelling is another tenant
    assert planned.counts["quarantine"]
