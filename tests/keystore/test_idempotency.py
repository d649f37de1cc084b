"""A write that names itself is done once, on both databases."""

import asyncio

import pytest

from keystore.errors import IdempotencyBusy, IdempotencyReused
from keystore.idempotency import Stored, Ticket
from keystore.keystore import Keystore
from tests.keystore.conftest import FakeClock, World

SCOPE = ("admin", "token", "tenant.add")
REQUEST = ("POST", "/admin/tenants", '{"slug": "acme"}')


async def begun(keystore: Keystore, key: str = "k", request: tuple[str, ...] = REQUEST) -> Ticket:
    ticket = await keystore.idempotency.begin(SCOPE, key, request)
    assert isinstance(ticket, Ticket)
    return ticket


async def test_second_gets_what_the_first_did(keystore: Keystore) -> None:
    await keystore.idempotency.finish(await begun(keystore), 201, '{"id": 1}')
    assert await keystore.idempotency.begin(SCOPE, "k", REQUEST) == Stored(201, '{"id": 1}')


async def test_another_request_with_the_key_is_refused(keystore: Keystore) -> None:
    ticket = await begun(keystore)
    for other in (("PUT", *REQUEST[1:]), (*REQUEST[:2], "{}"), (*REQUEST, ""), ("", *REQUEST), ("".join(REQUEST),)):
        with pytest.raises(IdempotencyReused):
            await keystore.idempotency.begin(SCOPE, "k", other)
    await keystore.idempotency.finish(ticket, 200, "{}")
    with pytest.raises(IdempotencyReused):
        await keystore.idempotency.begin(SCOPE, "k", ("PUT", *REQUEST[1:]))


@pytest.mark.parametrize("scope", [("tenant", *SCOPE[1:]), (*SCOPE[:2], "token.create"), ("admi", "ntoken", SCOPE[2])])
async def test_key_belongs_to_whoever_came_with_it(keystore: Keystore, scope: tuple[str, ...]) -> None:
    await begun(keystore)
    assert isinstance(await keystore.idempotency.begin(scope, "k", REQUEST), Ticket)


async def test_one_of_many_wins(keystore: Keystore) -> None:
    asked = [keystore.idempotency.begin(SCOPE, "k", REQUEST) for _ in range(8)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert len([one for one in found if isinstance(one, Ticket)]) == 1
    assert len([one for one in found if isinstance(one, IdempotencyBusy)]) == 7


async def test_refused_write_frees_its_key(keystore: Keystore) -> None:
    await keystore.idempotency.forget(await begun(keystore))
    await begun(keystore, request=("another",))


async def test_write_that_broke_off_may_be_begun_again(keystore: Keystore, clock: FakeClock) -> None:
    first = await begun(keystore)
    clock.advance(seconds=119)
    with pytest.raises(IdempotencyBusy):
        await begun(keystore)
    clock.advance(seconds=1)
    second = await begun(keystore)
    await keystore.idempotency.finish(first, 200, '"first"')  # too late: it is the second's by now
    with pytest.raises(IdempotencyBusy):
        await begun(keystore)
    await keystore.idempotency.forget(first)
    await keystore.idempotency.finish(second, 200, '"second"')
    assert await keystore.idempotency.begin(SCOPE, "k", REQUEST) == Stored(200, '"second"')


async def test_is_forgotten_after_a_day(keystore: Keystore, clock: FakeClock, world: World) -> None:
    await keystore.idempotency.finish(await begun(keystore), 200, "{}")
    clock.advance(hours=23, minutes=59)
    assert isinstance(await keystore.idempotency.begin(SCOPE, "k", REQUEST), Stored)
    clock.advance(minutes=1)
    await begun(keystore, key="other")
    assert await world.sql("SELECT count(*) FROM wardgate_idempotency") == [(1,)]
    await begun(keystore)


async def test_nothing_that_was_sent_is_kept(keystore: Keystore, world: World) -> None:
    await keystore.idempotency.finish(await begun(keystore, "the-key", ("PUT", "sk-secret-value")), 200, "{}")
    [row] = await world.sql("SELECT * FROM wardgate_idempotency")
    kept = b"|".join(bytes(part) if isinstance(part, bytes | memoryview) else str(part).encode() for part in row)
    assert b"secret" not in kept and b"the-key" not in kept
