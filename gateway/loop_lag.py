"""How late the event loop is: a timer that is due each tenth of a second tells how long everybody waits.

Must not know what the loop is busy with.
"""

import asyncio
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 0.1


async def watch_lag(observe: Callable[[float], None], every_s: float = EVERY_S) -> None:
    """Tell `observe` by how many seconds each timer came too late, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, loop.time() - due))
