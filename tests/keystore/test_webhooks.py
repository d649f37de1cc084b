"""Webhooks as they are stored, and alerts on their way to them."""

import asyncio
import base64
from datetime import timedelta
from decimal import Decimal

import orjson
import pytest

from keystore.errors import EnvelopeDamaged, WebhookInvalid, WebhookUnknown
from keystore.keystore import Keystore
from keystore.outbox import CLAIM, Letter, Message, enqueue
from keystore.webhook_seal import Sealed
from keystore.webhooks import LONGEST_OVERLAP, MOST
from tests.keystore.conftest import World
from tests.keystore.ledgers import a_row

URL = "https://hooks.example/services/T0/B0/path-secret?token=query-secret"


async def written(keystore: Keystore, number: int = 1) -> None:
    messages = [Message("budget.threshold", {"number": each}) for each in range(number)]
    async with keystore._database.write() as connection:
        await enqueue(connection, messages, now=keystore._now())


async def claimed(keystore: Keystore, most: int = 100) -> list[Letter]:
    """What is due for each webhook."""
    return [
        letter for each in sorted(await keystore.outbox.due()) for letter in await keystore.outbox.claim(each, most)
    ]


# --- as stored -------------------------------------------------------------------------------------------------------


async def test_secret_is_random_shown_once_and_sealed_with_the_url(keystore: Keystore, world: World) -> None:
    made = await keystore.webhooks.add(URL, name="pager")
    world.clock.advance(seconds=1)
    other = await keystore.webhooks.add(URL)
    assert made.secret != other.secret and made.secret.startswith("whsec_")
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"), validate=True)) == 32
    assert await keystore.webhooks.list() == [made.info, other.info]
    assert (made.info.name, made.info.host) == ("pager", "hooks.example")
    opened = await keystore.webhooks.open(made.info.id)
    assert (opened.url, [each.reveal() for each in opened.secrets]) == (URL, [made.secret])
    stored = repr(await world.sql("SELECT * FROM wardgate_webhooks"))
    for secret in ("path-secret", "query-secret", made.secret, made.secret.removeprefix("whsec_")):
        assert secret not in stored + repr(made) + repr(opened) + repr(Sealed(URL, made.secret))


async def test_envelope_opens_for_its_webhook_alone(keystore: Keystore, world: World) -> None:
    one, two = await keystore.webhooks.add(URL), await keystore.webhooks.add("https://evil.example/")
    await world.sql(
        "UPDATE wardgate_webhooks SET envelope ="
        " (SELECT envelope FROM wardgate_webhooks WHERE webhook_id = :two) WHERE webhook_id = :one",
        one=one.info.id,
        two=two.info.id,
    )
    for webhook_id, envelope in ((one.info.id, None), (two.info.id, b""), (two.info.id, b"x" * 60)):
        if envelope is not None:
            await world.sql(
                "UPDATE wardgate_webhooks SET envelope = :e WHERE webhook_id = :i", e=envelope, i=webhook_id
            )
        with pytest.raises(EnvelopeDamaged):
            await keystore.webhooks.open(webhook_id)


async def test_former_secret_signs_beside_for_as_long_as_was_said(keystore: Keystore, world: World) -> None:
    first = await keystore.webhooks.add(URL)
    second = await keystore.webhooks.rotate(first.info.id, overlap=timedelta(hours=1))
    both = [each.reveal() for each in (await keystore.webhooks.open(first.info.id)).secrets]
    assert both == [second.secret, first.secret]
    world.clock.advance(hours=1)
    assert [each.reveal() for each in (await keystore.webhooks.open(first.info.id)).secrets] == [second.secret]
    for overlap in (timedelta(seconds=-1), LONGEST_OVERLAP + timedelta(seconds=1)):
        with pytest.raises(WebhookInvalid):
            await keystore.webhooks.rotate(first.info.id, overlap=overlap)


async def test_webhook_that_is_not_there_and_too_many(keystore: Keystore) -> None:
    for work in (keystore.webhooks.open, keystore.webhooks.remove):
        with pytest.raises(WebhookUnknown):
            await work("wh_000000000000")
    with pytest.raises(WebhookUnknown):
        await keystore.webhooks.rotate("wh_000000000000", overlap=timedelta(0))
    for _ in range(MOST):
        await keystore.webhooks.add(URL)
    with pytest.raises(WebhookInvalid, match="remove one"):
        await keystore.webhooks.add(URL)
    with pytest.raises(WebhookInvalid, match="printable"):
        await keystore.webhooks.add(URL, name="a\nb")


async def test_verification_opens_webhooks_too(keystore: Keystore, world: World) -> None:
    made = await keystore.webhooks.add(URL)
    before = await keystore.sealing.verify()
    await world.sql("UPDATE wardgate_webhooks SET envelope = :e", e=b"x" * 60)
    after = await keystore.sealing.verify()
    assert (before.faults, after.faults) == ([], [f"the webhook {made.info.id} does not open"])
    assert after.processed == before.processed


# --- on their way ----------------------------------------------------------------------------------------------------


async def test_message_is_written_for_each_webhook_and_for_none(keystore: Keystore, world: World) -> None:
    await written(keystore)
    assert await keystore.outbox.waiting() == 0
    one, two = await keystore.webhooks.add(URL), await keystore.webhooks.add(URL)
    await written(keystore)
    first, second = await claimed(keystore, 10)
    assert {first.webhook_id, second.webhook_id} == {one.info.id, two.info.id}
    body = orjson.loads(first.body)
    assert first.body == second.body and body["id"] == first.message_id == second.message_id
    assert body == {
        **{"id": first.message_id, "type": "budget.threshold", "timestamp": "2026-11-20T12:00:00Z"},
        **{"data": {"number": 0}},
    }


async def test_letter_is_claimed_by_one_and_again_when_that_one_is_dead(keystore: Keystore, world: World) -> None:
    webhook_id = (await keystore.webhooks.add(URL)).info.id
    await written(keystore, 30)
    found = await asyncio.gather(*(keystore.outbox.claim(webhook_id, 8) for _ in range(6)))
    ids = [letter.message_id for letters in found for letter in letters]
    assert len(ids) == len(set(ids)) <= 30
    left = await claimed(keystore)
    assert len(ids) + len(left) == 30 and not {each.message_id for each in left} & set(ids)
    assert await keystore.outbox.due() == []
    world.clock.advance(seconds=CLAIM.total_seconds())
    again = await claimed(keystore, 100)
    assert len(again) == 30 and {each.tries for each in again} == {2}


async def test_late_word_of_whoever_lost_the_claim_changes_nothing(keystore: Keystore, world: World) -> None:
    await keystore.webhooks.add(URL)
    await written(keystore)
    (late,) = await claimed(keystore, 1)
    world.clock.advance(seconds=CLAIM.total_seconds())
    (held,) = await claimed(keystore, 1)
    await keystore.outbox.done(late)
    await keystore.outbox.later(late, timedelta(0))
    assert (await claimed(keystore, 1), await keystore.outbox.waiting()) == ([], 1)
    await keystore.outbox.later(held, timedelta(seconds=5))
    assert await claimed(keystore, 1) == []
    world.clock.advance(seconds=5)
    (third,) = await claimed(keystore, 1)
    assert third.tries == 3
    await keystore.outbox.done(third)
    assert await keystore.outbox.waiting() == 0


async def test_what_waits_goes_with_its_webhook(keystore: Keystore) -> None:
    one, two = await keystore.webhooks.add(URL), await keystore.webhooks.add(URL)
    await written(keystore, 3)
    assert await keystore.webhooks.remove(one.info.id) == one.info
    letters: list[Letter] = await claimed(keystore, 10)
    assert [each.webhook_id for each in letters] == [two.info.id] * 3


async def test_threshold_of_a_budget_is_written_with_the_rows_that_crossed_it(keystore: Keystore) -> None:
    await keystore.webhooks.add(URL)
    tenant = await keystore.tenants.add("acme", "solo", id="t1")
    await keystore.budgets.set(tenant, "day", "byok", Decimal("0.000000010"))
    row = a_row(1, key_source="byok", cost_nano=8)
    await keystore.ledger.write("j", 0, [row])
    await keystore.ledger.write("other", 0, [row])
    (letter,) = await claimed(keystore, 10)
    assert orjson.loads(letter.body)["data"] == {
        **{"tenant": "acme", "token": None, "whose": "tenant", "spend": "byok", "period": "day", "hard": False},
        **{"per_cent": 80, "spent_usd": "0.000000008", "amount_usd": "0.00000001"},
        **{"starts": "2026-11-20", "resets_at": "2026-11-21T00:00:00+00:00"},
    }
    assert letter.created_at == keystore._now()
