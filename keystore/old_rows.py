"""Deleting old rows of a table in small transactions, so that a call ends soon and other writers get their turn.

Must not know which rows are old.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from keystore.engine import Database

_ROUNDS: Final = 20  # transactions of one call


async def delete_in_rounds(database: Database, delete: Callable[[], Awaitable[int]], most: int) -> tuple[int, bool]:
    """How many rows went, and whether there is more to do at once. `delete` is one transaction of at most so many."""
    deleted = 0
    for _ in range(_ROUNDS):
        done = await delete()
        deleted += done
        if done < most:
            return deleted, False
        await database.let_others_write()
    return deleted, True
