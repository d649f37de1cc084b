"""Limits of a tenant's own: what may be set, what is refused and how, what others hear, and what a new token has."""

import asyncio
from datetime import timedelta

import pytest

from keystore.errors import LimitInvalid, LimitUnknown, TenantUnknown
from keystore.keystore import Keystore
from keystore.limits import MOST, Limit, Limited, TenantLimits
from keystore.tenants import Tenant
from tests.keystore.conftest import World

RPM, TPM, CONC = Limited.REQUESTS, Limited.TOKENS, Limited.CONCURRENCY


@pytest.fixture
async def acme(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "solo", id="acme")


async def test_each_takes_the_place_of_its_own_and_the_others_stay(keystore: Keystore, acme: Tenant) -> None:
    token = (await keystore.tokens.create(acme)).id
    set_now = keystore.limits.set
    assert await set_now(acme, {"concurrency": 3, "requests_per_minute": 60}) == [
        Limit("acme", "", CONC, 3),
        Limit("acme", "", RPM, 60),
    ]
    assert await set_now(acme, {"concurrency": 4}) == [Limit("acme", "", CONC, 4), Limit("acme", "", RPM, 60)]
    assert await set_now(acme, {"tokens_per_minute": MOST}, token_id=token) == [Limit("acme", token, TPM, MOST)]
    known = TenantLimits.of(await keystore.limits.list(acme))
    assert (known.of_tenant, known.of_token(token)) == ({CONC: 4, RPM: 60}, {TPM: MOST})
    assert known.of_token("another") == known.of_token(None) == {}
    assert (await keystore.keyring(acme)).limits == known

    assert await keystore.limits.remove(acme, ["concurrency"]) == [Limit("acme", "", CONC, 4)]
    assert await keystore.limits.remove(acme, token_id=token) == [Limit("acme", token, TPM, MOST)]
    assert await keystore.limits.list(acme) == [Limit("acme", "", RPM, 60)]


async def test_what_is_refused_says_what_would_help(keystore: Keystore, acme: Tenant) -> None:
    other = await keystore.tenants.add("other", "solo")
    theirs = (await keystore.tokens.create(other)).id
    await keystore.limits.set(acme, {"concurrency": 1})
    refused: list[tuple[dict[str, int], str, str]] = [
        ({}, "", "requests_per_minute, tokens_per_minute, concurrency"),
        ({"requests": 1}, "", "not 'requests'"),
        ({"concurrency": 5, "requests_per_minute": 0}, "", "from 1 to 10,000,000,000, not 0"),
        ({"tokens_per_minute": MOST + 1}, "", "from 1 to 10,000,000,000"),
        ({"concurrency": 5}, theirs, "wardgate token list"),
    ]
    for amounts, token, says in refused:
        with pytest.raises(LimitInvalid, match=says):
            await keystore.limits.set(acme, amounts, token_id=token)
    with pytest.raises(LimitUnknown, match=r"no requests_per_minute of its own; it has: concurrency"):
        await keystore.limits.remove(acme, ["concurrency", "requests_per_minute"])
    with pytest.raises(LimitUnknown, match=r"the tenant 'acme' has no token 'AAAAAAAAAAAA'; `wardgate token list`"):
        await keystore.limits.remove(acme, token_id="AAAAAAAAAAAA")
    assert await keystore.limits.list(acme) == [Limit("acme", "", CONC, 1)]
    nobody = Tenant("nobody", "nobody", "", "solo", None, acme.created_at)
    with pytest.raises(TenantUnknown):
        await keystore.limits.set(nobody, {"concurrency": 1})


async def test_two_who_set_the_same_at_once_leave_one(keystore: Keystore, acme: Tenant) -> None:
    await asyncio.gather(
        *(keystore.limits.set(acme, {"concurrency": n, "requests_per_minute": n}) for n in range(1, 9))
    )
    found = await keystore.limits.list(acme)
    assert [each.limited for each in found] == [CONC, RPM] and found[0].amount == found[1].amount


async def test_token_in_place_of_another_has_its_limits(keystore: Keystore, acme: Tenant) -> None:
    old, beside = [(await keystore.tokens.create(acme)).id for _ in range(2)]
    await keystore.limits.set(acme, {"concurrency": 2, "tokens_per_minute": 7}, token_id=old)
    await keystore.limits.set(acme, {"concurrency": 9}, token_id=beside)
    new = (await keystore.tokens.rotate(old, overlap=timedelta(hours=1))).id
    known = (await keystore.keyring(acme)).limits
    assert known.of_token(new) == known.of_token(old) == {CONC: 2, TPM: 7}
    assert (await keystore.tokens.rotate(beside, overlap=timedelta(0))).id in (
        await keystore.keyring(acme)
    ).limits.of_tokens


async def test_other_process_hears_of_it(world: World, keystore: Keystore, acme: Tenant) -> None:
    serving = await world.open()
    await serving.begin_serving()
    try:
        assert (await serving.keyring(acme)).limits.of_tenant == {}
        await keystore.limits.set(acme, {"concurrency": 5})
        deadline = asyncio.get_running_loop().time() + 5
        while (await serving.keyring(acme)).limits.of_tenant != {CONC: 5}:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)
        known = (await serving.keyring(acme)).limits
        assert (await serving.keyring(acme)).limits is known
    finally:
        await serving.close()
