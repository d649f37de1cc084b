"""Tells of what money does: events of thresholds and unusual spending as they are found, and what waits in the outbox
to webhooks.

Owns when a message is tried again and when it is given up. Every process delivers; each message is claimed by one.
Requests know nothing of it. Must not know how an alert is found, nor how one is sent.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from gateway.alerting.sending import Sender, Sent
from gateway.events import BudgetCrossed, Delivery, Events, SpendUnusual, WebhookTried
from gateway.logs import EventLogger
from keystore.budget_spent import Crossed
from keystore.clock import Clock
from keystore.errors import DatabaseUnavailable, SealingError, WebhookUnknown
from keystore.keystore import Keystore
from keystore.money import usd_of
from keystore.outbox import Letter
from keystore.spending import Unusual

AT_ONCE: Final = 4  # messages to one webhook that are on their way at a time
LOOK_S: Final = 2.0  # how often others' messages are looked for; its own a process sends at once
LAST_S: Final = 0.5  # for what was written last, when the process ends
COUNT_S: Final = 15.0  # how often budgets and waiting messages are counted for metrics
FIRST: Final = timedelta(seconds=5)
LONGEST: Final = timedelta(hours=1)


def pause_after(tries: int, draw: float) -> timedelta:
    """How long to wait after so many tries: three times as long each time, up to an hour, and a quarter more or less
    by `draw` (0 to 1), so that many messages do not come at once."""
    steps: int = 3 ** min(tries - 1, 20)
    return min(FIRST * steps, LONGEST) * (0.75 + draw / 2)


class Alerting:
    """One for a process. `filled` hears how many budgets are how full, `waiting` how many messages wait."""

    def __init__(
        self,
        keystore: Keystore,
        sender: Sender,
        events: Events,
        log: EventLogger,
        *,
        given_up_after: timedelta,
        now: Clock,
        filled: Callable[[Mapping[int, int]], None],
        waiting: Callable[[int], None],
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keystore = keystore
        self.sender = sender
        self._events = events
        self._log = log
        self._given_up_after = given_up_after
        self._now = now
        self._filled = filled
        self._waiting = waiting
        self._draw = draw
        self._clock = clock
        self._some = asyncio.Event()
        self._counted = float("-inf")
        self._served: set[str] = set()  # webhooks that something is being sent to
        self._failed = ""

    # --- what is found ---------------------------------------------------------------------------------------------

    def crossed(self, found: Sequence[Crossed]) -> None:
        """Thresholds of budgets that rows of this process crossed."""
        for one in found:
            self._events.publish(_crossed(one))
        self._some.set()

    def unusual(self, found: Sequence[Unusual]) -> None:
        """Unusual spending that rows of this process made so."""
        for one in found:
            self._events.publish(_unusual(one))
        self._some.set()

    # --- what is sent ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver and count, until cancelled. What fails is told once, and tried again."""
        async with asyncio.TaskGroup() as serving:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._some.wait()
                self._some.clear()
                await self._look(serving)

    async def deliver(self) -> None:
        """Send all that is due, and wait until that is done."""
        async with asyncio.TaskGroup() as serving:
            await self._look(serving)

    async def _look(self, serving: asyncio.TaskGroup) -> None:
        """Each webhook is served by itself, so that one that hangs holds up no other."""
        try:
            for webhook_id in await self._keystore.outbox.due():
                if webhook_id not in self._served:
                    self._served.add(webhook_id)
                    serving.create_task(self._serve(webhook_id))
            await self._count()
            self._failed = ""
        except Exception as error:  # noqa: BLE001 - else nothing would be delivered from here on, and nobody told
            self._tell(error)

    async def _serve(self, webhook_id: str) -> None:
        try:
            while letters := await self._keystore.outbox.claim(webhook_id, AT_ONCE):
                async with asyncio.TaskGroup() as sending:
                    for letter in letters:
                        sending.create_task(self._deliver(letter))
        except Exception as error:  # noqa: BLE001 - as above
            self._tell(error)
        finally:
            self._served.discard(webhook_id)

    def _tell(self, error: Exception) -> None:
        """Once, until it goes well again or something else is wrong."""
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        kind = type(error).__name__
        if kind != self._failed:
            why = str(error) if isinstance(error, DatabaseUnavailable) else kind
            self._log.warning("alerts.not_tended", why=why)
        self._failed = kind

    async def _deliver(self, letter: Letter) -> None:
        try:
            webhook = await self._keystore.webhooks.open(letter.webhook_id)
            sent = await self.sender.send(webhook, letter.message_id, letter.body)
        except WebhookUnknown:
            return  # it was removed, and the message with it
        except SealingError:
            sent = Sent(why="the webhook's row does not open: it was changed, or its root key is not here")
        outcome = self._outcome(letter, sent)
        if outcome is Delivery.FAILED:
            await self._keystore.outbox.later(letter, pause_after(letter.tries, self._draw()))
        else:
            await self._keystore.outbox.done(letter)
        self._events.publish(
            WebhookTried(letter.webhook_id, letter.message_id, outcome, letter.tries, sent.status, sent.why or None)
        )

    def _outcome(self, letter: Letter, sent: Sent) -> Delivery:
        if sent.delivered:
            return Delivery.DELIVERED
        over = self._now() - letter.created_at >= self._given_up_after
        return Delivery.GIVEN_UP if over else Delivery.FAILED

    # --- what is counted -------------------------------------------------------------------------------------------

    async def _count(self) -> None:
        if self._clock() - self._counted < COUNT_S:
            return
        self._filled(await self._keystore.budget_use.filled(self._now()))
        self._waiting(await self._keystore.outbox.waiting())
        self._counted = self._clock()

    async def close(self) -> None:
        """Send what was written last, as far as that is done soon; the rest is another process's, or a later one's."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self.deliver()
        await self.sender.aclose()


def _crossed(one: Crossed) -> BudgetCrossed:
    budget = one.budget
    return BudgetCrossed(
        tenant=one.tenant,
        tenant_id=budget.tenant_id,
        token_id=budget.token_id or None,
        budget=budget.key,
        whose=budget.whose.value,
        spend=budget.spend.value,
        per_cent=one.per_cent,
        spent_usd=usd_of(one.spent_nano),
        amount_usd=budget.amount_usd.normalize(),
        resets_at=one.resets_at.isoformat(),
    )


def _unusual(one: Unusual) -> SpendUnusual:
    return SpendUnusual(
        tenant=one.tenant,
        token_id=one.token_id or None,
        hour=one.hour.isoformat(),
        spent_usd=usd_of(one.spent_nano),
        usual_usd=usd_of(one.usual_nano),
        factor=one.rule.factor,
    )
