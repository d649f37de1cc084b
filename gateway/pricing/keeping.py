"""What a serving process does about prices: it moves to a release that went live, and asks for new lists when due.

Owns two loops. The first builds the catalogue aside and exchanges the book, within a second of a decision on any
process; requests under way keep theirs. The second runs in every process and lets one at a time refresh. A failure
leaves what is served as it is, and is said once.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from structlog.typing import FilteringBoundLogger

from gateway.books import Books
from gateway.control.actions import OPERATOR_RIGHTS
from gateway.control.gate import Control, Operation
from gateway.pricing.live import catalogue_of, prices_of
from gateway.pricing.refreshing import LEASE, LEASE_FOR, Outcome, Refresh, RefreshReport, described, source_id
from gateway.rules import Rules
from gateway.scrub import scrub
from keystore.audit import Actor
from keystore.errors import KeystoreError
from keystore.keystore import Keystore
from router.catalogue import Catalogue
from router.errors import RouterError
from router.price_release import version_of

HEAR_S: Final = 0.2  # how often an SQLite file is looked at for what others wrote
SURE_S: Final = 30.0  # how often the database is asked though nobody told of a change
LOOK_S: Final = 30.0  # how often it is looked whether lists are due
BY: Final = "wardgate"


class PriceKeeper:
    """The prices of one serving process. `serving` is the number of the release in `books`, None: the bundled map;
    `moved` is told of each catalogue that comes into force, `refreshed` how each refresh ended that this one led."""

    def __init__(
        self,
        keystore: Keystore,
        rules: Rules,
        control: Control,
        books: Books,
        log: FilteringBoundLogger,
        *,
        serving: int | None,
        moved: Callable[[Catalogue], None],
        refreshed: Callable[[Outcome], None],
        now: Callable[[], datetime],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._keystore = keystore
        self._rules = rules
        self._control = control
        self._books = books
        self._log = log
        self._serving = serving
        self._moved = moved
        self._refreshed = refreshed
        self._now = now
        self._draw = draw
        self._wake = asyncio.Event()
        self._said: dict[str, str] = {}

    async def keep(self) -> None:
        """Both loops, until cancelled."""
        self._keystore.watch_prices(self._wake.set)
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._follow())
            if self._rules.prices.refresh:
                loops.create_task(self._refresh())

    # --- moving to what is live

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            await self._guarded("prices.not_followed", self.move)
            await self._woken()

    async def _woken(self) -> None:
        """Return when somebody told of a change, or after a while."""
        for _ in range(round(SURE_S / HEAR_S)):
            self._keystore.hear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), HEAR_S)
                return

    async def move(self) -> None:
        """Serve what is live. Does nothing where it is served already."""
        release = await self._keystore.prices.live()
        number = release.number if release else None
        before = self._books.current.catalogue.version
        same = number == self._serving if release is None else version_of(release.number, release.digest) == before
        if same:
            return
        catalogue = await catalogue_of(await prices_of(self._keystore, release), self._rules)
        self._books.exchange(catalogue)
        self._serving = number
        self._moved(catalogue)
        self._log.info("prices.live", catalogue=catalogue.version, before=before, offers=len(catalogue.offers))

    # --- refreshing

    async def _refresh(self) -> None:
        while True:
            await self._guarded("prices.not_refreshed", self.look)
            await asyncio.sleep(LOOK_S * (0.5 + self._draw()))

    async def look(self) -> RefreshReport | None:
        """Ask for new lists if one is due and no other process is at it. None: there was nothing to do."""
        if not await self._due() or not await self._keystore.leases.take(LEASE, LEASE_FOR):
            return None
        if not await self._due():  # another process has just done it
            await self._keystore.leases.give_back(LEASE)
            return None

        async def work(at: Operation) -> RefreshReport:
            return await Refresh(at.keystore, at.rules, BY, False, self._now(), self._draw).run()

        actor = Actor("wardgate", "prices", f"serve on {socket.gethostname()}", OPERATOR_RIGHTS)
        report = await self._control.run(actor, "price.refresh", work, describe=described)
        self._refreshed(report.outcome)
        self._tell(report)
        return report

    async def _due(self) -> bool:
        ids = [source_id(url) for url in self._rules.prices.urls]
        known = await self._keystore.price_sources.of(ids)
        return any(one not in known or known[one].due_at <= self._now() for one in ids)

    def _tell(self, report: RefreshReport) -> None:
        for source in report.sources:
            if source.error:
                self._log.warning("prices.source_not_used", source=source.name, why=source.error)
        number = report.release.number if report.release else None
        self._log.info("prices.refreshed", outcome=report.outcome.value, release=number, note=report.note)

    async def _guarded(self, event: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do it; what fails is said once and tried again later. A loop that died would keep old prices without a
        word."""
        try:
            await work()
            self._said.pop(event, None)
        except (KeystoreError, RouterError) as error:
            self._say_once(event, scrub(str(error)))
        except Exception as error:  # noqa: BLE001 - said, and tried again
            self._say_once(event, type(error).__name__, error)

    def _say_once(self, event: str, why: str, error: Exception | None = None) -> None:
        if self._said.get(event) != why:
            self._said[event] = why
            self._log.error(event, why=why, exc_info=error)
