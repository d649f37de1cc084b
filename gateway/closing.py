"""Closes the parts in order, each within its time: what hangs or fails is logged, and keeps no other from closing.

Owns how long the end of a process takes once nobody is served any more.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from gateway import beside
from gateway.logs import EventLogger
from gateway.scrub import scrub
from gateway.services import Services
from gateway.shipping import SHIPPING_S
from keystore.errors import KeystoreError

Result = TypeVar("Result")
# Seconds. Statements that are broken off take up to two more, until their connection is closed.
REDIS_S: Final = 3.0
REPEATS_S: Final = 4.0
LANES_S: Final = 2.0
DECISIONS_S: Final = 7.0
BUDGETS_S: Final = 3.0
LEDGER_S: Final = SHIPPING_S + 3.0
ALERTS_S: Final = 2.0
JOURNAL_S: Final = 2.0
KEYSTORE_S: Final = 8.0  # a connection that is being made then may take five
# With the tasks beside the server: what each stage of `close_services` takes at most.
CLOSING_S: Final = (
    beside.LONGEST_S
    + max(REDIS_S, REPEATS_S, 2 * LANES_S)
    + max(DECISIONS_S, BUDGETS_S + LEDGER_S + ALERTS_S)
    + JOURNAL_S
    + KEYSTORE_S
)


async def close_services(services: Services, log: EventLogger) -> None:
    """Close what was opened. What could not be shipped stays in the journal."""
    close = _Closing(log)
    first = [
        close("limits", services.admission.limiter.close(), REDIS_S),
        close("repeats", services.repeats.close(), REPEATS_S),
        _close_lanes(services, close),
    ]
    if services.sharing is not None:
        first.append(close("health", services.sharing.close(), REDIS_S))
    await asyncio.gather(*first)
    _, finished = await asyncio.gather(
        close("decisions", services.keeper.close(), DECISIONS_S), _close_money(services, close)
    )
    await close("journal", services.journal.close(finished=finished), JOURNAL_S)
    for name, error in (await close("keystore", services.keystore.close(), KEYSTORE_S) or {}).items():
        close.tell(name, error)


async def _close_lanes(services: Services, close: "_Closing") -> None:
    await close("lanes", services.lane.aclose(), LANES_S)
    await close("transport", services.transport.aclose(), LANES_S)


async def _close_money(services: Services, close: "_Closing") -> bool:
    """Whether the journal is finished."""
    await close("budgets", services.budgets.close(), BUDGETS_S)  # else free when this process is taken for dead
    finished = await close("ledger", services.shipper.close(SHIPPING_S), LEDGER_S)
    await close("alerts", services.alerting.close(), ALERTS_S)
    return bool(finished)


class _Closing:
    """One step after another."""

    def __init__(self, log: EventLogger) -> None:
        self._log = log

    async def __call__(self, what: str, work: Coroutine[Any, Any, Result], within_s: float) -> Result | None:
        """What `work` gives; None when it failed, or took longer, and is left to its cancellation."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=within_s)
        if not task.done():
            task.cancel()
            task.add_done_callback(_heeded)
            self._log.error("stop.not_done", what=what, after_s=within_s)
            return None
        try:
            return task.result()
        except Exception as error:  # noqa: BLE001 - logged; the others are to be closed all the same
            self.tell(what, error)
            return None

    def tell(self, what: str, error: Exception) -> None:
        if isinstance(error, KeystoreError):
            self._log.warning("stop.not_done", what=what, why=scrub(str(error)))
        else:
            self._log.error("stop.not_done", what=what, exc_info=error)


def _heeded(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
