"""The tenant_settings table of another application: found, read, never written."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from keystore.errors import CredentialUnknown
from keystore.keystore import Keystore
from keystore.legacy import as_time, id_spellings
from keystore.providers import Registry
from keystore.resolve import Found, Missing, Store, Unusable, Via
from keystore.tenants import Tenant
from tests.keystore.conftest import FakeClock, World

UUID = "31c06fc4-db22-4740-83ea-48ac14f25810"
SEEDS_TABLE = (
    "CREATE TABLE tenant_settings (id {serial}, tenant_id {id_type}, setting_key VARCHAR(100), setting_value TEXT,"
    " created_at TIMESTAMP, updated_at TIMESTAMP)"
)


async def make_table(world: World, id_type: str = "VARCHAR(36)") -> None:
    serial = "INTEGER PRIMARY KEY" if world.is_sqlite else "SERIAL PRIMARY KEY"
    await world.sql(SEEDS_TABLE.format(serial=serial, id_type=id_type))


async def put(
    world: World,
    setting_key: str,
    value: str | None,
    *,
    tenant_id: Any = UUID,
    created: Any = None,
    updated: Any = None,
) -> None:
    def moment(stored: Any) -> Any:
        return stored if world.is_sqlite or stored is None else datetime.fromisoformat(stored)

    await world.sql(
        "INSERT INTO tenant_settings (tenant_id, setting_key, setting_value, created_at, updated_at)"
        " VALUES (:tenant_id, :setting_key, :value, :created, :updated)",
        tenant_id=tenant_id,
        setting_key=setting_key,
        value=value,
        created=moment(created),
        updated=moment(updated),
    )


async def resolved(world: World, provider_id: str, *, tenant_id: str = UUID, slug: str = "brennan") -> Found | Missing:
    keystore = await world.open()
    try:
        tenant = await _tenant(keystore, slug, tenant_id)
        return (await keystore.keyring(tenant)).resolutions[provider_id]
    finally:
        await keystore.close()


async def value_of(world: World, provider_id: str, *, tenant_id: str = UUID, slug: str = "brennan") -> str:
    keystore = await world.open()
    try:
        tenant = await _tenant(keystore, slug, tenant_id)
        return keystore.unseal(await keystore.keyring(tenant), provider_id).secret.reveal()
    finally:
        await keystore.close()


async def _tenant(keystore: Keystore, slug: str, tenant_id: str) -> Tenant:
    present = [tenant for tenant in await keystore.tenants.list() if tenant.slug == slug]
    return present[0] if present else await keystore.tenants.add(slug, "team", id=tenant_id)


# --- the seeds' story ----------------------------------------------------------------------------------------------


async def test_brennans_key_is_found_under_the_former_name(world: World) -> None:
    await make_table(world)
    await put(world, "MINIMAX_2_7_API_KEY", "mm-brennan")
    assert await resolved(world, "minimax") == Found(
        "minimax", "MINIMAX_2_7_API_KEY", Via.FORMER, Store.LEGACY, skipped=(), conflicts=()
    )
    assert await value_of(world, "minimax") == "mm-brennan"


async def test_brennans_key_stays_found_when_the_seeds_insert_was_run_verbatim(world: World) -> None:
    await make_table(world)
    await put(world, "MINIMAX_2_7_API_KEY", "mm-brennan")
    await put(world, "MINIMAX_API_KEY", "<same_value_as_MINIMAX_2_7_API_KEY>")
    found = await resolved(world, "minimax")
    assert isinstance(found, Found)
    assert found.setting_key == "MINIMAX_2_7_API_KEY"
    assert [(each.setting_key, each.why) for each in found.skipped] == [("MINIMAX_API_KEY", Unusable.PLACEHOLDER)]


async def test_legacy_key_travels_to_its_providers_hosts(world: World) -> None:
    await make_table(world)
    await put(world, "MINIMAX_2_7_API_KEY", "mm-brennan\n")
    keystore = await world.open()
    tenant = await _tenant(keystore, "brennan", UUID)
    credential = keystore.unseal(await keystore.keyring(tenant), "minimax")
    await keystore.close()
    assert credential.hosts == frozenset({"api.minimax.io"})
    assert (credential.store, credential.via) == (Store.LEGACY, Via.FORMER)
    assert credential.secret.reveal() == "mm-brennan"


async def test_table_is_not_changed_by_anything(world: World) -> None:
    await make_table(world)
    await put(world, "MINIMAX_2_7_API_KEY", "mm-brennan")
    before = await world.sql("SELECT * FROM tenant_settings")
    keystore = await world.open()
    tenant = await _tenant(keystore, "brennan", UUID)
    await keystore.credentials.set(tenant, "MINIMAX_2_7_API_KEY", "mm-new")
    await keystore.credentials.remove(tenant, "MINIMAX_2_7_API_KEY")
    with pytest.raises(CredentialUnknown, match="only reads"):
        await keystore.credentials.remove(tenant, "MINIMAX_2_7_API_KEY")
    await keystore.close()
    assert await world.sql("SELECT * FROM tenant_settings") == before


async def test_table_is_read_through_a_connection_that_may_not_write_it(pg_role_world: World) -> None:
    """The role has SELECT on tenant_settings and nothing more."""
    found = await resolved(pg_role_world, "minimax")
    assert isinstance(found, Found)
    assert found.store is Store.LEGACY


@pytest.fixture
async def pg_role_world(pg_world: World) -> AsyncIterator[World]:
    world = pg_world
    await make_table(world)
    await put(world, "MINIMAX_API_KEY", "mm-brennan")
    role = f"app_{uuid.uuid4().hex[:8]}"
    await world.sql(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"REVOKE ALL ON tenant_settings FROM {role}",
        f"GRANT SELECT ON tenant_settings TO {role}",
    )
    yield World(world.url.replace("postgres@", f"{role}@"), world.ring, world.clock, world.registry)
    await world.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.fixture
async def apart(pg_world: World) -> World:
    """Another application's database, with a `tenants` of its own, and a schema for us in front of its own."""
    await pg_world.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", "CREATE SCHEMA wardgate")
    await pg_world.sql("CREATE TABLE wardgate_tenants (id integer)", "INSERT INTO wardgate_tenants VALUES (1)")
    await make_table(pg_world)
    await put(pg_world, "MINIMAX_2_7_API_KEY", "mm-brennan")
    search_path = "&options=-csearch_path%3Dwardgate,public"
    return World(pg_world.url + search_path, pg_world.ring, pg_world.clock, pg_world.registry)


async def test_table_is_read_when_our_own_lie_in_another_schema(apart: World, pg_world: World) -> None:
    assert await value_of(apart, "minimax") == "mm-brennan"
    assert await value_of(apart, "minimax") == "mm-brennan"
    assert await pg_world.sql("SELECT id FROM public.wardgate_tenants") == [(1,)]
    assert await pg_world.sql("SELECT slug FROM wardgate.wardgate_tenants") == [("brennan",)]


# --- both stores ---------------------------------------------------------------------------------------------------


async def test_credentials_win_when_both_hold_the_name(world: World) -> None:
    await make_table(world)
    await put(world, "MINIMAX_API_KEY", "mm-legacy")
    keystore = await world.open()
    tenant = await _tenant(keystore, "brennan", UUID)
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-own")
    ring = await keystore.keyring(tenant)
    assert keystore.unseal(ring, "minimax").secret.reveal() == "mm-own"
    states = [(info.store, info.state, info.version) for info in await keystore.credentials.list(tenant)]
    assert states == [(Store.CREDENTIALS, "active", 1), (Store.LEGACY, "shadowed", 0)]
    await keystore.credentials.remove(tenant, "MINIMAX_API_KEY")
    assert keystore.unseal(await keystore.keyring(tenant), "minimax").secret.reveal() == "mm-legacy"
    await keystore.close()


@pytest.mark.parametrize(("own", "conflicts"), [("mm-legacy", ()), ("mm-other", ("MINIMAX_2_7_API_KEY",))])
async def test_conflict_is_seen_across_the_stores(world: World, own: str, conflicts: tuple[str, ...]) -> None:
    await make_table(world)
    await put(world, "MINIMAX_2_7_API_KEY", " mm-legacy\n")
    keystore = await world.open()
    tenant = await _tenant(keystore, "brennan", UUID)
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", own)
    found = (await keystore.keyring(tenant)).resolutions["minimax"]
    await keystore.close()
    assert isinstance(found, Found)
    assert (found.setting_key, found.conflicts) == ("MINIMAX_API_KEY", conflicts)


async def test_list_has_the_legacy_rows_that_a_provider_knows(world: World) -> None:
    await make_table(world)
    await put(world, "MINIMAX_2_7_API_KEY", "mm-0123456789-0123456789", created="2026-05-01 10:00:00")
    await put(world, "GOOGLE_API_KEY", "sk-***")
    await put(world, "THEME", "dark")
    await put(world, "STRIPE_SECRET", "sk_live_1")
    await put(world, "OPENAI_API_KEY", "sk-of-another", tenant_id="someone-else")
    keystore = await world.open()
    listed = await keystore.credentials.list(await _tenant(keystore, "brennan", UUID))
    await keystore.close()
    assert [(info.setting_key, info.provider_id, info.hint, info.unusable) for info in listed] == [
        ("GOOGLE_API_KEY", "google", "", Unusable.MASKED),
        ("MINIMAX_2_7_API_KEY", "minimax", "6789", None),
    ]
    assert listed[1].created_at == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert listed[1].updated_at is None
    assert "mm-0123" not in repr(listed)


# --- whose row -----------------------------------------------------------------------------------------------------

MATCHES: dict[str, tuple[str, str, str, Any, bool]] = {
    # name: column type, tenant id, slug, stored tenant_id, found
    "text, as it is": ("TEXT", UUID, "brennan", UUID, True),
    "text, upper case": ("TEXT", UUID, "brennan", UUID.upper(), True),
    "text, mixed case": ("TEXT", UUID, "brennan", UUID[:9].upper() + UUID[9:], True),
    "text, no hyphens": ("VARCHAR(36)", UUID, "brennan", UUID.replace("-", ""), True),
    "text, slug": ("VARCHAR(64)", UUID, "brennan", "brennan", True),
    "text, another's": ("TEXT", UUID, "brennan", UUID.replace("3", "4"), False),
    "text, slug in capitals": ("TEXT", UUID, "brennan", "BRENNAN", False),
    "text, part of an id": ("TEXT", UUID, "brennan", UUID[:8], False),
    "text, null": ("TEXT", UUID, "brennan", None, False),
    "text, a number": ("TEXT", "42", "brennan", "42", True),
    "integer": ("INTEGER", "42", "brennan", 42, True),
    "integer, another's": ("INTEGER", "42", "brennan", 43, False),
    "integer, above 2 billion": ("BIGINT", "3000000000", "brennan", 3000000000, True),
    "bigint": ("BIGINT", "9007199254740993", "brennan", 9007199254740993, True),
    "integer and an id that is none": ("INTEGER", UUID, "brennan", 42, False),
    "integer and an id that is too long": ("INTEGER", "99999999999999999999", "brennan", 42, False),
    "smallint and an id that is too large": ("SMALLINT", "70000", "brennan", 42, False),
}


@pytest.mark.parametrize(("id_type", "tenant_id", "slug", "stored", "found"), MATCHES.values(), ids=list(MATCHES))
async def test_row_is_the_tenants_when_its_id_says_so(
    world: World, id_type: str, tenant_id: str, slug: str, stored: Any, found: bool
) -> None:
    await make_table(world, id_type)
    await put(world, "MINIMAX_API_KEY", "mm-1", tenant_id=stored)
    result = await resolved(world, "minimax", tenant_id=tenant_id, slug=slug)
    assert isinstance(result, Found) is found


@pytest.mark.parametrize(("tenant_id", "found"), [(UUID, True), (UUID.replace("3", "4"), False), ("42", False)])
async def test_row_is_the_tenants_when_the_column_is_a_uuid(world: World, tenant_id: str, found: bool) -> None:
    await make_table(world, "UUID")
    stored = UUID if world.is_sqlite else uuid.UUID(UUID)
    await put(world, "MINIMAX_API_KEY", "mm-1", tenant_id=stored)
    result = await resolved(world, "minimax", tenant_id=tenant_id)
    assert isinstance(result, Found) is found


def test_spellings_are_few_enough_for_an_index() -> None:
    tenant = Tenant(UUID, "brennan", "", "team", None, datetime.now(UTC))
    assert id_spellings(tenant) == sorted({UUID, UUID.upper(), UUID.replace("-", ""), UUID.replace("-", "").upper()})


async def answers(world: World, tenant_id: str | None, slug: str) -> str | None:
    """The key that this tenant is served for minimax, if any."""
    keystore = await world.open()
    try:
        tenant = await keystore.tenants.add(slug, "team", id=tenant_id)
        ring = await keystore.keyring(tenant)
        if isinstance(ring.resolutions["minimax"], Missing):
            return None
        return keystore.unseal(ring, "minimax").secret.reveal()
    finally:
        await keystore.close()


@pytest.fixture
async def blind(sqlite_world: World) -> World:
    """A table whose tenant_id column takes upper and lower case for the same."""
    await make_table(sqlite_world, "TEXT COLLATE NOCASE")
    return sqlite_world


@pytest.mark.parametrize(("tenant_id", "slug", "found"), [("ACME", "first", True), ("Acme", "first", False)])
async def test_row_is_another_applications_tenant_when_only_the_collation_says_the_same(
    blind: World, tenant_id: str, slug: str, found: bool
) -> None:
    await put(blind, "MINIMAX_API_KEY", "mm-of-ACME", tenant_id="ACME")
    assert await answers(blind, tenant_id, slug) == ("mm-of-ACME" if found else None)


async def test_slug_is_not_an_id_when_only_the_collation_says_so(blind: World) -> None:
    await put(blind, "MINIMAX_API_KEY", "mm-of-ACME", tenant_id="ACME")
    assert await answers(blind, None, "acme") is None


@pytest.mark.parametrize(("tenant_id", "found"), [("7", True), ("007", False)])
async def test_number_is_compared_as_it_is_stored_when_the_column_is_numeric(
    sqlite_world: World, tenant_id: str, found: bool
) -> None:
    """SQLite's affinity makes a number of the text that it is compared with."""
    await make_table(sqlite_world, "NUMERIC")
    await put(sqlite_world, "MINIMAX_API_KEY", "mm-of-7", tenant_id=7)
    assert await answers(sqlite_world, tenant_id, "seven") == ("mm-of-7" if found else None)


async def test_slug_names_no_row_when_rows_have_the_id(world: World) -> None:
    """The application spells its tenants by id: a row under the slug is somebody else's."""
    await make_table(world, "VARCHAR(64)")
    await put(world, "THEME", "dark")
    await put(world, "MINIMAX_API_KEY", "mm-of-another", tenant_id="brennan")
    assert await answers(world, UUID, "brennan") is None


async def test_row_is_found_when_postgres_fills_the_id_up(pg_world: World) -> None:
    await make_table(pg_world, "CHAR(64)")
    await put(pg_world, "MINIMAX_API_KEY", "mm-1", tenant_id="brennan")
    assert await answers(pg_world, UUID, "brennan") == "mm-1"


# --- which row -----------------------------------------------------------------------------------------------------

EARLY, LATE = "2026-01-01 00:00:00", "2026-06-01 00:00:00"
DUPLICATES: dict[str, list[tuple[str, str | None, str | None]]] = {
    # name: rows of (value, created_at, updated_at) in the order in which they are inserted; "right" must win
    "newest update": [("right", None, LATE), ("wrong", None, EARLY)],
    "newest update, inserted last": [("wrong", None, EARLY), ("right", None, LATE)],
    "an update before none": [("right", LATE, EARLY), ("wrong", LATE, None)],
    "an update before none, inserted last": [("wrong", LATE, None), ("right", EARLY, EARLY)],
    "newest creation when updates are equal": [("right", LATE, EARLY), ("wrong", EARLY, EARLY)],
    "newest creation when nothing was updated": [("wrong", EARLY, None), ("right", LATE, None)],
    "last inserted when nothing is dated": [("wrong", None, None), ("wrong", None, None), ("right", None, None)],
    "last inserted when all is equal": [("wrong", EARLY, LATE), ("right", EARLY, LATE)],
}


@pytest.mark.parametrize("rows", DUPLICATES.values(), ids=list(DUPLICATES))
async def test_newest_row_is_taken_when_there_are_several(
    world: World, rows: list[tuple[str, str | None, str | None]]
) -> None:
    await make_table(world)
    for value, created, updated in rows:
        await put(world, "MINIMAX_API_KEY", f"mm-{value}", created=created, updated=updated)
    assert await value_of(world, "minimax") == "mm-right"


async def test_newest_row_is_taken_even_when_it_is_unusable(world: World) -> None:
    """The newest row is the tenant's word; an older one is not dug up behind it."""
    await make_table(world)
    await put(world, "MINIMAX_API_KEY", "mm-old", updated=EARLY)
    await put(world, "MINIMAX_API_KEY", "", updated=LATE)
    found = await resolved(world, "minimax")
    assert isinstance(found, Missing)
    assert [(each.setting_key, each.why) for each in found.skipped] == [("MINIMAX_API_KEY", Unusable.EMPTY)]


@pytest.mark.parametrize(
    ("stored", "time"),
    [
        ("2026-05-02 10:00:00", datetime(2026, 5, 2, 10, tzinfo=UTC)),
        ("2026-05-02T10:00:00Z", datetime(2026, 5, 2, 10, tzinfo=UTC)),
        ("2026-05-02T12:00:00+02:00", datetime(2026, 5, 2, 10, tzinfo=UTC)),
        ("2026-05-02", datetime(2026, 5, 2, tzinfo=UTC)),
        (1777716000, datetime(2026, 5, 2, 10, tzinfo=UTC)),
        (1777716000.5, datetime(2026, 5, 2, 10, 0, 0, 500000, tzinfo=UTC)),
        (datetime(2026, 5, 2, 10), datetime(2026, 5, 2, 10, tzinfo=UTC)),  # noqa: DTZ001 -- a column without a zone
        ("yesterday", None),
        ("", None),
        (b"2026", None),
        (None, None),
        (10**30, None),
        (float("nan"), None),
        (float("inf"), None),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T23:59:59-01:00", None),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), None),
    ],
)
def test_time_is_understood_in_the_ways_it_is_stored(stored: object, time: datetime | None) -> None:
    assert as_time(stored) == time


ODD_TIMES: dict[str, tuple[str, str, str]] = {
    # name: database, column type, literal
    "year 1 in the east": ("sqlite", "TIMESTAMP", "'0001-01-01T00:00:00+01:00'"),
    "year 9999 in the west": ("sqlite", "TEXT", "'9999-12-31T23:59:59-01:00'"),
    "bytes that are no text": ("sqlite", "TEXT", "CAST(X'FF00' AS TEXT)"),
    "a blob": ("sqlite", "TEXT", "X'FF00'"),
    "a number beyond all years": ("sqlite", "TEXT", "1e300"),
    "BC": ("postgres", "TIMESTAMP", "'4000-01-01 BC'"),
    "BC with a zone": ("postgres", "TIMESTAMPTZ", "'4000-01-01 BC'"),
    "a date BC": ("postgres", "DATE", "'4000-01-01 BC'"),
    "after Python's last year": ("postgres", "TIMESTAMP", "'20000-01-01'"),
    "infinity": ("postgres", "TIMESTAMPTZ", "'infinity'"),
    "minus infinity": ("postgres", "TIMESTAMP", "'-infinity'"),
    "an interval": ("postgres", "INTERVAL", "'1 day'"),
    "a text": ("postgres", "TEXT", "'0001-01-01T00:00:00+01:00'"),
    "a number": ("postgres", "BIGINT", "9223372036854775807"),
}


@pytest.mark.parametrize(("database", "declared", "literal"), ODD_TIMES.values(), ids=list(ODD_TIMES))
async def test_row_is_read_with_an_unknown_time_when_its_time_is_odd(
    request: pytest.FixtureRequest, database: str, declared: str, literal: str
) -> None:
    world: World = request.getfixturevalue("sqlite_world" if database == "sqlite" else "pg_world")
    await world.sql(
        "CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT,"
        f" created_at {declared}, updated_at {declared})",
        f"INSERT INTO tenant_settings VALUES ('{UUID}', 'MINIMAX_API_KEY', 'mm-odd', {literal}, {literal})",
    )
    keystore = await world.open()
    tenant = await _tenant(keystore, "brennan", UUID)
    (listed,) = await keystore.credentials.list(tenant)
    value = keystore.unseal(await keystore.keyring(tenant), "minimax").secret.reveal()
    await keystore.close()
    assert (listed.created_at, listed.updated_at, value) == (None, None, "mm-odd")


@pytest.mark.services
@pytest.mark.parametrize("declared", ["TIMESTAMP", "TIMESTAMPTZ"])
async def test_time_is_exact_when_postgres_gives_it(pg_world: World, declared: str) -> None:
    await pg_world.sql(
        "CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT,"
        f" created_at {declared}, updated_at DATE)",
        f"INSERT INTO tenant_settings VALUES ('{UUID}', 'MINIMAX_API_KEY', 'mm', '2026-05-02 10:00:00.123457Z',"
        " '2026-05-03')",
    )
    keystore = await pg_world.open()
    (listed,) = await keystore.credentials.list(await _tenant(keystore, "brennan", UUID))
    await keystore.close()
    assert listed.created_at == datetime(2026, 5, 2, 10, 0, 0, 123457, tzinfo=UTC)
    assert listed.updated_at == datetime(2026, 5, 3, tzinfo=UTC)


# --- odd values and odd tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, Unusable.EMPTY),
        (" ", Unusable.EMPTY),
        ("os.environ/MINIMAX_API_KEY", Unusable.REFERENCE),
        ("gAAAAABm0123456789", Unusable.ENCRYPTED),
        ("k" * 16_385, Unusable.OVERSIZED),
        ("é" * 600_000, Unusable.OVERSIZED),
        ("mm-\u0430", Unusable.CONTROL_CHARACTERS),
    ],
)
async def test_value_is_skipped_and_named_when_unusable(world: World, value: str | None, why: Unusable) -> None:
    await make_table(world)
    await put(world, "MINIMAX_API_KEY", value)
    found = await resolved(world, "minimax")
    assert isinstance(found, Missing)
    assert [(each.setting_key, each.why) for each in found.skipped] == [("MINIMAX_API_KEY", why)]


@pytest.mark.parametrize(
    ("literal", "why"),
    [("X'6D6DFF01'", Unusable.DAMAGED), ("X'6D6D00'", Unusable.CONTROL_CHARACTERS), ("12345", None), ("X'6D6D'", None)],
)
async def test_value_is_judged_when_sqlite_holds_something_else_than_text(
    sqlite_world: World, literal: str, why: Unusable | None
) -> None:
    await make_table(sqlite_world)
    await sqlite_world.sql(
        "INSERT INTO tenant_settings (tenant_id, setting_key, setting_value)"
        f" VALUES ('{UUID}', 'MINIMAX_API_KEY', {literal})"
    )
    found = await resolved(sqlite_world, "minimax")
    assert [each.why for each in found.skipped] == ([why] if why else [])


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
@pytest.mark.parametrize(
    ("literal", "value", "why"),
    [
        ("'mm-utf16'", "mm-utf16", None),
        ("X'6D6D2D626C6F62'", "mm-blob", None),
        ("12345", "12345", None),
        (f"'{'k' * 16_384}'", "k" * 16_384, None),
        (f"'{'k' * 16_385}'", "", Unusable.OVERSIZED),
        ("NULL", "", Unusable.EMPTY),
    ],
    ids=["text", "blob", "number", "long", "too long", "null"],
)
async def test_value_is_read_in_the_encoding_of_the_sqlite_database(
    empty_sqlite_world: World, encoding: str, literal: str, value: str, why: Unusable | None
) -> None:
    world = empty_sqlite_world
    await world.sql(f"PRAGMA encoding = '{encoding}'", "CREATE TABLE first (id INTEGER)")
    await make_table(world)
    await world.sql(
        "INSERT INTO tenant_settings (tenant_id, setting_key, setting_value, updated_at)"
        f" VALUES ('{UUID}', 'MINIMAX_API_KEY', {literal}, '2026-05-02 10:00:00')"
    )
    keystore = await world.open()
    tenant = await _tenant(keystore, "brennan", UUID)
    (listed,) = await keystore.credentials.list(tenant)
    assert (listed.unusable, listed.updated_at) == (why, datetime(2026, 5, 2, 10, tzinfo=UTC))
    if why is None:
        assert keystore.unseal(await keystore.keyring(tenant), "minimax").secret.reveal() == value
    await keystore.close()


@pytest.fixture
def empty_sqlite_world(tmp_path: Path, clock: FakeClock, registry: Registry) -> World:
    return World(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}", tmp_path / "sealing.keys", clock, registry)


async def test_table_is_read_when_it_has_no_timestamps(world: World) -> None:
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    for value in ("mm-1", "mm-2"):
        await world.sql("INSERT INTO tenant_settings VALUES (:id, 'MINIMAX_API_KEY', :value)", id=UUID, value=value)
    assert await value_of(world, "minimax") == "mm-2"


async def test_table_is_read_when_it_is_a_view(world: World) -> None:
    await world.sql(
        "CREATE TABLE settings (tenant TEXT, name TEXT, content TEXT)",
        "CREATE VIEW tenant_settings AS SELECT tenant AS tenant_id, name AS setting_key, content AS setting_value"
        " FROM settings",
    )
    await world.sql("INSERT INTO settings VALUES (:id, 'MINIMAX_API_KEY', 'mm-1')", id=UUID)
    assert await value_of(world, "minimax") == "mm-1"


async def test_table_is_left_alone_and_said_so_when_it_has_another_shape(world: World) -> None:
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, theme TEXT)")
    keystore = await world.open()
    assert not keystore.reads_legacy
    assert keystore.legacy_note is not None
    assert "setting_key, setting_value" in keystore.legacy_note
    await keystore.keyring(await _tenant(keystore, "brennan", UUID))
    await keystore.close()


async def test_values_that_are_not_text_are_left_alone_and_said_so(pg_world: World) -> None:
    await pg_world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value JSONB)")
    keystore = await pg_world.open()
    assert not keystore.reads_legacy
    assert "JSONB" in (keystore.legacy_note or "")
    await keystore.close()


async def test_nothing_is_said_when_there_is_no_such_table(world: World) -> None:
    keystore = await world.open()
    assert (keystore.reads_legacy, keystore.legacy_note) == (False, None)
    await keystore.close()
