"""What a time would have cost under another price release, model by model: a report. No row is changed.

Owns how a row's own lines are reckoned again, which rows can be compared, and the form of the report. What the ledger
says and cannot be reckoned is told beside, so that both together are the ledger's sum to the nano-dollar. Must not know
who asks.
"""

import asyncio
import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time
from typing import Any, Final

import orjson

from gateway.pricing.decisions import BUNDLED, release_number
from gateway.pricing.live import catalogue_of, prices_of
from gateway.rules import Rules
from gateway.usage_report import dollars, harmless
from keystore.keystore import Keystore
from keystore.ledger_used import UsedRow
from keystore.providers import Registry
from router.catalogue import Catalogue
from router.reprice import Used, again

_LINES: Final = 6  # where an attempt that failed and is paid for has its lines in a row's detail
Told = Callable[[int], None]
"""Hears how many requests were reckoned so far."""


class TooMany(Exception):
    """The time holds more requests than the report may take."""


@dataclass(slots=True)
class Repriced:
    """Of one model, in whole nano-dollars. `then` and `other` are of the requests whose cost is known both ways; what
    is known one way alone stands beside, and what neither knows is counted."""

    requests: int = 0
    compared: int = 0
    then: int = 0
    other: int = 0
    only_then: int = 0
    only_then_nano: int = 0
    only_other: int = 0
    only_other_nano: int = 0
    neither: int = 0

    def count(self, then: int | None, other: int | None) -> None:
        """One more request."""
        self.requests += 1
        if then is not None and other is not None:
            self.compared, self.then, self.other = self.compared + 1, self.then + then, self.other + other
        elif then is not None:
            self.only_then, self.only_then_nano = self.only_then + 1, self.only_then_nano + then
        elif other is not None:
            self.only_other, self.only_other_nano = self.only_other + 1, self.only_other_nano + other
        else:
            self.neither += 1

    def plus(self, more: "Repriced") -> None:
        """And these."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(more, one.name))


@dataclass(frozen=True, slots=True)
class Report:
    """From `since` until the day before `until`, UTC, under the prices of `release`; models as in usage: who was asked
    last, "" where nobody was."""

    since: date
    until: date
    release: str
    rows: dict[tuple[str, str], Repriced] = field(default_factory=dict)

    @property
    def total(self) -> Repriced:
        """Of all models."""
        whole = Repriced()
        for one in self.rows.values():
            whole.plus(one)
        return whole


async def report(
    keystore: Keystore,
    rules: Rules,
    named: str,
    since: date,
    until: date,
    *,
    tenant_id: str | None = None,
    most: int | None = None,
    told: Told = lambda _: None,
) -> Report:
    """Under the release of this name, "bundled" for the map that came with LiteLLM, and the operator's own rows of now.
    TooMany beyond `most` requests; PriceReleaseUnknown, PriceMapError, DatabaseUnavailable."""
    release = None if named == BUNDLED else await keystore.prices.get(release_number(named))
    catalogue = await catalogue_of(await prices_of(keystore, release), rules)
    found, count = Report(since, until, catalogue.version), 0
    async for rows in keystore.ledger.used(_midnight(since), _midnight(until), tenant_id=tenant_id):
        count += len(rows)
        if most is not None and count > most:
            raise TooMany
        await asyncio.to_thread(_count, found.rows, rows, catalogue, rules.registry)  # requests go on meanwhile
        told(count)
    return found


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _count(
    to: dict[tuple[str, str], Repriced], rows: Iterable[UsedRow], catalogue: Catalogue, registry: Registry
) -> None:
    for row in rows:
        key = (row.provider or "", row.model or "")
        if key not in to:
            to[key] = Repriced()
        to[key].count(row.cost_nano, repriced(row, catalogue, registry))


def repriced(row: UsedRow, catalogue: Catalogue, registry: Registry) -> int | None:
    """What a request costs at the catalogue's prices, failed attempts included; None where a price is not known, or the
    row does not say what was used."""
    calls = _calls(row)
    if calls is None:
        return None
    parts = [_again(call, catalogue, registry) for call in calls]
    return None if None in parts else sum(part or 0 for part in parts)


def _calls(row: UsedRow) -> list["_Call"] | None:
    """Those of a row that used something; None where the units of one are not known."""
    detail = orjson.loads(row.detail)
    if "lines" not in detail:
        return None  # its process died
    found = [(row.provider, row.model, detail["lines"], detail.get("service"))]
    found += [(*each[:2], *each[_LINES:]) for each in detail.get("attempts", ()) if len(each) > _LINES]
    priced = all(price is not None for _, _, lines, _ in found for _, _, price, _ in lines)
    if priced and row.cost_nano is None:
        return None  # it used what nobody counts: searches
    try:
        return [
            _Call(provider, model, Used.of_lines([line[:2] for line in lines], tier))
            for provider, model, lines, tier in found
            if lines
        ]
    except ValueError:
        return None  # a class of a newer Wardgate


def _again(call: "_Call", catalogue: Catalogue, registry: Registry) -> int | None:
    provider = registry.successor(call.provider or "")
    offer = catalogue.offer(f"{provider.id if provider else call.provider}/{call.model}")
    return None if offer is None or offer.fee_unknown else again(offer.prices, call.used)


@dataclass(frozen=True, slots=True)
class _Call:
    """One attempt that is paid for."""

    provider: str | None
    model: str | None
    used: Used


# --- the form --------------------------------------------------------------------------------------------------------

FORM: Final[Mapping[str, Callable[[Repriced], int | str]]] = {
    "requests": lambda one: one.requests,
    "compared_requests": lambda one: one.compared,
    "cost_usd": lambda one: dollars(one.then),
    "other_cost_usd": lambda one: dollars(one.other),
    "difference_usd": lambda one: dollars(one.other - one.then),
    "only_then_requests": lambda one: one.only_then,
    "only_then_cost_usd": lambda one: dollars(one.only_then_nano),
    "only_other_requests": lambda one: one.only_other,
    "only_other_cost_usd": lambda one: dollars(one.only_other_nano),
    "unpriced_requests": lambda one: one.neither,
}


def numbers(one: Repriced) -> dict[str, int | str]:
    """By the names that they are told by."""
    return {name: of(one) for name, of in FORM.items()}


def ordered(found: Report) -> Sequence[tuple[tuple[str, str], Repriced]]:
    """By provider and model."""
    return sorted(found.rows.items())


def document(found: Report) -> dict[str, Any]:
    """As JSON."""
    return {
        "object": "usage.reprice",
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
        "currency": "USD",
        "release": found.release,
        "total": numbers(found.total),
        "rows": [
            {"provider": provider or None, "model": model or None} | numbers(one)
            for (provider, model), one in ordered(found)
        ],
    }


def as_csv(found: Report) -> str:
    """The rows as RFC 4180 has them, with a line of names."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(["provider", "model", *FORM])
    for key, one in ordered(found):
        writer.writerow([*map(harmless, key), *numbers(one).values()])
    return written.getvalue()
