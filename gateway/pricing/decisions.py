"""What an operator decides: approve a release, with or without rows that wait; turn it down; go back.

Owns what a decision makes of rows. Must not know who may decide (gateway.control) or how it is asked.
"""

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from gateway.pricing.live import LivePrices, bundled, live_prices, prices_of
from gateway.pricing.refreshing import new_release
from gateway.rules import Rules
from keystore.errors import PriceConflict, PriceReleaseUnknown, PriceRowUnknown
from keystore.keystore import Keystore
from keystore.price_releases import Release, ReleaseState, WaitingRow
from router.price_bounds import Why
from router.price_diff import Diff, diff
from router.price_release import number_of, pack, version_of
from router.price_rows import Row

BUNDLED: Final = "bundled"
ALL: Final = "*"  # in the place of a row's name: every row that may be let in


@dataclass(frozen=True, slots=True)
class Target:
    """What a roll-back leads to; `number` None: the bundled map."""

    number: int | None
    version: str


def release_number(text: str) -> int:
    """The number of a release as an operator names it: "12" or "release-12-1f3a9c0e". PriceReleaseUnknown."""
    number = number_of(text)
    if number is None:
        raise PriceReleaseUnknown("a price release is named by its number, as `wardgate price list` shows it")
    return number


async def approve(
    keystore: Keystore, rules: Rules, number: int, by: str, *, rows: Sequence[str] = (), now: datetime
) -> Release:
    """Make a staged release live. With `rows`, these of its quarantined rows are let in: that makes a new release,
    which goes live; so it can be done with the live release too. PriceConflict, PriceRowUnknown."""
    release = await keystore.prices.get(number)
    if rows:
        release = await _with_rows(keystore, rules, release, by, rows, now)
    version = version_of(release.number, release.digest)
    return await keystore.prices.approve(release.number, by, version=version)


async def _with_rows(
    keystore: Keystore, rules: Rules, release: Release, by: str, names: Sequence[str], now: datetime
) -> Release:
    """The release and these rows, staged as a new one."""
    if release.state not in (ReleaseState.STAGED, ReleaseState.LIVE):
        raise PriceConflict(f"price release {release.number} is {release.state}; refresh again")
    waiting = [row for row in await keystore.prices.waiting(release.number) if row.decision == "pending"]
    chosen = _chosen(waiting, names, release.number)
    live = await live_prices(keystore)
    grounds = await prices_of(keystore, release)
    candidate = LivePrices(None, "candidate", _let_in(grounds, chosen))
    packed = await asyncio.to_thread(pack, candidate.rows)
    taken = {row.name for row in chosen}
    new = await new_release(
        keystore,
        rules,
        live,
        candidate,
        packed,
        now=now,
        sources=release.sources,
        waiting=[row for row in waiting if row.name not in taken],
        of=release.number,
        approves=sorted(taken),
    )
    return await keystore.prices.stage(new, by)


def _chosen(waiting: Collection[WaitingRow], names: Sequence[str], number: int) -> list[WaitingRow]:
    """The rows that were named, each of which may be let in."""
    by_name = {row.name: row for row in waiting}
    if ALL in names:
        return [row for row in waiting if Why(row.why).approvable]
    for name in names:
        row = by_name.get(name)
        if row is None:
            raise PriceRowUnknown(f"no row of this name waits in price release {number}: {name[:200]!r}")
        if not Why(row.why).approvable:
            raise PriceConflict(f"the row {name!r} cannot be let in: {row.detail}")
    return [by_name[name] for name in dict.fromkeys(names)]


def _let_in(prices: LivePrices, chosen: Collection[WaitingRow]) -> dict[str, Row]:
    rows: dict[str, Any] = dict(prices.rows)
    for row in chosen:
        if row.proposed is None:
            rows.pop(row.name, None)
        else:
            rows[row.name] = json.loads(row.proposed, parse_float=Decimal)
    return rows


async def roll_back(keystore: Keystore, named: str | None, by: str) -> tuple[Release | None, Target]:
    """Go back to a release that was live, or to the bundled map; without a name, to the one before. Returns the release
    that was left, and where to. PriceConflict, PriceReleaseUnknown."""
    target = await _target(keystore, named)
    left = await keystore.prices.roll_back(target.number, by, version=target.version)
    return left, target


async def _target(keystore: Keystore, named: str | None) -> Target:
    if named is None:
        number = await _before(keystore)
    else:
        number = None if named == BUNDLED else release_number(named)
    if number is None:
        return Target(None, (await asyncio.to_thread(bundled)).version)
    release = await keystore.prices.get(number)
    return Target(number, version_of(number, release.digest))


async def _before(keystore: Keystore) -> int | None:
    """The release that was live before the one that is, passing over those that were rolled back."""
    live = await keystore.prices.live()
    if live is None:
        raise PriceConflict("the bundled map is live: there is nothing to go back from")
    for period in await keystore.prices.periods():
        if period.number is None:
            return None
        if (await keystore.prices.get(period.number)).state is ReleaseState.SUPERSEDED:
            return period.number
    return None


async def difference(keystore: Keystore, release: Release) -> tuple[str, Diff]:
    """What a release changes: of the live one where it is staged, else of the one that it was compared with; and what
    that is called."""
    if release.state is ReleaseState.REFUSED and not release.rows:
        raise PriceConflict(f"price release {release.number} was refused whole: {release.note}")
    base = await _base(keystore, release)
    prices = await prices_of(keystore, release)
    return base.version, await asyncio.to_thread(diff, base.rows, prices.rows)


async def _base(keystore: Keystore, release: Release) -> LivePrices:
    if release.state is ReleaseState.STAGED:
        return await live_prices(keystore)
    return await prices_of(keystore, None if release.base is None else await keystore.prices.get(release.base))
