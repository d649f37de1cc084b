"""Rows about money that nobody needs any more: how far journals were written that are long gone, and what was spent of
budgets in periods that are long over.

Owns when such a row is old. A journal's row is what makes its files harmless when they come back (an old disk, a
restored folder): it stays for as long as the ledger's own rows, which are the second guard, and some months more. Must
not know how either is written.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import select

from keystore.clock import Clock
from keystore.engine import Database
from keystore.money_tables import budget_holds, budget_use, journals
from keystore.old_rows import delete_old
from keystore.seldom import Seldom

JOURNALS_KEPT: Final = timedelta(days=180)  # after the last row; and never less long than the ledger's rows
BUDGETS_KEPT: Final = timedelta(days=100)  # after the first day of a period: of a month two more months
_EVERY: Final = timedelta(hours=1)
_DELETED: Final = 1_000  # rows of one transaction


class OldMoney:
    """DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock, ledger_kept: timedelta | None = None) -> None:
        """`ledger_kept`: how long rows of the ledger stay; None: for ever, so that a request is never counted twice."""
        self._database = database
        self._now = now
        self._journals_kept = JOURNALS_KEPT + (ledger_kept or timedelta(0))
        self._expiring = Seldom(_EVERY)

    async def expire(self) -> int:
        """Delete what is old; looks once an hour. How many rows went."""
        now = self._now()
        if not self._expiring.is_due(now):
            return 0
        gone = journals.c.updated_at < now - self._journals_kept
        deleted, more = await delete_old(self._database, journals, gone, _DELETED)
        same = (budget_holds.c.budget_key == budget_use.c.budget_key, budget_holds.c.starts == budget_use.c.starts)
        held = select(budget_holds.c.holder).where(*same).exists()
        over = budget_use.c.starts < (now - BUDGETS_KEPT).date()
        unheld = over & (budget_use.c.held_nano == 0) & ~held
        spent, more_spent = await delete_old(self._database, budget_use, unheld, _DELETED)
        self._expiring.done(now, more=more or more_spent)
        return deleted + spent
