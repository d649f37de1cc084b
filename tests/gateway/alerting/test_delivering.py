"""What becomes of alerts on their way: tried again, given up, taken over, and told."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alerting.delivering import AT_ONCE, LONGEST, Alerting, pause_after
from gateway.alerting.sending import Sender
from gateway.events import Delivery, Event, Events, WebhookTried
from gateway.logs import LogSubscriber, configure_logs
from keystore.clock import utc_now
from keystore.keystore import Keystore, SealingSource
from keystore.outbox import CLAIM, Message, enqueue
from keystore.providers import load_registry
from tests.harness import LogLines, Loopback, eventually
from tests.keystore.conftest import FakeClock
from tests.receiver import Receiver, receiver

DAY = timedelta(hours=24)


@pytest.fixture
def heard() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


class Post:
    """A keystore with one webhook, and processes that deliver."""

    def __init__(self, keystore: Keystore, clock: FakeClock) -> None:
        self.keystore, self.clock = keystore, clock
        self.logs = LogLines()
        self.told: list[WebhookTried] = []
        self.senders: list[Sender] = []

    def process(self) -> Alerting:
        log = configure_logs("debug", self.logs)
        sender = Sender(Loopback(), now=utc_now)
        self.senders.append(sender)
        return Alerting(
            self.keystore,
            sender,
            Events(self._note, LogSubscriber(log)),
            log,
            given_up_after=DAY,
            now=self.clock,
            filled=lambda _: None,
            waiting=lambda _: None,
            draw=lambda: 0.5,
        )

    def _note(self, event: Event) -> None:
        assert isinstance(event, WebhookTried)
        self.told.append(event)

    async def write(self, number: int = 1) -> None:
        async with self.keystore._database.write() as connection:
            messages = [Message("budget.threshold", {"number": each}) for each in range(number)]
            await enqueue(connection, messages, now=self.clock())


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    clock = FakeClock()
    keystore = await Keystore.open(
        database_url=f"sqlite+aiosqlite:///{tmp_path}/w.db",
        sealing=SealingSource(None, tmp_path / "ring"),
        registry=load_registry(),
        known_plans=["solo"],
        create=True,
        now=clock,
    )
    made = Post(keystore, clock)
    yield made
    for sender in made.senders:
        await sender.aclose()
    await keystore.close()


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_up_to_an_hour(tries: int, draw: float) -> None:
    pause = pause_after(tries, draw)
    assert timedelta(seconds=3.75) <= pause <= LONGEST * 1.25
    assert pause_after(tries + 1, draw) >= pause


async def test_message_is_tried_again_until_it_is_delivered(post: Post, heard: Receiver) -> None:
    await post.keystore.webhooks.add(heard.url + "/secret-path")
    await post.write()
    process, heard.statuses = post.process(), [500, 302]
    for seconds in (0, 5, 15):
        await process.deliver()
        await process.deliver()  # it is not due
        post.clock.advance(seconds=seconds)
    await process.deliver()
    assert [(one.outcome, one.tries, one.status) for one in post.told] == [
        (Delivery.FAILED, 1, 500),
        (Delivery.FAILED, 2, 302),
        (Delivery.DELIVERED, 3, 204),
    ]
    assert len({one.headers["webhook-id"] for one in heard.heard}) == 1
    assert await post.keystore.outbox.waiting() == 0
    assert "secret-path" not in post.logs.getvalue() and "whsec" not in post.logs.getvalue()


async def test_message_is_given_up_after_a_day_and_not_before(post: Post, heard: Receiver) -> None:
    await post.keystore.webhooks.add(heard.url)
    await post.write()
    process, heard.statuses = post.process(), [500] * 200
    while await post.keystore.outbox.waiting():
        await process.deliver()
        post.clock.advance(minutes=30)
    assert post.told[-1].outcome is Delivery.GIVEN_UP and {one.outcome for one in post.told[:-1]} == {Delivery.FAILED}
    assert DAY <= post.clock.now - FakeClock().now <= DAY + 2 * LONGEST
    assert 20 < len(post.told) < 40
    (line,) = post.logs.records("webhook.given_up")
    assert (line["level"], line["webhook"]) == ("error", post.told[-1].webhook)


async def test_message_of_a_process_that_died_is_delivered_by_another(post: Post, heard: Receiver) -> None:
    await post.keystore.webhooks.add(heard.url)
    await post.write()
    (webhook_id,) = await post.keystore.outbox.due()
    assert len(await post.keystore.outbox.claim(webhook_id, 10)) == 1  # and its process is killed
    await post.process().deliver()
    assert heard.heard == []
    post.clock.advance(seconds=CLAIM.total_seconds())
    await post.process().deliver()
    assert len(heard.heard) == 1 and await post.keystore.outbox.waiting() == 0


async def test_each_webhook_gets_it_and_a_broken_one_holds_up_none(post: Post, heard: Receiver) -> None:
    broken, changed = (
        await post.keystore.webhooks.add("https://127.0.0.2/"),
        await post.keystore.webhooks.add(heard.url),
    )
    await post.keystore.webhooks.add(heard.url)
    async with post.keystore._database.write() as connection:
        await connection.exec_driver_sql(
            "UPDATE wardgate_webhooks SET envelope = x'00' WHERE webhook_id = ?", (changed.info.id,)
        )
    await post.write(15)
    await post.process().deliver()
    assert len(heard.heard) == 15
    assert {one.webhook for one in post.told if one.outcome is Delivery.FAILED} == {broken.info.id, changed.info.id}
    assert await post.keystore.outbox.waiting() == 30


async def test_receiver_that_hangs_holds_up_no_other(post: Post, heard: Receiver) -> None:
    with receiver() as hangs:
        hangs.silent = threading.Event()
        await post.keystore.webhooks.add(hangs.url)
        await post.keystore.webhooks.add(heard.url)
        await post.write(30)
        delivering = asyncio.create_task(post.process().deliver())
        await asyncio.to_thread(eventually, lambda: len(heard.heard) == 30)
        assert not delivering.done() and len(hangs.heard) <= AT_ONCE
        delivering.cancel()
        await asyncio.wait([delivering])


async def test_database_that_is_away_is_told_once_and_nothing_is_lost(post: Post, heard: Receiver) -> None:
    async def rename(old: str, new: str) -> None:
        async with post.keystore._database.write() as connection:
            await connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")

    await post.keystore.webhooks.add(heard.url)
    await post.write(2)
    process, table = post.process(), "wardgate_webhook_messages"
    await rename(table, "gone")
    for _ in range(3):
        await process.deliver()
    (line,) = post.logs.records("alerts.not_tended")
    assert "SQLite database" in str(line["why"])
    await rename("gone", table)
    await process.deliver()
    assert len(heard.heard) == 2 and await post.keystore.outbox.waiting() == 0
    assert len(post.logs.records("alerts.not_tended")) == 1
