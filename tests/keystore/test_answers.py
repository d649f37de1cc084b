"""Kept answers: one claim at a time, the same answer for a day, sealed, and as if not there when they do not open."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from keystore.answer_room import LOOKED
from keystore.answer_seal import MOST_BYTES, Answer, Spot, dek_id_of_answer, open_answer, pack, seal_answer, unpack
from keystore.answers import LEASE, Asked, Claim, Found, Running, Stored, Unreadable
from keystore.errors import DatabaseUnavailable, EnvelopeDamaged, IdempotencyReused
from keystore.keystore import Keystore
from keystore.tenants import Tenant
from tests.keystore.conftest import FakeClock, World

CANARY = b"the canary sings at dawn"
ANSWER = Answer(200, {"x-wardgate-model": "gpt-5"}, b'{"choices": ["' + CANARY + b'"]}')
BODY = b'{"model": "gpt-5", "messages": []}'
VECTORS = Path(__file__).parents[1] / "vectors" / "answers.json"


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "free")


async def asked(
    keystore: Keystore, tenant: Tenant, key: str = "k", body: bytes = BODY, endpoint: str = "chat"
) -> Asked:
    return await keystore.answers.named(tenant, endpoint, key, body)


async def claimed(keystore: Keystore, request: Asked, request_id: str = "req_1", instead_of: str = "") -> Claim:
    claim = await keystore.answers.claim(request, request_id, instead_of=instead_of)
    assert isinstance(claim, Claim)
    return claim


async def claims(keystore: Keystore, request: Asked, request_id: str = "req_2") -> Claim | Found:
    return await keystore.answers.claim(request, request_id)


async def answered(keystore: Keystore, request: Asked, answer: Answer = ANSWER, request_id: str = "req_1") -> bool:
    return await keystore.answers.finish(await claimed(keystore, request, request_id), answer)


async def rows(world: World) -> int:
    return int((await world.sql("SELECT count(*) FROM wardgate_answers"))[0][0])


# --- one asks, all have the answer ----------------------------------------------------------------------------------


async def test_second_gets_the_answer_of_the_first(keystore: Keystore, tenant: Tenant) -> None:
    request = await asked(keystore, tenant)
    assert await keystore.answers.look(request) is None
    claim = await claimed(keystore, request)
    assert await claims(keystore, request) == await keystore.answers.look(request) == Running()
    assert await keystore.answers.finish(claim, ANSWER)
    assert await claims(keystore, request) == await keystore.answers.look(request) == Stored("req_1", ANSWER)


async def test_another_body_is_refused_whatever_became_of_the_first(
    keystore: Keystore, tenant: Tenant, world: World, clock: FakeClock
) -> None:
    request, other = await asked(keystore, tenant), await asked(keystore, tenant, body=BODY + b" ")

    replica = await world.open()

    async def is_refused() -> None:
        for work in (keystore.answers.look(other), claims(replica, other)):
            with pytest.raises(IdempotencyReused):
                await work

    await answered(keystore, request)
    await is_refused()
    request, other = await asked(keystore, tenant, "j"), await asked(keystore, tenant, "j", b"")
    await claimed(keystore, request)
    await is_refused()
    clock.advance(minutes=5)
    await is_refused()
    await replica.close()


async def test_key_is_of_one_tenant_and_one_surface(keystore: Keystore, tenant: Tenant) -> None:
    other = await keystore.tenants.add("globex", "free")
    await answered(keystore, await asked(keystore, tenant))
    for number, request in enumerate(
        (await asked(keystore, other), await asked(keystore, tenant, endpoint="messages")), 7
    ):
        assert await answered(keystore, request, Answer(200, {}, b"%d" % number), f"req_{number}")
        found = await keystore.answers.look(request)
        assert isinstance(found, Stored) and found.answer.body == b"%d" % number
    assert await keystore.answers.look(await asked(keystore, tenant)) == Stored("req_1", ANSWER)


async def test_one_of_many_claims_it(keystore: Keystore, tenant: Tenant, world: World) -> None:
    replicas = [keystore, await world.open(), await world.open()]
    request = await asked(keystore, tenant)
    found = await asyncio.gather(*(claims(replicas[n % 3], request, f"req_{n}") for n in range(30)))
    assert [type(one) for one in found].count(Claim) == 1
    assert found.count(Running()) == 29
    for each in replicas[1:]:
        await each.close()


async def test_answer_is_forgotten_after_a_day(
    keystore: Keystore, tenant: Tenant, clock: FakeClock, world: World
) -> None:
    request, other = await asked(keystore, tenant), await asked(keystore, tenant, body=b"another")
    await answered(keystore, request)
    clock.advance(hours=23, minutes=59, seconds=59)
    assert await claims(keystore, request) == Stored("req_1", ANSWER)
    clock.advance(seconds=1)
    assert await keystore.answers.look(request) is None
    await claimed(keystore, other, "req_2")
    assert await rows(world) == 1


# --- who dies, who gives up -----------------------------------------------------------------------------------------


async def test_claim_of_the_dead_goes_to_exactly_one_and_the_dead_may_say_nothing_more(
    keystore: Keystore, tenant: Tenant, world: World, clock: FakeClock
) -> None:
    other, request = await world.open(), await asked(keystore, tenant)
    dead = await claimed(keystore, request)
    clock.advance(seconds=LEASE.total_seconds() - 1)
    assert await claims(other, request) == Running() == await other.answers.look(request)
    clock.advance(seconds=1)
    assert await other.answers.look(request) is None
    found = await asyncio.gather(*(claims(other, request, f"req_{n}") for n in range(2, 12)))
    [taken] = [one for one in found if isinstance(one, Claim)]
    assert not await keystore.answers.finish(dead, Answer(200, {}, b"too late"))
    await keystore.answers.forget(dead)
    assert await claims(keystore, request) == Running()
    assert await other.answers.finish(taken, ANSWER)
    assert await claims(keystore, request) == Stored(taken.request_id, ANSWER)
    await other.close()


async def test_who_lives_says_so(keystore: Keystore, tenant: Tenant, world: World, clock: FakeClock) -> None:
    other = await world.open()
    held = [await asked(keystore, tenant, f"k{number}") for number in range(3)]
    for request in held:
        await claimed(keystore, request)
    for _ in range(4):
        clock.advance(seconds=10)
        await other.answers.renew()  # of nothing: it holds none of them
        await keystore.answers.renew()
    assert [await claims(other, request) for request in held] == [Running()] * 3
    await other.close()


async def test_given_up_request_may_be_claimed_at_once_with_any_body(
    keystore: Keystore, tenant: Tenant, world: World
) -> None:
    await keystore.answers.forget(await claimed(keystore, await asked(keystore, tenant)))
    assert await rows(world) == 0
    await claimed(keystore, await asked(keystore, tenant, body=b"another"), "req_2")


async def test_what_a_process_could_not_give_up_is_its_own_again_at_once(
    keystore: Keystore, tenant: Tenant, world: World
) -> None:
    other, request = await world.open(), await asked(keystore, tenant)
    claim = await claimed(keystore, request)
    await world.sql("ALTER TABLE wardgate_answers RENAME TO away")
    store = keystore.answers
    for work in (store.renew, lambda: store.finish(claim, ANSWER), lambda: store.forget(claim)):
        with pytest.raises(DatabaseUnavailable):
            await work()
    await store.renew()  # of nothing: it is held no longer
    for look in (lambda: store.look(request), lambda: claims(keystore, request)):
        with pytest.raises(DatabaseUnavailable):
            await look()
    await world.sql("ALTER TABLE away RENAME TO wardgate_answers")
    assert await claims(other, request) == Running()
    await claimed(keystore, request, "req_2")
    await other.close()


# --- what is kept, and how ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 5_000, 300_000])
async def test_answer_comes_back_byte_for_byte_and_small(
    keystore: Keystore, tenant: Tenant, world: World, size: int
) -> None:
    answer = Answer(
        400, {"content-type": "application/json", "x-wardgate-key": "byok:é"}, b"\x00\xff na\n" * (size // 5)
    )
    await answered(keystore, await asked(keystore, tenant, body=bytes(size)), answer)
    assert await keystore.answers.look(await asked(keystore, tenant, body=bytes(size))) == Stored("req_1", answer)
    [(stored,)] = await world.sql("SELECT length(envelope) FROM wardgate_answers")
    assert stored < max(300, size / 10)


async def test_answer_that_is_too_large_is_not_kept(keystore: Keystore, tenant: Tenant, world: World) -> None:
    noise = Random(7).randbytes(MOST_BYTES + 1)
    for body in (noise, bytes(5 * MOST_BYTES)):
        assert not await answered(keystore, await asked(keystore, tenant), Answer(200, {}, body))
        assert await rows(world) == 0
    assert await answered(keystore, await asked(keystore, tenant), Answer(200, {}, noise[: MOST_BYTES - 5_000]))


async def test_answers_beyond_a_tenants_room_are_not_kept_until_others_are_gone(
    world: World, clock: FakeClock, tenant: Tenant
) -> None:
    store = await world.open(answers_kept_bytes=35_000)
    other = await store.tenants.add("globex", "free")
    assert [await answered(store, await asked(store, tenant, f"k{n}"), noise(n), f"req_{n}") for n in range(5)] == [
        *(True, True, True, False, False)
    ]
    assert await answered(store, await asked(store, other), noise(9), "req_9")
    assert await answered(store, await asked(store, tenant, "small"), ANSWER, "req_8")
    assert await rows(world) == 5
    full = await asked(store, tenant, "k3")
    assert await store.answers.look(full) is None
    assert await store.answers.look(await asked(store, tenant, "k2")) == Stored("req_2", noise(2))

    clock.advance(hours=24)
    assert not await answered(store, full, noise(3), "req_3")  # they are old, and there still
    assert await store.answers.expire() == 5
    clock.advance(seconds=LOOKED.total_seconds())
    assert await answered(store, full, noise(3), "req_3")
    await store.close()


async def test_room_that_other_processes_took_is_seen_soon(world: World, clock: FakeClock, tenant: Tenant) -> None:
    first, second = [await world.open(answers_kept_bytes=35_000) for _ in range(2)]
    assert await answered(second, await asked(second, tenant, "its own"), ANSWER, "req_9")
    for number in range(3):
        assert await answered(first, await asked(first, tenant, f"k{number}"), noise(number), f"req_{number}")
    clock.advance(seconds=LOOKED.total_seconds())
    assert not await answered(second, await asked(second, tenant, "k7"), noise(7), "req_7")
    for store in (first, second):
        await store.close()


async def test_two_processes_that_write_at_once_overrun_a_room_by_little(world: World, tenant: Tenant) -> None:
    stores = [await world.open(answers_kept_bytes=400_000) for _ in range(2)]
    for number in range(60):
        store = stores[number % 2]
        await answered(store, await asked(store, tenant, f"k{number}"), noise(number), f"req_{number}")
    [(kept,)] = await world.sql("SELECT sum(length(envelope)) FROM wardgate_answers")
    assert 350_000 < kept < 440_000
    for store in stores:
        await store.close()


async def test_room_is_looked_at_seldom_and_without_the_answers(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    tenant, said = await store.tenants.add("acme", "free"), list[str]()
    engine = store._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    for number in range(30):
        assert await answered(store, await asked(store, tenant, f"k{number}"), ANSWER, f"req_{number}")
    (look,) = [each for each in said if "sum(" in each]
    [*_, (*_, plan)] = await sqlite_world.sql(f"EXPLAIN QUERY PLAN {look.replace('?', repr(tenant.id))}")
    assert "USING COVERING INDEX" in plan
    await store.close()


async def test_look_at_the_room_that_failed_is_tried_again(keystore: Keystore, tenant: Tenant, world: World) -> None:
    claims_made = [await claimed(keystore, await asked(keystore, tenant, f"k{n}"), f"req_{n}") for n in range(2)]
    await world.sql("ALTER TABLE wardgate_answers RENAME COLUMN bytes TO away")
    for claim in claims_made:
        with pytest.raises(DatabaseUnavailable):
            await keystore.answers.finish(claim, ANSWER)
    await world.sql("ALTER TABLE wardgate_answers RENAME COLUMN away TO bytes")
    assert await answered(keystore, await asked(keystore, tenant, "k9"), ANSWER, "req_9")


def noise(number: int) -> Answer:
    """An answer that does not get smaller."""
    return Answer(200, {}, Random(number).randbytes(10_000))


async def test_neither_answer_nor_key_nor_request_lies_there_in_the_clear(
    keystore: Keystore, tenant: Tenant, world: World
) -> None:
    answer = Answer(200, {"x-wardgate-model": "header-canary"}, CANARY * 3)
    await answered(keystore, await asked(keystore, tenant, "key-canary", b"body-canary"), answer)
    [row] = await world.sql("SELECT * FROM wardgate_answers")
    kept = b"|".join(bytes(part) if isinstance(part, bytes | memoryview) else str(part).encode() for part in row)
    if world.is_sqlite:
        path = Path(world.url.split("///")[1])
        kept += b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))
        assert tenant.id.encode() in kept
    for word in (CANARY[:10], b"canary", tenant.id.encode() + b"key"):
        assert word not in kept


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE wardgate_answers SET status = 201",
        "UPDATE wardgate_answers SET request_id = 'req_9'",
        "UPDATE wardgate_answers SET envelope = (SELECT envelope FROM wardgate_answers WHERE request_id = 'req_2')",
        "UPDATE wardgate_answers SET envelope = NULL",
        "DELETE FROM wardgate_tenant_keys",
    ],
)
async def test_answer_that_was_changed_or_moved_is_as_if_not_there(
    keystore: Keystore, tenant: Tenant, world: World, change: str
) -> None:
    request = await asked(keystore, tenant)
    await answered(keystore, request)
    await answered(keystore, await asked(keystore, tenant, "j"), Answer(200, {}, b"of another"), "req_2")
    await world.sql(change)
    lost = await keystore.answers.look(request)
    assert isinstance(lost, Unreadable)
    assert await claims(keystore, request, "req_3") == lost
    found = await asyncio.gather(
        *(keystore.answers.claim(request, f"req_{n}", instead_of=lost.request_id) for n in (4, 5))
    )
    assert sorted(type(one).__name__ for one in found) == ["Claim", "Running"]


async def test_body_of_another_request_is_not_answered_when_its_mac_is_put_there(
    keystore: Keystore, tenant: Tenant, world: World
) -> None:
    await answered(keystore, await asked(keystore, tenant))
    other = await asked(keystore, tenant, body=b"another")
    await world.sql("UPDATE wardgate_answers SET request_mac = :mac", mac=other.request_mac)
    assert isinstance(await keystore.answers.look(other), Unreadable)


# --- keys that change -----------------------------------------------------------------------------------------------


async def test_new_root_key_leaves_answers_as_they_are(
    keystore: Keystore, tenant: Tenant, world: World, clock: FakeClock
) -> None:
    request = await asked(keystore, tenant)
    await answered(keystore, request)
    [(old,)] = await world.sql("SELECT kek_id FROM wardgate_tenant_keys")
    await keystore.sealing.activate(await keystore.sealing.add())
    await keystore.sealing.rewrap()
    await keystore.sealing.verify()
    assert await keystore.sealing.retire(old)
    assert await keystore.answers.look(request) == Stored("req_1", ANSWER)
    again = await world.open()
    assert await again.answers.look(await again.answers.named(tenant, "chat", "k", BODY)) == Stored("req_1", ANSWER)
    await again.close()


@pytest.mark.parametrize("how", ["rotate", "shred"])
async def test_answers_of_before_a_new_data_key_are_noise(keystore: Keystore, tenant: Tenant, how: str) -> None:
    request = await asked(keystore, tenant)
    await answered(keystore, request)
    if how == "rotate":
        await keystore.sealing.rotate_tenant(tenant)
    else:
        await keystore.sealing.shred(tenant)
    assert await keystore.answers.look(request) == Unreadable("req_1")
    claim = await claimed(keystore, request, "req_2", instead_of="req_1")
    assert await keystore.answers.finish(claim, ANSWER)
    assert await keystore.answers.look(request) == Stored("req_2", ANSWER)


async def test_first_answers_of_a_tenant_make_its_data_key_once(
    keystore: Keystore, tenant: Tenant, world: World
) -> None:
    replicas = [keystore, await world.open(), await world.open()]
    requests = [await asked(keystore, tenant, f"k{number}") for number in range(12)]
    kept = await asyncio.gather(*(answered(replicas[n % 3], one, ANSWER, f"req_{n}") for n, one in enumerate(requests)))
    assert all(kept)
    assert await world.sql("SELECT count(*), max(seals) FROM wardgate_tenant_keys") == [(1, 1)]
    for each in replicas[1:]:
        await each.close()


# --- old rows -------------------------------------------------------------------------------------------------------


async def test_old_rows_are_deleted_in_small_batches_side_by_side(
    keystore: Keystore, tenant: Tenant, world: World, clock: FakeClock
) -> None:
    other = await world.open()
    await claimed(keystore, await asked(keystore, tenant))
    columns = "request_mac, tenant_id, request_id, holder, until, status, envelope, created_at"
    await world.sql(
        "CREATE TABLE numbers AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " SELECT i FROM n",
        f"INSERT INTO wardgate_answers (key_hash, {columns}) SELECT "
        + ("CAST(i AS BLOB)" if world.is_sqlite else "decode(lpad(to_hex(i), 64, '0'), 'hex')")
        + f", {columns} FROM wardgate_answers, numbers",
        "DROP TABLE numbers",
    )
    clock.advance(hours=23)
    await claimed(keystore, await asked(keystore, tenant, "young"))
    assert await keystore.answers.expire() == 0
    clock.advance(hours=1)
    both = await asyncio.gather(keystore.answers.expire(), other.answers.expire())
    clock.advance(seconds=10)
    assert sum(both) + await keystore.answers.expire() == 501
    assert await rows(world) == 1
    clock.advance(hours=24)
    await keystore.tend()
    assert await rows(world) == 0
    await other.close()


# --- the seal -------------------------------------------------------------------------------------------------------

SPOT = Spot("tenant", b"h" * 32, b"m" * 32, "req_1", 200)
DEK, NONCE = bytes(range(32)), bytes(12)
OTHERS: tuple[Callable[[], Spot], ...] = (
    lambda: Spot("tenan", b"h" * 32, b"m" * 32, "req_1", 200),
    lambda: Spot("tenant", b"i" * 32, b"m" * 32, "req_1", 200),
    lambda: Spot("tenant", b"h" * 32, b"n" * 32, "req_1", 200),
    lambda: Spot("tenant", b"h" * 32, b"m" * 32, "req_2", 200),
    lambda: Spot("tenant", b"h" * 32, b"m" * 32, "req_1", 201),
)


def test_format_is_as_it_was() -> None:
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    for vector in vectors:
        packed = pack(Answer(200, vector["headers"], bytes.fromhex(vector["body"])))
        assert packed is not None
        sealed = seal_answer(DEK, packed, SPOT, dek_id=vector["dek_id"], nonce=NONCE)
        assert sealed.hex() == vector["sealed"]
        answer = unpack(open_answer(DEK, bytes.fromhex(vector["sealed"]), SPOT), 200)
        assert (answer.headers, answer.body.hex()) == (vector["headers"], vector["body"])
        assert dek_id_of_answer(sealed) == vector["dek_id"]


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4), st.binary(max_size=3000), st.data())
def test_what_was_sealed_opens_and_nothing_else_does(headers: dict[str, str], body: bytes, data: st.DataObject) -> None:
    answer = Answer(200, headers, body)
    packed = pack(answer)
    assert packed is not None
    sealed = seal_answer(DEK, packed, SPOT, dek_id="d1", nonce=NONCE)
    assert unpack(open_answer(DEK, sealed, SPOT), 200) == answer
    at, bit = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(0, 7))
    changed = bytes((*sealed[:at], sealed[at] ^ 1 << bit, *sealed[at + 1 :]))
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    for wrong in (changed, cut, sealed + b"\x00"):
        with pytest.raises(EnvelopeDamaged):
            open_answer(DEK, wrong, SPOT)


@pytest.mark.parametrize("other", OTHERS)
def test_seal_is_of_its_spot(other: Callable[[], Spot]) -> None:
    sealed = seal_answer(DEK, b"\x00packed", SPOT, dek_id="d1", nonce=NONCE)
    with pytest.raises(EnvelopeDamaged):
        open_answer(DEK, sealed, other())
    with pytest.raises(EnvelopeDamaged):
        open_answer(DEK[::-1], sealed, SPOT)


@pytest.mark.parametrize("packed", [b"", b"\x00", b"\x01not zlib", b"\x00\x00\x00\x00\x02no"])
def test_what_was_not_packed_is_damaged(packed: bytes) -> None:
    with pytest.raises(EnvelopeDamaged):
        unpack(packed, 200)
