"""Provider keys: stored sealed, versioned, listed without values, and useless once moved."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from keystore.credential_info import CredentialInfo
from keystore.engine import parse_url, sqlite_path
from keystore.errors import CredentialRefused, CredentialUnknown, CredentialUnusable, SettingUnknown, TenantUnknown
from keystore.keystore import Keystore
from keystore.providers import load_registry
from keystore.resolve import UNUSABLE_BECAUSE, Missing, Store, Unusable
from keystore.sealing import MAX_SEALS
from keystore.tenants import Tenant
from tests.keystore.conftest import START, World

KEY = "mm-canary-0123456789abcdef"


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "team")


async def secret_of(keystore: Keystore, tenant: Tenant, provider_id: str = "minimax") -> str:
    return keystore.unseal(await keystore.keyring(tenant), provider_id).secret.reveal()


# --- storing -------------------------------------------------------------------------------------------------------


async def test_key_comes_back_when_it_was_set(keystore: Keystore, tenant: Tenant) -> None:
    info = await keystore.credentials.set(tenant, "MINIMAX_2_7_API_KEY", KEY)
    assert info == CredentialInfo(
        setting_key="MINIMAX_2_7_API_KEY",
        provider_id="minimax",
        version=1,
        state="active",
        hint="cdef",
        created_at=START,
        updated_at=START,
        store=Store.CREDENTIALS,
        unusable=None,
        source="set",
        credential_id=info.credential_id,
    )
    assert await secret_of(keystore, tenant) == KEY
    assert await keystore.credentials.list(tenant) == [info]


async def test_key_is_sealed_in_the_database(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", KEY)
    rows = await world.sql("SELECT envelope FROM wardgate_credentials")
    assert rows[0][0].startswith("wg1.")
    for table in ("wardgate_credentials", "wardgate_tenant_keys", "wardgate_root_keys", "wardgate_tenants"):
        assert "canary" not in repr(await world.sql(f"SELECT * FROM {table}"))
    path = sqlite_path(parse_url(world.url))
    if path is not None:
        assert not [file for file in path.parent.glob("wardgate.db*") if b"mm-canary" in file.read_bytes()]


async def test_key_is_used_without_the_white_space_around_it(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", f" {KEY}\r\n")
    assert await secret_of(keystore, tenant) == KEY
    assert (await keystore.credentials.list(tenant))[0].hint == "cdef"


async def test_new_value_is_a_new_version(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    world.clock.advance(hours=1)
    assert (await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-2")).version == 2
    assert await secret_of(keystore, tenant) == "mm-2"
    rows = await world.sql("SELECT version, state, envelope FROM wardgate_credentials ORDER BY version")
    assert [row[:2] for row in rows] == [(1, "superseded"), (2, "active")]
    assert rows[0][2] != rows[1][2]
    (listed,) = await keystore.credentials.list(tenant)
    assert listed.version == 2
    assert listed.created_at == START + timedelta(hours=1)


async def test_versions_are_unique_when_many_set_at_once(world: World, keystore: Keystore, tenant: Tenant) -> None:
    other = await world.open()
    results = await asyncio.gather(
        *(
            each.credentials.set(tenant, "MINIMAX_API_KEY", f"mm-{2 * n + at}")
            for n in range(8)
            for at, each in enumerate((keystore, other))
        )
    )
    await other.close()
    assert sorted(info.version for info in results) == list(range(1, 17))
    assert await world.sql("SELECT count(*), max(version) FROM wardgate_credentials WHERE state = 'active'") == [
        (1, 16)
    ]
    assert await world.sql("SELECT count(*), max(seals) FROM wardgate_tenant_keys") == [(1, 16)]
    last = next(n for n, info in enumerate(results) if info.version == 16)
    assert await secret_of(keystore, tenant) == f"mm-{last}"


async def test_value_is_refused_when_it_does_not_look_like_a_key_of_the_provider(world: World) -> None:
    keystore = await world.open(registry=load_registry({"minimax": {"key_pattern": "mm-[a-z0-9-]+"}}))
    tenant = await keystore.tenants.add("acme", "team")
    for value in ("sk-canary-0123456789", f"{KEY}!", f"x{KEY}"):
        with pytest.raises(CredentialRefused, match="does not look like a key of MiniMax") as refused:
            await keystore.credentials.set(tenant, "MINIMAX_2_7_API_KEY", value)
        assert "canary" not in str(refused.value)
    assert await keystore.credentials.list(tenant) == []
    await keystore.credentials.set(tenant, "MINIMAX_2_7_API_KEY", f" {KEY}\n")
    assert await secret_of(keystore, tenant) == KEY
    await keystore.close()


async def test_hint_is_empty_when_the_key_is_short(keystore: Keystore, tenant: Tenant) -> None:
    assert (await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "k" * 19)).hint == ""
    assert (await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "k" * 16 + "last")).hint == "last"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", Unusable.EMPTY),
        ("  ", Unusable.EMPTY),
        ("<same_value_as_MINIMAX_2_7_API_KEY>", Unusable.PLACEHOLDER),
        ("sk-***canary", Unusable.MASKED),
        ("os.environ/CANARY", Unusable.REFERENCE),
        ("$canary", Unusable.REFERENCE),
        ("gAAAAABcanary", Unusable.ENCRYPTED),
        ("sk-canary\nx", Unusable.CONTROL_CHARACTERS),
        ("sk-canary\udc80", Unusable.CONTROL_CHARACTERS),
        ("sk-canary" * 2000, Unusable.OVERSIZED),
    ],
)
async def test_value_is_refused_when_unusable(keystore: Keystore, tenant: Tenant, value: str, why: Unusable) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", KEY)
    with pytest.raises(CredentialRefused) as refused:
        await keystore.credentials.set(tenant, "MINIMAX_API_KEY", value)
    assert UNUSABLE_BECAUSE[why] in str(refused.value)
    assert "canary" not in str(refused.value).lower()
    assert await secret_of(keystore, tenant) == KEY


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("Bearer sk-canary", "begins with Bearer; send what follows"),
        (" bearer  sk-canary\n", "begins with Bearer"),
        ('"sk-canary"', "stands in quotes; send what is between them"),
        ("'sk-canary'", "stands in quotes"),
        ("GROQ_API_KEY=sk-canary", "begins with a name and =; send what follows"),
        ("export MINIMAX_API_KEY='sk-canary'", "begins with a name and ="),
    ],
)
async def test_value_is_refused_with_what_was_copied_along(
    keystore: Keystore, tenant: Tenant, value: str, what: str
) -> None:
    with pytest.raises(CredentialRefused, match=what) as refused:
        await keystore.credentials.set(tenant, "MINIMAX_API_KEY", value)
    assert "canary" not in str(refused.value)
    assert await keystore.credentials.list(tenant) == []


@pytest.mark.parametrize("value", ["Bearersk-0123", '"sk-0123', "sk_API_KEY=0123", "QUJD_REVG==", "A_KEY_B=0123"])
async def test_value_that_may_be_a_key_is_stored(keystore: Keystore, tenant: Tenant, value: str) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", value)
    assert await secret_of(keystore, tenant) == value


@pytest.mark.parametrize(
    ("setting_key", "near"),
    [
        ("MINIMAXX_API_KEY", "MINIMAX_API_KEY"),
        ("GOGLE_API_KEY", "GOOGLE_API_KEY"),
        ("minimax_api_key", "MINIMAX_API_KEY"),
        ("MINIMAX_API_KEY ", "MINIMAX_API_KEY"),
        ("", None),
        ("\x00", None),
        ("STRIPE_SECRET", None),
    ],
)
async def test_name_is_refused_when_no_provider_has_it(
    keystore: Keystore, tenant: Tenant, setting_key: str, near: str | None
) -> None:
    with pytest.raises(SettingUnknown) as refused:
        await keystore.credentials.set(tenant, setting_key, KEY)
    assert repr(setting_key) in str(refused.value)
    assert near is None or f'"{near}"' in str(refused.value)
    assert KEY not in str(refused.value)


async def test_key_is_refused_when_the_tenant_is_gone(keystore: Keystore) -> None:
    ghost = Tenant("no-such-id", "ghost", "Ghost", "team", None, START)
    with pytest.raises(TenantUnknown, match="ghost"):
        await keystore.credentials.set(ghost, "MINIMAX_API_KEY", KEY)
    assert await keystore.credentials.list(ghost) == []


async def test_tenant_gets_a_new_data_key_when_the_old_one_is_used_up(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    await world.sql(f"UPDATE wardgate_tenant_keys SET seals = {MAX_SEALS}")
    await keystore.credentials.set(tenant, "OPENAI_API_KEY", "sk-2")
    assert await world.sql("SELECT state, seals FROM wardgate_tenant_keys ORDER BY seals") == [
        ("active", 1),
        ("decrypt", MAX_SEALS),
    ]
    assert await secret_of(keystore, tenant) == "mm-1"
    assert await secret_of(keystore, tenant, "openai") == "sk-2"


async def test_two_tenants_have_two_data_keys(world: World, keystore: Keystore, tenant: Tenant) -> None:
    other = await keystore.tenants.add("other", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    await keystore.credentials.set(other, "MINIMAX_API_KEY", "mm-1")
    rows = await world.sql("SELECT envelope FROM wardgate_credentials")
    assert await world.sql("SELECT count(DISTINCT dek_id), count(DISTINCT wrapped) FROM wardgate_tenant_keys") == [
        (2, 2)
    ]
    assert rows[0] != rows[1]


# --- removing ------------------------------------------------------------------------------------------------------


async def test_key_is_gone_when_removed(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-0123456789-0123456789")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-0123456789-9876543210")
    await keystore.credentials.remove(tenant, "MINIMAX_API_KEY")
    assert await keystore.credentials.list(tenant) == []
    assert isinstance((await keystore.keyring(tenant)).resolutions["minimax"], Missing)
    rows = await world.sql("SELECT state, envelope, hint FROM wardgate_credentials")
    assert rows == [("removed", None, "")] * 2
    with pytest.raises(CredentialUnknown):
        await keystore.credentials.remove(tenant, "MINIMAX_API_KEY")


async def test_version_goes_on_counting_when_set_again_after_removal(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    await keystore.credentials.remove(tenant, "MINIMAX_API_KEY")
    assert (await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-2")).version == 2


@pytest.mark.parametrize(
    ("setting_key", "tail"),
    [("MINIMAX_2_7_API_KEY", '; did you mean "MINIMAX_API_KEY"?'), ("X", ""), ("", ""), ("\x00", ""), ("\udc80", "")],
)
async def test_removing_is_refused_when_the_name_is_not_held(
    keystore: Keystore, tenant: Tenant, setting_key: str, tail: str
) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", KEY)
    with pytest.raises(CredentialUnknown) as refused:
        await keystore.credentials.remove(tenant, setting_key)
    assert str(refused.value) == f"tenant 'acme' has no key {setting_key!r}{tail}"


async def test_removing_touches_no_other_tenant(keystore: Keystore, tenant: Tenant) -> None:
    other = await keystore.tenants.add("other", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    await keystore.credentials.set(other, "MINIMAX_API_KEY", "mm-2")
    await keystore.credentials.remove(other, "MINIMAX_API_KEY")
    assert await secret_of(keystore, tenant) == "mm-1"


# --- a writer of the database, which is not us (RELIABILITY 4.5, 9) ------------------------------------------------

CREDENTIAL = "UPDATE wardgate_credentials SET {} WHERE tenant_id = 'a' AND setting_key = 'MINIMAX_API_KEY'"
DATA_KEY = "UPDATE wardgate_tenant_keys SET {} WHERE tenant_id = 'a'"
OF_B = "(SELECT envelope FROM wardgate_credentials WHERE tenant_id = 'b' AND setting_key = 'MINIMAX_API_KEY')"
OF_OPENAI = "(SELECT envelope FROM wardgate_credentials WHERE tenant_id = 'a' AND setting_key = 'OPENAI_API_KEY')"
DEK_OF_B = "(SELECT dek_id FROM wardgate_tenant_keys WHERE tenant_id = 'b')"
TAMPERINGS = {
    "envelope of another tenant": [CREDENTIAL.format(f"envelope = {OF_B}")],
    "envelope of another name": [CREDENTIAL.format(f"envelope = {OF_OPENAI}")],
    "envelope cut": [CREDENTIAL.format("envelope = substr(envelope, 1, length(envelope) - 4)")],
    "envelope longer": [CREDENTIAL.format("envelope = envelope || 'AAAA'")],
    "envelope emptied": [CREDENTIAL.format("envelope = ''")],
    "envelope of plain text": [CREDENTIAL.format("envelope = 'mm-attackers-own-key'")],
    "envelope of another version": [CREDENTIAL.format("envelope = replace(envelope, 'wg1.', 'wg2.')")],
    "envelope that names another data key": [
        CREDENTIAL.format(f"envelope = 'wg1.' || {DEK_OF_B} || substr(envelope, 25)")
    ],
    "envelope that names no data key": [CREDENTIAL.format("envelope = 'wg1.none' || substr(envelope, 25)")],
    "other credential id": [CREDENTIAL.format("credential_id = '00000000-0000-4000-8000-000000000000'")],
    "name changed": [CREDENTIAL.format("setting_key = 'MINIMAX_2_7_API_KEY'")],
    "moved from another tenant": [
        "DELETE FROM wardgate_credentials WHERE tenant_id = 'a' AND setting_key = 'MINIMAX_API_KEY'",
        "UPDATE wardgate_credentials SET tenant_id = 'a' WHERE tenant_id = 'b' AND setting_key = 'MINIMAX_API_KEY'",
    ],
    "moved from another tenant with its data key": [
        "DELETE FROM wardgate_credentials WHERE tenant_id = 'a' AND setting_key = 'MINIMAX_API_KEY'",
        "UPDATE wardgate_tenant_keys SET state = 'decrypt'",
        "UPDATE wardgate_credentials SET tenant_id = 'a' WHERE tenant_id = 'b' AND setting_key = 'MINIMAX_API_KEY'",
        "UPDATE wardgate_tenant_keys SET tenant_id = 'a' WHERE tenant_id = 'b'",
    ],
    "data key of another tenant": [
        DATA_KEY.format("wrapped = (SELECT wrapped FROM wardgate_tenant_keys WHERE tenant_id = 'b')")
    ],
    "data key cut": [DATA_KEY.format("wrapped = substr(wrapped, 1, 20)")],
    "data key gone": ["DELETE FROM wardgate_tenant_keys WHERE tenant_id = 'a'"],
    "data key renamed": [DATA_KEY.format("dek_id = 'other'")],
    "data key of no root key": [DATA_KEY.format("kek_id = 'k209901a'")],
}


@pytest.fixture
async def two_tenants(world: World) -> AsyncIterator[Keystore]:
    keystore = await world.open()
    for name in ("a", "b"):
        tenant = await keystore.tenants.add(f"tenant-{name}", "team", id=name)
        await keystore.credentials.set(tenant, "MINIMAX_API_KEY", f"mm-{name}")
        await keystore.credentials.set(tenant, "OPENAI_API_KEY", f"sk-{name}")
    yield keystore
    await keystore.close()


@pytest.mark.parametrize("statements", TAMPERINGS.values(), ids=list(TAMPERINGS))
async def test_key_is_damaged_and_not_used_when_the_database_was_changed(
    world: World, two_tenants: Keystore, statements: list[str]
) -> None:
    tenant = await two_tenants.tenants.get("a")
    before = await two_tenants.keyring(tenant)
    assert two_tenants.unseal(before, "minimax").secret.reveal() == "mm-a"

    await world.sql(*statements)

    ring = await two_tenants.keyring(tenant)
    found = ring.resolutions["minimax"]
    assert isinstance(found, Missing)
    assert [each.why for each in found.skipped] == [Unusable.DAMAGED]
    held = [each for same_name in ring.holdings.values() for each in same_name]
    assert all((each.value is None) == (each.unusable is not None) for each in held)
    with pytest.raises(CredentialUnusable, match=r"minimax needs a key: looked for MINIMAX_API_KEY.*does not open"):
        two_tenants.unseal(ring, "minimax")
    listed = {info.setting_key: info.unusable for info in await two_tenants.credentials.list(tenant)}
    assert Unusable.DAMAGED in listed.values()


async def test_every_bit_of_the_stored_envelope_counts(world: World, two_tenants: Keystore) -> None:
    """The same through the database, for a sample of bits; test_sealing changes them all."""
    tenant = await two_tenants.tenants.get("a")
    where = "tenant_id = 'a' AND setting_key = 'MINIMAX_API_KEY'"
    ((envelope,),) = await world.sql(f"SELECT envelope FROM wardgate_credentials WHERE {where}")
    for at in range(0, len(envelope), 9):
        changed = envelope[:at] + ("A" if envelope[at] != "A" else "B") + envelope[at + 1 :]
        await world.sql(f"UPDATE wardgate_credentials SET envelope = :changed WHERE {where}", changed=changed)
        assert isinstance((await two_tenants.keyring(tenant)).resolutions["minimax"], Missing)


async def test_one_damaged_key_leaves_the_others_usable(world: World, two_tenants: Keystore) -> None:
    tenant = await two_tenants.tenants.get("a")
    await world.sql(CREDENTIAL.format("envelope = 'wg1.x.AAAA'"))
    assert await secret_of(two_tenants, tenant, "openai") == "sk-a"
    await two_tenants.credentials.set(tenant, "MINIMAX_2_7_API_KEY", "mm-new")
    assert await secret_of(two_tenants, tenant) == "mm-new"


def test_copied_database_file_tells_nothing(sqlite_world: World, tmp_path: Path) -> None:
    async def fill() -> None:
        keystore = await sqlite_world.open()
        tenant = await keystore.tenants.add("acme", "team")
        await keystore.credentials.set(tenant, "MINIMAX_API_KEY", KEY)
        await keystore.close()

    asyncio.run(fill())
    path = sqlite_path(parse_url(sqlite_world.url))
    assert path is not None
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "stolen.db")) as stolen:
        source.backup(stolen)
    dump = (tmp_path / "stolen.db").read_bytes()
    assert b"mm-canary" not in dump
    assert b"wg1." in dump
