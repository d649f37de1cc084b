"""Keeps a process's hold on budgets, and tells of thresholds that were crossed.

Must not know what a budget is for.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from gateway.budgeting.burying import Burying
from gateway.budgeting.holder import Holder
from gateway.logs import EventLogger
from keystore.budget_spent import Crossed
from keystore.errors import DatabaseUnavailable
from keystore.keystore import Keystore
from keystore.money import usd_of

TEND_S: Final = 1.0


async def tend_budgets(holder: Holder, keystore: Keystore, log: EventLogger) -> None:
    """Every second, until cancelled: say that this process lives, give back what it does not use, and bury holders
    that were not heard of."""
    burying, away = Burying(keystore.budget_use, time.monotonic), False
    while True:
        await asyncio.sleep(TEND_S)
        try:
            await holder.tend()
            await burying.tend()
            away = False
        except DatabaseUnavailable as error:
            if not away:
                log.warning("budgets.not_tended", why=str(error))
            away = True


def crossed_of(log: EventLogger) -> Callable[[Sequence[Crossed]], None]:
    """Says in the log which share of a budget is spent, once for each threshold and period."""

    def tell(crossed: Sequence[Crossed]) -> None:
        for one in crossed:
            log.warning(
                "budget.threshold",
                tenant_id=one.budget.tenant_id,
                budget=one.budget.key,
                per_cent=one.per_cent,
                spent_usd=format(usd_of(one.spent_nano), "f"),
                amount_usd=format(one.budget.amount_usd, "f"),
                resets_at=one.resets_at.isoformat(),
            )

    return tell
