"""What a serving process remembers: no statement while nothing changes, and never longer than it is true."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from keystore.changes import Changed
from keystore.errors import DatabaseUnavailable, Refusal, TokenRefused
from keystore.feed import ASKED_S, ChangeFeed
from keystore.keyring import Keyring
from keystore.keystore import Keystore
from keystore.remembered import Remembered, TaggedCache
from keystore.resolve import Found
from keystore.tenants import Tenant
from tests.keystore.conftest import START, World, administer, named


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    added = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(added, "MINIMAX_2_7_API_KEY", "sk-of-acme-0123456789")
    return added


@pytest.fixture
async def serving(world: World, keystore: Keystore) -> AsyncIterator[Keystore]:
    """Another process on the same database, which serves."""
    opened = await world.open()
    await opened.begin_serving()
    yield opened
    await opened.close()


@pytest.fixture
def statements(serving: Keystore) -> list[str]:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "wardgate_changes" not in statement:  # the feed's own look, once a second
            seen.append(statement)

    event.listen(serving._database._engine.sync_engine, "before_cursor_execute", note)
    return seen


async def within_a_second(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 1.0
    while not await holds():
        assert time.monotonic() < deadline, "it was not obeyed within a second"
        await asyncio.sleep(0.005)


async def refused_as(keystore: Keystore, token: str) -> Refusal | None:
    try:
        await keystore.authenticate(token, START)
    except TokenRefused as refused:
        return refused.why
    return None


def name_found(keyring: Keyring) -> str | None:
    found = keyring.resolutions["minimax"]
    return found.setting_key if isinstance(found, Found) else None


async def test_second_request_costs_no_statement(
    world: World, keystore: Keystore, serving: Keystore, tenant: Tenant, statements: list[str]
) -> None:
    token = (await keystore.tokens.create(tenant)).token
    if not world.is_sqlite:
        await _all_heard(serving, world)
    for _ in range(2):
        caller = await serving.authenticate(token, START)
        assert caller.tenant is not None
        keyring = await serving.keyring(caller.tenant)
    spent = len(statements)
    assert spent > 0
    for _ in range(10):
        await serving.authenticate(token, START)
        assert await serving.keyring(tenant) is keyring
    assert len(statements) == spent


async def test_garbage_costs_no_statement(serving: Keystore, statements: list[str]) -> None:
    for number in range(500):
        text = f"wg_live_{number:012d}_' OR 1=1 UNION SELECT * FROM wardgate_tokens; DROP TABLE x --{number}"
        assert await refused_as(serving, text) is Refusal.MALFORMED
    assert statements == []


async def test_revoked_token_is_refused_by_the_others(keystore: Keystore, serving: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant)
    assert await refused_as(serving, made.token) is None
    await keystore.tokens.revoke(made.id)

    async def refused() -> bool:
        return await refused_as(serving, made.token) is Refusal.REVOKED

    if serving._database.is_sqlite:
        await asyncio.sleep(ASKED_S)
        assert await refused()
    await within_a_second(refused)


async def test_changes_of_a_tenant_are_obeyed(keystore: Keystore, serving: Keystore, tenant: Tenant) -> None:
    token = (await keystore.tokens.create(tenant)).token
    assert name_found(await serving.keyring(tenant)) == "MINIMAX_2_7_API_KEY"
    await serving.authenticate(token, START)
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "sk-newer-0123456789abc")
    await keystore.tenants.set_plan("acme", "solo")

    async def obeyed() -> bool:
        caller = await serving.authenticate(token, START)
        found = name_found(await serving.keyring(tenant))
        return caller.tenant is not None and (caller.tenant.plan, found) == ("solo", "MINIMAX_API_KEY")

    await within_a_second(obeyed)
    await keystore.credentials.remove(tenant, "MINIMAX_API_KEY")

    async def removed() -> bool:
        return name_found(await serving.keyring(tenant)) == "MINIMAX_2_7_API_KEY"

    await within_a_second(removed)


async def test_expiry_needs_no_news(keystore: Keystore, serving: Keystore, tenant: Tenant) -> None:
    later = START.replace(hour=13)
    made = await keystore.tokens.create(tenant, expires_at=later)
    assert await refused_as(serving, made.token) is None
    with pytest.raises(TokenRefused) as refused:
        await serving.authenticate(made.token, later)
    assert refused.value.why is Refusal.EXPIRED


async def test_what_changed_while_it_was_read_is_not_remembered(
    world: World, keystore: Keystore, serving: Keystore, tenant: Tenant
) -> None:
    """T17: an answer that was on its way when the change was told must not come back to life."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(of: Tenant) -> Keyring:
        keyring = await keystore.keyring(of)
        began.set()
        await go_on.wait()
        return keyring

    feed = partial(ChangeFeed, serving._database)
    remembered = Remembered(keystore.tokens, slow, feed, untold=False, is_sqlite=world.is_sqlite)
    await remembered.feed.start()
    reading = asyncio.ensure_future(remembered.keyring(tenant))
    await began.wait()
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "sk-newer-0123456789abc")
    await within_a_second(lambda: heard(remembered))
    go_on.set()
    assert name_found(await reading) == "MINIMAX_2_7_API_KEY"  # what was true when it was read
    assert name_found(await remembered.keyring(tenant)) == "MINIMAX_API_KEY"
    await remembered.feed.stop()


class Slow:
    """Readings of a keyring that end when they are told to."""

    def __init__(self, world: World, keystore: Keystore, serving: Keystore) -> None:
        self.now = 0.0
        self.begun = 0
        self.go_on = asyncio.Event()
        self._keystore = keystore
        feed = partial(ChangeFeed, serving._database)
        self.remembered = Remembered(
            keystore.tokens, self._read, feed, untold=False, is_sqlite=world.is_sqlite, clock=lambda: self.now
        )

    async def _read(self, of: Tenant) -> Keyring:
        self.begun += 1
        keyring = await self._keystore.keyring(of)
        await self.go_on.wait()
        return keyring

    async def asked(self, tenant: Tenant, times: int = 1) -> list[asyncio.Task[Keyring]]:
        """So many requests, which wait."""
        tasks = [asyncio.create_task(self.remembered.keyring(tenant)) for _ in range(times)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks


@pytest.fixture
async def slow(world: World, keystore: Keystore, serving: Keystore, tenant: Tenant) -> AsyncIterator[Slow]:
    found = Slow(world, keystore, serving)
    await found.remembered.feed.start()
    yield found
    await found.remembered.feed.stop()


async def test_requests_at_once_are_one_reading_whoever_leaves(slow: Slow, tenant: Tenant) -> None:
    """A database that comes back is asked once for each tenant, not once for each request."""
    first, *others = await slow.asked(tenant, 50)
    first.cancel()
    slow.go_on.set()
    found = await asyncio.gather(*others)
    assert slow.begun == 1
    assert {id(each) for each in found} == {id(await slow.remembered.keyring(tenant))}
    assert first.cancelled()


async def test_reading_that_fails_is_told_to_all_and_tried_again(slow: Slow, serving: Keystore) -> None:
    made = [await serving.tokens.create(await serving.tenants.add(slug, "team")) for slug in ("one", "two")]
    await serving.tokens.revoke(made[0].id)
    told = await asyncio.gather(
        *(slow.remembered.authenticate(each.token, START) for each in made * 5), return_exceptions=True
    )
    assert [isinstance(each, TokenRefused) for each in told] == [True, False] * 5
    assert not slow.remembered._grants.readings


async def test_reading_is_not_joined_after_a_change_was_heard_or_when_it_takes_long(
    slow: Slow, keystore: Keystore, tenant: Tenant
) -> None:
    before = await slow.asked(tenant)
    slow.now = 0.9
    before += await slow.asked(tenant)
    assert slow.begun == 1
    slow.now = 1.1
    before += await slow.asked(tenant)
    assert slow.begun == 2
    assert not slow.remembered._epoch
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "sk-newer-0123456789abc")
    await within_a_second(lambda: heard(slow.remembered))
    after = await slow.asked(tenant, 2)
    slow.go_on.set()
    assert {name_found(each) for each in await asyncio.gather(*before)} == {"MINIMAX_2_7_API_KEY"}
    assert {name_found(each) for each in await asyncio.gather(*after)} == {"MINIMAX_API_KEY"}
    assert slow.begun == 3


async def heard(remembered: Remembered) -> bool:
    remembered.feed.catch_up()
    return remembered._epoch > 0


async def test_rows_that_were_cleared_away_make_everything_forgotten(
    world: World, keystore: Keystore, serving: Keystore, tenant: Tenant
) -> None:
    await serving.keyring(tenant)
    for number in range(3):
        await keystore.credentials.set(tenant, "MINIMAX_API_KEY", f"sk-number-{number}-0123456789")
    await world.sql("DELETE FROM wardgate_changes WHERE seq < (SELECT max(seq) FROM wardgate_changes)")

    async def obeyed() -> bool:
        return name_found(await serving.keyring(tenant)) == "MINIMAX_API_KEY"

    await within_a_second(obeyed)


async def test_rows_of_another_application_are_seen(world: World) -> None:
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    opened = await world.open()
    await opened.begin_serving()
    tenant = await opened.tenants.add("acme", "team")
    assert name_found(await opened.keyring(tenant)) is None
    await world.sql("INSERT INTO tenant_settings VALUES (:id, 'MINIMAX_API_KEY', 'sk-0123456789abcdef')", id=tenant.id)
    if world.is_sqlite:
        await asyncio.sleep(ASKED_S)
        assert name_found(await opened.keyring(tenant)) == "MINIMAX_API_KEY"
    deadline = time.monotonic() + 2.0
    while name_found(await opened.keyring(tenant)) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await opened.close()


@pytest.mark.services
async def test_database_away(pg_world: World) -> None:
    """Those who are known are served; who is not known is told of an outage, never that the token is wrong."""
    keystore = await pg_world.open()
    await keystore.begin_serving()
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "sk-of-acme-0123456789")
    known, unknown = [(await keystore.tokens.create(tenant)).token for _ in range(2)]
    await _all_heard(keystore, pg_world)  # what is heard later is dropped, and must be read again
    await keystore.authenticate(known, START)
    await keystore.keyring(tenant)
    name = pg_world.url.split("?")[0].rpartition("/")[2]
    admin = named(pg_world.url, "postgres")
    administer(admin, f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
    administer(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        await _until_away(keystore)
        for _ in range(100):
            assert (await keystore.authenticate(known, START)).tenant == tenant
            assert name_found(await keystore.keyring(tenant)) == "MINIMAX_API_KEY"
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await keystore.authenticate(unknown, START)
        assert time.monotonic() - began < 1.0
    finally:
        administer(admin, f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')
    deadline = time.monotonic() + 5.0
    while True:
        try:
            await keystore.authenticate(unknown, START)
            break
        except DatabaseUnavailable:
            assert time.monotonic() < deadline, "it did not come back"
            await asyncio.sleep(0.05)
    await keystore.close()


async def _all_heard(keystore: Keystore, world: World) -> None:
    ((last,),) = await world.sql("SELECT max(seq) FROM wardgate_changes")
    deadline = time.monotonic() + 5.0
    while keystore._remembered.feed._seen < last:
        assert time.monotonic() < deadline, "a change was not heard"
        await asyncio.sleep(0.02)


async def _until_away(keystore: Keystore) -> None:
    deadline = time.monotonic() + 5.0
    while not keystore._remembered.feed.away:
        assert time.monotonic() < deadline, "the outage was not noticed"
        await asyncio.sleep(0.02)


async def test_last_use_of_a_token_is_written(keystore: Keystore, serving: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant)
    for at in (START, START.replace(minute=5)):
        await serving.authenticate(made.token, at)
    assert [info.last_used_at for info in await keystore.tokens.list()] == [None]
    await serving.tend()
    await keystore.authenticate(made.token, START)
    await keystore.tokens.flush_used()
    (info,) = await keystore.tokens.list()
    assert (info.last_used_at, info.sealed) == (START.replace(minute=5), True)


async def test_what_all_have_heard_long_ago_is_cleared_away(world: World, keystore: Keystore, tenant: Tenant) -> None:
    old: object = "2020-01-01 00:00:00.000000" if world.is_sqlite else START.replace(year=2020)
    await world.sql("UPDATE wardgate_changes SET at = :old", old=old)
    await keystore.begin_serving()
    assert await world.sql("SELECT count(*) FROM wardgate_changes") == [(0,)]
    await keystore.tenants.set_plan("acme", "solo")
    assert (await world.sql("SELECT seq > 1 FROM wardgate_changes")) == [(1,)]


# --- the cache -----------------------------------------------------------------------------------------------------


def test_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    cache: TaggedCache[int] = TaggedCache(3)
    for number in range(5):
        cache.put(number, number, 0.0, [(Changed.TENANT, str(number))])
        cache.get(0)
    assert len(cache) == 3
    assert [key for key in range(5) if cache.get(key)] == [0, 3, 4]
    assert len(cache._tagged) == 3


@given(st.text(alphabet="ab", max_size=6), st.text(alphabet="ab", max_size=6))
@settings(max_examples=300, deadline=None)
def test_texts_that_share_a_beginning_share_no_entry(one: str, other: str) -> None:
    """T13: the whole token is the key."""
    cache: TaggedCache[str] = TaggedCache(10)
    cache.put(hashlib.sha256(one.encode()).digest(), one, 0.0, ())
    found = cache.get(hashlib.sha256(other.encode()).digest())
    assert (found is not None) == (one == other)


@given(st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 5), st.integers(0, 3)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_dropped_tags_leave_nothing_behind(steps: list[tuple[str, int, int]]) -> None:
    cache: TaggedCache[int] = TaggedCache(4)
    for what, key, tag in steps:
        if what == "p":
            cache.put(key, tag, 0.0, [(Changed.TENANT, str(tag))])
        elif what == "g":
            cache.get(key)
        else:
            cache.drop((Changed.TENANT, str(tag)))
            assert all(found is None or found[0] != tag for found in map(cache.get, range(6)))
    assert len(cache) <= 4
    assert {key for keys in cache._tagged.values() for key in keys} == set(cache._entries)
