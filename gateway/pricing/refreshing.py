"""One refresh: every list is asked, what came is held against what is live, and a release is staged or goes live.

Owns the order of that, and what is kept of a list that could not be used: the sentence why, never the list. A list that
fails leaves the last good one of its source in force. Must not know when a refresh is due.
"""

import asyncio
import gzip
import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from gateway.price_settings import AutoApprove, PriceSettings, shown_url
from gateway.pricing.fetching import Fetched, FetchFailed, fetch
from gateway.pricing.impact import impact_of
from gateway.pricing.live import LivePrices, catalogue_of, live_prices
from gateway.rules import Rules
from keystore.errors import PricesBusy
from keystore.keystore import Keystore
from keystore.price_releases import Cause, NewRelease, Release, ReleaseState, WaitingRow
from keystore.price_sources import GoodContent, SourceState
from router.errors import PriceMapError
from router.price_bounds import Judgement, judge, refusal
from router.price_diff import diff
from router.price_feeds import RESERVED, Feed, FeedKind, merged, read_feed
from router.price_release import MOST_BYTES, Packed, encode, pack, version_of
from router.price_rows import Row

LEASE: Final = "prices"
LEASE_FOR: Final = timedelta(minutes=15)  # longer than all lists may take
AGAIN: Final = timedelta(minutes=15)  # after a failure
_SPREAD: Final = 0.1  # a list is asked so much earlier or later, so that not everybody asks at once


class Outcome(StrEnum):
    """How a refresh ended."""

    UNCHANGED = "unchanged"
    STAGED = "staged"
    LIVE = "live"
    REFUSED = "refused"
    FAILED = "failed"  # no list could be used, ever


class SourceOutcome(StrEnum):
    """What became of one list."""

    NEW = "new"
    UNCHANGED = "unchanged"
    NOT_DUE = "not_due"
    FAILED = "failed"  # it did not come
    REFUSED = "refused"  # it came, and cannot be used


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One list. `error` is a sentence; the last good list of the source stays in force."""

    name: str
    outcome: SourceOutcome
    error: str = ""


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh did. `release` is the one that was staged, went live, was refused, or is alike already."""

    outcome: Outcome
    sources: tuple[SourceReport, ...]
    note: str = ""
    release: Release | None = None


def described(report: RefreshReport) -> dict[str, object]:
    """The report for the audit."""
    sources = {source.name: source.outcome.value for source in report.sources}
    number = report.release.number if report.release else None
    return {"outcome": report.outcome.value, "release": number, "sources": sources}


@dataclass(frozen=True, slots=True)
class Refresh:
    """One refresh by `by`. `by_hand`: every list is asked, and what was rejected before is staged again. `draw` gives
    numbers from 0 to 1."""

    keystore: Keystore
    rules: Rules
    by: str
    by_hand: bool
    now: datetime
    draw: Callable[[], float]

    @property
    def settings(self) -> PriceSettings:
        return self.rules.prices

    async def run(self) -> RefreshReport:
        """Do it, alone among all processes. PricesBusy when another one is at it."""
        if not await self.keystore.leases.take(LEASE, LEASE_FOR):
            raise PricesBusy
        try:
            return await self._run()
        finally:
            await self.keystore.leases.give_back(LEASE)

    async def _run(self) -> RefreshReport:
        known = await self.keystore.price_sources.of([source_id(url) for url in self.settings.urls])
        reports = [await self._ask(url, known.get(source_id(url))) for url in self.settings.urls]
        feeds = await self._feeds()
        if not feeds:
            return RefreshReport(Outcome.FAILED, tuple(reports), "no list could be used")
        live = await live_prices(self.keystore)
        judgement = await asyncio.to_thread(_judged, live, feeds, self.settings)
        if judgement.refused is not None:
            origin = await self._origin()
            digest = _digest(" ".join(str(one["digest"]) for one in origin).encode())
            release = await self.keystore.prices.refuse(digest, origin, judgement.refused, self.by)
            return RefreshReport(Outcome.REFUSED, tuple(reports), judgement.refused, release)
        return await self._propose(live, judgement, tuple(reports))

    # --- one list

    async def _ask(self, url: str, known: SourceState | None) -> SourceReport:
        name = shown_url(url)
        if known and not self.by_hand and known.due_at > self.now:
            return SourceReport(name, SourceOutcome.NOT_DUE)
        try:
            got = await self._fetch(url, known)
        except FetchFailed as error:
            return await self._failed(url, SourceOutcome.FAILED, str(error))
        if got is None or (known and known.digest == _digest(got.content)):
            await self.keystore.price_sources.note(source_id(url), name, self._due())
            return SourceReport(name, SourceOutcome.UNCHANGED)
        try:
            good = await asyncio.to_thread(self._usable, got, await self._last_good(url))
        except PriceMapError as error:
            await self.keystore.prices.refuse(_digest(got.content), [{"name": name}], f"{name}: {error}", self.by)
            return await self._failed(url, SourceOutcome.REFUSED, str(error))
        await self.keystore.price_sources.note(source_id(url), name, self._due(), good=good)
        return SourceReport(name, SourceOutcome.NEW)

    async def _fetch(self, url: str, known: SourceState | None) -> Fetched | None:
        settings = self.settings
        etag, last = (known.etag, known.last_modified) if known and known.digest else (None, None)
        limits = {"max_bytes": settings.max_bytes, "timeout_s": settings.timeout_s}
        return await fetch(url, etag=etag, last_modified=last, **limits)  # type: ignore[arg-type]

    async def _failed(self, url: str, outcome: SourceOutcome, error: str) -> SourceReport:
        again = self.now + min(AGAIN, timedelta(hours=self.settings.refresh_hours)) * (0.5 + self.draw())
        await self.keystore.price_sources.note(source_id(url), shown_url(url), again, error=error)
        return SourceReport(shown_url(url), outcome, error)

    def _due(self) -> datetime:
        spread = 1 - _SPREAD + 2 * _SPREAD * self.draw()
        return self.now + timedelta(hours=self.settings.refresh_hours) * spread

    def _usable(self, got: Fetched, before: bytes | None) -> GoodContent:
        """The content, when it is a list that lost no more than it may. PriceMapError."""
        feed = read_feed(got.content)
        if before is not None:
            refused = refusal(set(read_feed(before).rows), set(feed.rows), self.settings.bounds)
            if refused is not None:
                raise PriceMapError(refused)
        packed = gzip.compress(got.content, 6, mtime=0)
        return GoodContent(packed, _digest(got.content), got.etag, got.last_modified)

    async def _last_good(self, url: str) -> bytes | None:
        content = await self.keystore.price_sources.content(source_id(url))
        return None if content is None else await asyncio.to_thread(_unfolded, content)

    async def _feeds(self) -> list[Feed]:
        """The last good list of each source, in the order of the URLs."""
        contents = [await self._last_good(url) for url in self.settings.urls]
        return [await asyncio.to_thread(read_feed, content) for content in contents if content is not None]

    async def _origin(self) -> list[dict[str, object]]:
        """Where the lists in force are from, for the release."""
        found = await self.keystore.price_sources.of([source_id(url) for url in self.settings.urls])
        return [
            {"name": one.name, "digest": one.digest, "etag": one.etag, "fetched_at": _text(one.fetched_at)}
            for url in self.settings.urls
            if (one := found.get(source_id(url))) and one.digest
        ]

    # --- the release

    async def _propose(
        self, live: LivePrices, judgement: Judgement, reports: tuple[SourceReport, ...]
    ) -> RefreshReport:
        waiting = waiting_rows(judgement)
        packed, same = await asyncio.to_thread(_packed, live, judgement)
        already = await self._already(live, packed, same, waiting)
        note = f"price release {already.number} is the same" if already else ""
        if already is not None and already.state is not ReleaseState.STAGED:
            return RefreshReport(Outcome.UNCHANGED, reports, note, already)
        if same and not waiting:
            return RefreshReport(Outcome.UNCHANGED, reports, f"{live.version} is the same")
        staged = already  # may be what a process left that died before the rule was asked
        if staged is None:
            staged = await self.keystore.prices.stage(await self._new(live, judgement, packed, waiting), self.by)
        if same or not await self._may_approve():
            return RefreshReport(Outcome.STAGED, reports, note, staged)
        version = version_of(staged.number, staged.digest)
        release = await self.keystore.prices.approve(
            staged.number, "the rule within-bounds", version=version, rule=True
        )
        return RefreshReport(Outcome.LIVE, reports, "", release)

    async def _already(
        self, live: LivePrices, packed: Packed, same: bool, waiting: Sequence[WaitingRow]
    ) -> Release | None:
        """A release that is like the one to be staged, rows that wait included, and needs no other: the live one, one
        that is staged, or, when nobody asked, one that a person turned down."""
        turned_down = () if self.by_hand else (ReleaseState.REFUSED, ReleaseState.ROLLED_BACK)
        alike = await self.keystore.prices.alike(packed.digest, live.number)
        found = [one for one in alike if one.state in (ReleaseState.STAGED, *turned_down)]
        current = await self.keystore.prices.live() if same else None
        wanted = [_mark(row) for row in waiting]
        for one in [*([current] if current else []), *found]:
            rows = await self.keystore.prices.waiting(one.number)
            if [_mark(row) for row in rows if row.decision == "pending"] == wanted:
                return one
        return None

    async def _new(
        self, live: LivePrices, judgement: Judgement, packed: Packed, waiting: Sequence[WaitingRow]
    ) -> NewRelease:
        candidate = LivePrices(None, "candidate", judgement.rows)
        return await new_release(
            self.keystore,
            self.rules,
            live,
            candidate,
            packed,
            now=self.now,
            sources=await self._origin(),
            waiting=waiting,
            odd_names=judgement.odd_names,
        )

    async def _may_approve(self) -> bool:
        """The rule approves nothing after a roll-back, until a person has approved something."""
        if self.settings.auto_approve is not AutoApprove.WITHIN_BOUNDS:
            return False
        latest = await self.keystore.prices.periods(1)
        return not latest or latest[0].cause is not Cause.ROLLED_BACK


async def new_release(
    keystore: Keystore,
    rules: Rules,
    live: LivePrices,
    candidate: LivePrices,
    packed: Packed,
    *,
    now: datetime,
    sources: Sequence[dict[str, object]],
    waiting: Sequence[WaitingRow],
    odd_names: int = 0,
    of: int | None = None,
    approves: Sequence[str] = (),
) -> NewRelease:
    """A release to be staged, with what it would change and for whom."""
    found = await asyncio.to_thread(diff, live.rows, candidate.rows)
    before, after = await catalogue_of(live, rules), await catalogue_of(candidate, rules)
    impact = await impact_of(keystore, rules, before, after, now.date())
    counts: dict[str, object] = {**found.counts, "waiting": len(waiting), "odd_names": odd_names}
    counts |= {"tenants": impact.tenants, "tenants_asked": impact.asked}
    return NewRelease(
        content=packed.content,
        digest=packed.digest,
        rows=packed.rows,
        base=live.number,
        base_version=live.version,
        sources=sources,
        counts=counts,
        impact=[
            {"before": one.before, "after": one.after, "tenants": list(one.tenants), "sentence": one.sentence}
            for one in impact.changes
        ],
        waiting=waiting,
        of=of,
        approves=approves,
    )


def waiting_rows(judgement: Judgement) -> list[WaitingRow]:
    """The quarantined rows as they are kept."""
    return [
        WaitingRow(
            row.name,
            row.why.value,
            row.detail,
            encode(row.proposed).decode() if row.proposed is not None and row.why.approvable else None,
        )
        for row in judgement.quarantined
    ]


def source_id(url: str) -> str:
    """What the keystore knows a source by."""
    return hashlib.sha256(url.encode()).hexdigest()


def _judged(live: LivePrices, feeds: Sequence[Feed], settings: PriceSettings) -> Judgement:
    """The lists together against what is live. Where no list is LiteLLM's, the live rows that no list is about stay."""
    base: list[Feed] = []
    if all(feed.kind is not FeedKind.LITELLM for feed in feeds):
        listed = {feed.kind.value for feed in feeds}
        rest = {name: row for name, row in live.rows.items() if name.partition("/")[0] not in listed | RESERVED}
        base = [Feed(FeedKind.LITELLM, rest)]
    return judge(live.rows, merged([*base, *feeds]), settings.bounds)


def _packed(live: LivePrices, judgement: Judgement) -> tuple[Packed, bool]:
    """The rows as they would be kept, and whether they are those that are live."""
    packed = pack(judgement.rows)
    return packed, packed.digest == pack(without_reserved(live)).digest


def without_reserved(prices: LivePrices) -> dict[str, Row]:
    """The rows that are models."""
    return {name: row for name, row in prices.rows.items() if name not in RESERVED}


def _mark(row: WaitingRow) -> tuple[str, str, str | None]:
    return row.name, row.why, row.proposed


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _unfolded(content: bytes) -> bytes:
    """What was compressed by us; PriceMapError when it was changed since."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content, MOST_BYTES)
    except zlib.error:
        raise PriceMapError("a price list that was kept is damaged; refresh again") from None


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
