"""Several things that are done in turn, again and again, none of which keeps the others back.

Must not know what they are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from keystore.cancelled import is_cancelled
from keystore.errors import DatabaseUnavailable

Step = Callable[[], Awaitable[object]]


async def each_in_turn(steps: Mapping[str, Step], ping: Callable[[], Awaitable[None]]) -> dict[str, Exception]:
    """Do all of these; which failed, and how. Those behind one that fails are done all the same, unless `ping` raises
    DatabaseUnavailable as well: the database is away, and each of them would wait for it in vain."""
    failed: dict[str, Exception] = {}
    for name, step in steps.items():
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - told to the caller, by name
            _leave_if_cancelled(error)
            failed[name] = error
            if isinstance(error, DatabaseUnavailable) and not await _answers(ping):
                break
    return failed


async def _answers(ping: Callable[[], Awaitable[None]]) -> bool:
    try:
        await ping()
    except DatabaseUnavailable as error:
        _leave_if_cancelled(error)
        return False
    return True


def _leave_if_cancelled(error: Exception) -> None:
    """A driver may raise an error of its own where this task was told to end; then it ends."""
    if is_cancelled():
        raise asyncio.CancelledError from error
