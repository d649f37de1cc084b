"""Keeps a process's hold on budgets.

Must not know what a budget is for.
"""

import asyncio
import time
from typing import Final

from gateway.budgeting.burying import Burying
from gateway.budgeting.holder import Holder
from gateway.logs import EventLogger
from keystore.errors import DatabaseUnavailable
from keystore.keystore import Keystore

TEND_S: Final = 1.0


async def tend_budgets(holder: Holder, keystore: Keystore, log: EventLogger, *, every_s: float = TEND_S) -> None:
    """Every second, until cancelled: say that this process lives, give back what it does not use, and bury holders
    that were not heard of."""
    burying, away = Burying(keystore.budget_use, time.monotonic), False
    while True:
        await asyncio.sleep(every_s)
        try:
            await holder.tend()
            await burying.tend()
            away = False
        except Exception as error:  # noqa: BLE001 - else nobody says from here on that this process lives
            if not away:
                why = str(error) if isinstance(error, DatabaseUnavailable) else type(error).__name__
                log.warning("budgets.not_tended", why=why)
            away = True
